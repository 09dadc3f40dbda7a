"""Small archives on disk and in S3, with the manifests of the pipeline."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from meibo.archive.copy.content import Inspection
from meibo.archive.copy.digest import FileDigest, best_checksum
from meibo.archive.copy.model import Content
from meibo.archive.keys import ExportAddress, run_manifest_key
from meibo.archive.manifest import MANIFEST_VERSION
from meibo.archive.reader import ArchiveReader, DiskReader, S3Reader

RUN = "20261121T180000Z"
EARLIER = "20261120T180000Z"
USERS = ExportAddress(provider="auth0", source="acme", dataset="users", format="ndjson", scope="all")
USERS_CSV = ExportAddress(provider="auth0", source="acme", dataset="users", format="csv", scope="all")
STAFF = ExportAddress(provider="cybozu", source="example", dataset="users", format="ndjson", scope="all")
STAFF_CSV = ExportAddress(provider="cybozu", source="example", dataset="users", format="csv", scope="all")


class Storage(Protocol):
    """A storage for a test's archive, in which objects can also be overwritten and deleted."""

    def reader(self) -> ArchiveReader: ...
    def put(self, key: str, body: bytes) -> str | None: ...
    def get(self, key: str) -> bytes: ...
    def delete(self, key: str) -> None: ...


@dataclass
class FolderArchive:
    path: Path

    def reader(self) -> ArchiveReader:
        return DiskReader(self.path)

    def put(self, key: str, body: bytes) -> str | None:
        path = self.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return None

    def get(self, key: str) -> bytes:
        return (self.path / key).read_bytes()

    def delete(self, key: str) -> None:
        (self.path / key).unlink()


@dataclass
class BucketArchive:
    client: Any
    name: str

    def reader(self) -> ArchiveReader:
        return S3Reader(self.client, self.name)

    def put(self, key: str, body: bytes) -> str | None:
        response = self.client.put_object(Bucket=self.name, Key=key, Body=body)
        version: str | None = response.get("VersionId")
        return version

    def get(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)


def ndjson(rows: Sequence[Mapping[str, Any]], *, compress: bool = True) -> bytes:
    """Return rows as a provider's NDJSON file."""
    body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    return gzip.compress(body, mtime=0) if compress else body


@dataclass
class ArchiveBuilder:
    """Writes runs in the pipeline's format."""

    storage: Storage
    keys: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        files: Mapping[ExportAddress, bytes],
        run_id: str = RUN,
        *,
        header: bool = False,
        request: Mapping[str, Any] | None = None,
        suspect: Mapping[ExportAddress, str] | None = None,
        missing: Sequence[Mapping[str, str]] = (),
    ) -> dict[str, Any]:
        """Archive files as a run and return the run manifest."""
        exports: list[dict[str, Any]] = []
        for address, body in files.items():
            is_gzip = body[:2] == b"\x1f\x8b"
            inspection = Inspection(Content(format=_content_format(address), header=header))
            inspection.feed(memoryview(body))
            facts = inspection.finish()
            checksum = best_checksum()
            digest = FileDigest(checksum)
            digest.add(memoryview(body), checksum.update(body))
            key = address.object_key(run_id, gzip=is_gzip)
            version = self.storage.put(key, body)
            reason = (suspect or {}).get(address)
            sanity = {"verdict": "suspect" if reason else "ok", "previous_run_id": None, "previous_rows": None}
            manifest = {
                "manifest_version": MANIFEST_VERSION,
                "run_id": run_id,
                "export_id": address.export_id,
                "provider": address.provider,
                "source": address.source,
                "dataset": address.dataset,
                "format": address.format,
                "scope": address.scope,
                "request": dict(request or {}),
                "job": None,
                "object": {
                    "bucket": "archive",
                    "key": key,
                    "version_id": version,
                    "bytes": len(body),
                    "sha256": sha256(body).hexdigest(),
                    "checksum": {"algorithm": checksum.name, "type": "FULL_OBJECT", "value": digest.checksum},
                },
                "content": {
                    "gzip": facts.gzip,
                    "rows": facts.rows,
                    "uncompressed_bytes": facts.expanded_bytes,
                    "columns": list(facts.columns) if isinstance(facts.columns, tuple) else facts.columns,
                },
                "sanity": {**sanity, "reason": reason} if reason else sanity,
                "archived": {"finished_at": "2026-11-21T18:00:05Z", "meibo_version": "0", "read_back": False},
            }
            self.put_json(address.manifest_key(run_id), manifest)
            exports.append(
                {
                    "export_id": address.export_id,
                    "manifest_key": address.manifest_key(run_id),
                    "key": key,
                    "bytes": len(body),
                    "sha256": sha256(body).hexdigest(),
                    "rows": facts.rows,
                    "verdict": sanity["verdict"],
                }
            )
        document = {
            "manifest_version": MANIFEST_VERSION,
            "run_id": run_id,
            "attempt": 1,
            "complete": not missing,
            "counts": {
                "planned": len(exports) + len(missing),
                "archived": len(exports),
                "missing": len(missing),
                "suspect": len(suspect or {}),
                "bytes": sum(export["bytes"] for export in exports),
                "rows": sum(export["rows"] or 0 for export in exports),
            },
            "exports": exports,
            "missing": list(missing),
        }
        self.put_json(run_manifest_key(run_id, 1), document)
        return document

    def put_json(self, key: str, document: Any) -> None:
        """Write a JSON document, also over an existing object."""
        self.storage.put(key, json.dumps(document, ensure_ascii=False, indent=2).encode())

    def edit(self, key: str, *path: str, value: Any) -> None:
        """Replace the value at a path of a JSON document."""
        document = json.loads(self.storage.get(key))
        inner = document
        for name in path[:-1]:
            inner = inner[int(name)] if isinstance(inner, list) else inner[name]
        inner[path[-1]] = value
        self.put_json(key, document)


def _content_format(address: ExportAddress) -> Any:
    return address.format
