"""The files of exports and their presigned URLs, which expire."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from isal import isal_zlib

from meibo_simulators.auth0.directory import Directory
from meibo_simulators.auth0.export_rows import Layout
from meibo_simulators.auth0.switches import Switches
from meibo_simulators.site import Site

_GZIP_WBITS = 31


@dataclass(frozen=True)
class ExportFile:
    """A written export file and its digests."""

    path: Path
    size: int
    rows: int
    sha256: str
    etag: str
    modified: float

    def read(self) -> bytes:
        """Return the content as it is sent."""
        return self.path.read_bytes()

    def content(self) -> bytes:
        """Return the decompressed content."""
        data = self.read()
        return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


class Files:
    """Write export files and sign their locations. ``Simulators`` sets the folder and the host of the files."""

    folder: Path

    def __init__(self, site: Site, switches: Switches, directory: Directory) -> None:
        #: The host and port in the locations.
        self.host = ""
        self._site = site
        self._switches = switches
        self._directory = directory
        self._key = secrets.token_bytes(32)
        self._lock = threading.RLock()
        self._written: dict[tuple[object, ...], ExportFile] = {}
        self._building: dict[tuple[object, ...], threading.Lock] = {}
        self._expiry: dict[str, float] = {}

    def build(self, layout: Layout, connection_id: str | None, limit: int | None) -> ExportFile:
        """Return the file of an export, and write it unless it exists."""
        key = (layout, connection_id, limit, self._switches.gzip_files, self._directory.version)
        with self._lock:
            building = self._building.setdefault(key, threading.Lock())
        with building:
            if key not in self._written:
                self._written[key] = self._write(layout, connection_id, limit)
            file, damage = self._written[key], self._switches.file_damage
        return self._damage(file, damage) if damage else file

    def _write(self, layout: Layout, connection_id: str | None, limit: int | None) -> ExportFile:
        compressor = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _GZIP_WBITS) if self._switches.gzip_files else None
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        path = self.folder / f"export-{secrets.token_hex(8)}"
        size = rows = 0
        with path.open("wb") as out:

            def write(data: bytes) -> None:
                nonlocal size
                out.write(data)
                sha256.update(data)
                md5.update(data)
                size += len(data)

            write(compressor.compress(layout.header()) if compressor else layout.header())
            for piece, count in self._directory.rows(layout, connection_id, limit):
                write(compressor.compress(piece) if compressor else piece)
                rows += count
            if compressor:
                write(compressor.flush())
        return ExportFile(path, size, rows, sha256.hexdigest(), f'"{md5.hexdigest()}"', self._site.now())

    def _damage(self, file: ExportFile, change: Callable[[bytes], bytes]) -> ExportFile:
        """Write the result of ``change`` as a new file, with its own size and ETag."""
        data = change(file.read())
        path = self.folder / f"export-{secrets.token_hex(8)}"
        path.write_bytes(data)
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        return ExportFile(path, len(data), file.rows, hashlib.sha256(data).hexdigest(), etag, file.modified)

    def location(self, path: str) -> str:
        """Return a new presigned URL for a path."""
        scheme = {"https": "https://", "http": "http://", "none": ""}[self._switches.location_scheme]
        return f"{scheme}{self._switches.location_host or self.host}{path}?{self.query(path)}"

    def query(self, path: str) -> str:
        """Return the query string of a new S3 presigned URL for a path."""
        now = self._site.now()
        date = datetime.fromtimestamp(now, UTC)
        parameters = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"ASIASIMULATED0000000/{date:%Y%m%d}/us-east-2/s3/aws4_request",
            "X-Amz-Date": f"{date:%Y%m%dT%H%M%SZ}",
            "X-Amz-Expires": str(int(self._switches.location_ttl)),
            "X-Amz-Security-Token": secrets.token_urlsafe(96),
            "X-Amz-SignedHeaders": "host",
        }
        signed = f"{path}?{urlencode(parameters)}"
        signature = hmac.digest(self._key, signed.encode(), "sha256").hex()
        # X-Amz-Expires contains whole seconds. The exact time is stored, so that a lifetime can be less than a second.
        self._expiry[signature] = now + self._switches.location_ttl
        return f"{urlencode(parameters)}&X-Amz-Signature={signature}"

    def expiry(self, signed: str, signature: str) -> float | None:
        """Return the time when a location expires, or None if the signature is wrong."""
        expected = hmac.digest(self._key, signed.encode(), "sha256").hex()
        return self._expiry.get(signature) if hmac.compare_digest(signature, expected) else None
