"""Export files: each is written once to a temporary file and served with ranges by the export file host."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import re
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from flask import Flask, Response, request
from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from meibo_simulators.auth0.directory import Directory
    from meibo_simulators.auth0.export_rows import Layout
    from meibo_simulators.auth0.switches import Switches
    from meibo_simulators.clock import Clock

CHUNK = 256 * 1024
_GZIP_WBITS = 31
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


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
        """Return the complete content as it is delivered."""
        return self.path.read_bytes()

    def content(self) -> bytes:
        """Return the rows, decompressed."""
        data = self.read()
        return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


@dataclass
class Deposit:
    """A file at the path of a location. The file of a job can be replaced while it is downloaded."""

    path: str
    file: ExportFile


class Files:
    """Write export files; sign and serve locations."""

    def __init__(
        self, directory: Directory, switches: Switches, clock: Callable[[], Clock], folder: Callable[[], Path]
    ) -> None:
        self._directory = directory
        self._switches = switches
        self._clock = clock
        self._folder = folder
        self._key = secrets.token_bytes(32)
        self._lock = threading.RLock()
        self._written: dict[tuple[object, ...], ExportFile] = {}
        self._building: dict[tuple[object, ...], threading.Lock] = {}
        self._deposits: dict[str, Deposit] = {}
        self._expiry: dict[str, float] = {}

    def build(self, layout: Layout, connection_id: str | None, limit: int | None, *, edition: int = 0) -> ExportFile:
        """Return the export's file; write it unless it exists. Editions differ in bytes, not in rows."""
        zipped = self._switches.gzip_files
        key = (layout, connection_id, limit, edition, zipped, self._directory.version)
        with self._lock:
            building = self._building.setdefault(key, threading.Lock())
        with building:
            if key not in self._written:
                self._written[key] = self._write(layout, connection_id, limit, edition)
            return self._written[key]

    def _write(self, layout: Layout, connection_id: str | None, limit: int | None, edition: int) -> ExportFile:
        zipped = self._switches.gzip_files
        # Another edition has the same rows in different bytes, as if the file had been written again.
        level = (1, 0, 2, 3)[edition % 4]
        compressor = isal_zlib.compressobj(level, isal_zlib.DEFLATED, _GZIP_WBITS) if zipped else None
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        md5.update(edition.to_bytes(4, "big"))
        path = self._folder() / f"export-{secrets.token_hex(8)}"
        size = rows = 0
        with path.open("wb") as out:

            def put(data: bytes) -> None:
                nonlocal size
                out.write(data)
                sha256.update(data)
                md5.update(data)
                size += len(data)

            put(compressor.compress(layout.header()) if compressor else layout.header())
            for piece, count in self._directory.rows(layout, connection_id, limit):
                put(compressor.compress(piece) if compressor else piece)
                rows += count
            if compressor:
                put(compressor.flush())
        return ExportFile(path, size, rows, sha256.hexdigest(), f'"{md5.hexdigest()}"', self._clock()())

    def damaged(self, file: ExportFile, change: Callable[[bytes], bytes]) -> ExportFile:
        """Write the result of ``change`` as a new file, with its own size and ETag."""
        data = change(file.read())
        path = self._folder() / f"export-{secrets.token_hex(8)}"
        path.write_bytes(data)
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        return ExportFile(path, len(data), file.rows, hashlib.sha256(data).hexdigest(), etag, file.modified)

    def deposit(self, path: str, file: ExportFile) -> None:
        """Put a file at a path of the host; replace an existing file."""
        with self._lock:
            self._deposits[path] = Deposit(path, file)

    def deposited(self, path: str) -> ExportFile | None:
        """Return the file at a path, or None."""
        with self._lock:
            deposit = self._deposits.get(path)
        return None if deposit is None else deposit.file

    def remove(self, path: str) -> None:
        """Remove a path from the host."""
        with self._lock:
            self._deposits.pop(path, None)

    def query(self, path: str) -> str:
        """Return the query of a new S3 presigned URL of a path."""
        now = self._clock()()
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
        with self._lock:
            # X-Amz-Expires has whole seconds, but tests use shorter lifetimes; so the exact time is stored here.
            self._expiry[signature] = now + self._switches.location_ttl
        return f"{urlencode(parameters)}&X-Amz-Signature={signature}"

    def application(self) -> Flask:
        """Return the WSGI application of the export file host."""
        app = Flask("auth0-files")

        @app.route("/", defaults={"path": ""}, methods=["GET", "HEAD", "PUT", "POST", "DELETE"])
        @app.route("/<path:path>", methods=["GET", "HEAD", "PUT", "POST", "DELETE"])
        def file(path: str) -> Response:
            return self._serve(f"/{path}")

        return app

    def _serve(self, path: str) -> Response:
        signed, _, signature = request.full_path.partition("&X-Amz-Signature=")
        if "Authorization" in request.headers:
            return s3_error(
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query "
                "string parameter or the Authorization header should be specified",
            )
        with self._lock:
            expiry = self._expiry.get(signature)
            deposit = self._deposits.get(path)
        if not signature:
            return s3_error(403, "AccessDenied", "Access Denied")
        expected = hmac.digest(self._key, signed.encode(), "sha256").hex()
        # The URL is signed for GET; the signature does not cover HEAD.
        if expiry is None or not hmac.compare_digest(signature, expected) or request.method != "GET":
            return s3_error(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. Check your "
                "key and signing method.",
            )
        if self._clock()() >= expiry:
            return s3_error(403, "AccessDenied", "Request has expired")
        return self._deposited(deposit)

    def _deposited(self, deposit: Deposit | None) -> Response:
        if self._switches.redirect_files_to is not None:
            return Response(status=302, headers={"Location": self._switches.redirect_files_to})
        if deposit is None:
            return s3_error(404, "NoSuchKey", "The specified key does not exist.")
        return self._content(deposit.file)

    def _content(self, file: ExportFile) -> Response:
        switches = self._switches
        headers = {"Last-Modified": formatdate(file.modified, usegmt=True), "Server": "AmazonS3"}
        headers["x-amz-request-id"] = secrets.token_hex(8).upper()
        if switches.file_etag:
            headers["ETag"] = file.etag
        if switches.file_content_encoding is not None:
            headers["Content-Encoding"] = switches.file_content_encoding
        if switches.file_ranges:
            headers["Accept-Ranges"] = "bytes"
        wanted = request.headers.get("If-Match")
        if wanted is not None and switches.file_if_match and wanted not in ("*", file.etag):
            return s3_error(412, "PreconditionFailed", "At least one of the preconditions you specified did not hold.")
        if switches.file_etag and request.headers.get("If-None-Match") == file.etag:
            return Response(status=304, headers=headers)
        start, end, status = 0, file.size, 200
        requested = self._requested_range(file)
        if requested is not None:
            start, end = requested
            if start >= end:
                refusal = s3_error(416, "InvalidRange", "The requested range is not satisfiable")
                refusal.headers["Content-Range"] = f"bytes */{file.size}"
                return refusal
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
        if switches.file_sized:
            headers["Content-Length"] = str(end - start)
        response = Response(self._slices(file.path, start, end), status, headers)
        response.headers["Content-Type"] = switches.file_content_type
        return response

    def _slices(self, path: Path, start: int, end: int) -> Iterator[bytes]:
        rate = self._switches.file_bytes_per_second
        # Real time: these settings are for measurements, which need the system clock.
        begun = time.monotonic() + self._switches.file_seconds_to_first_byte
        position = start
        with path.open("rb") as file:
            file.seek(start)
            while position < end:
                due = begun + ((position - start) / rate if rate else 0)
                if due > time.monotonic():
                    time.sleep(max(0.0, due - time.monotonic()))
                chunk = file.read(min(CHUNK, end - position))
                if not chunk:
                    return
                position += len(chunk)
                yield chunk

    def _requested_range(self, file: ExportFile) -> tuple[int, int] | None:
        match = _RANGE.fullmatch(request.headers.get("Range", ""))
        if match is None or not self._switches.file_ranges or match.group(0) == "bytes=-":
            return None
        condition = request.headers.get("If-Range")
        if condition is not None and self._switches.file_if_range and condition != file.etag:
            return None
        first, last = match.groups()
        if not first:
            return max(0, file.size - int(last)), file.size if int(last) else 0
        return int(first), min(file.size, int(last) + 1) if last else file.size


def s3_error(status: int, code: str, message: str) -> Response:
    """Return an error response in S3's format."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>"
        f"<RequestId>{secrets.token_hex(8).upper()}</RequestId><HostId>{secrets.token_urlsafe(48)}</HostId></Error>"
    )
    return Response(body, status, content_type="application/xml")
