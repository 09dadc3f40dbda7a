"""Small archives on disk and in S3, with the manifests of the pipeline."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from meibo.archive.content import Content, FileDigest, Inspection, best_checksum
from meibo.archive.keys import ExportAddress, run_manifest_key, run_moment
from meibo.archive.manifest import (
    ArchivedContent,
    ArchivedExport,
    ArchivedObject,
    ArchivingDetails,
    ExportManifest,
    MissingExport,
    ObjectChecksum,
    RunCounts,
    RunManifest,
    Sanity,
    timestamp,
)
from meibo.archive.storage import ArchiveStorage, FolderStorage, S3Storage

RUN = "20261121T180000Z"
EARLIER = "20261120T180000Z"
USERS = ExportAddress(provider="auth0", source="acme", dataset="users", format="ndjson", scope="all")
USERS_CSV = ExportAddress(provider="auth0", source="acme", dataset="users", format="csv", scope="all")
STAFF = ExportAddress(provider="cybozu", source="example", dataset="users", format="ndjson", scope="all")
STAFF_CSV = ExportAddress(provider="cybozu", source="example", dataset="users", format="csv", scope="all")


class Storage(Protocol):
    """A storage for an archive of a test. Objects can be overwritten and deleted."""

    def reader(self) -> ArchiveStorage: ...
    def put(self, key: str, body: bytes) -> str | None: ...
    def get(self, key: str) -> bytes: ...
    def delete(self, key: str) -> None: ...


@dataclass
class FolderArchive:
    path: Path

    def reader(self) -> ArchiveStorage:
        return FolderStorage(self.path)

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

    def reader(self) -> ArchiveStorage:
        return S3Storage(self.client, self.name)

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


def export_manifest(
    address: ExportAddress,
    run_id: str = RUN,
    *,
    key: str | None = None,
    version_id: str | None = None,
    body: bytes = b"x",
    rows: int | None = 10,
    gzip: bool = True,
    columns: tuple[str, ...] | int | None = None,
    uncompressed_bytes: int | None = None,
    checksum: ObjectChecksum | None = None,
    request: Mapping[str, Any] | None = None,
    reason: str | None = None,
) -> ExportManifest:
    """Return a manifest. The export is suspect if a ``reason`` is given."""
    return ExportManifest(
        run_id=run_id,
        export_id=address.export_id,
        address=address,
        request=dict(request or {}),
        job=None,
        object=ArchivedObject(
            bucket="archive",
            key=key or address.object_key(run_id, gzip=gzip),
            version_id=version_id,
            bytes=len(body),
            sha256=sha256(body).hexdigest(),
            checksum=checksum or ObjectChecksum(algorithm="CRC64NVME", type="FULL_OBJECT", value="AAAAAAAAAAA="),
        ),
        content=ArchivedContent(gzip=gzip, rows=rows, uncompressed_bytes=uncompressed_bytes, columns=columns),
        sanity=Sanity(
            verdict="suspect" if reason else "ok",
            previous_run_id=None,
            previous_rows=None,
            baseline_run_id=None,
            baseline_rows=None,
            reason=reason,
        ),
        archived=ArchivingDetails(
            started_at="2026-11-21T18:00:01Z",
            finished_at=timestamp(run_moment(run_id) + timedelta(seconds=65)),
            meibo_version="0",
            read_back=False,
        ),
    )


@dataclass
class ArchiveBuilder:
    """Write runs in the format of the pipeline."""

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
        exports: list[ArchivedExport] = []
        for address, body in files.items():
            is_gzip = body[:2] == b"\x1f\x8b"
            inspection = Inspection(Content(format=_content_format(address), header=header))
            inspection.feed(memoryview(body))
            facts = inspection.finish()
            checksum = best_checksum()
            digest = FileDigest(checksum)
            digest.add(memoryview(body))
            key = address.object_key(run_id, gzip=is_gzip)
            version = self.storage.put(key, body)
            manifest = export_manifest(
                address,
                run_id,
                key=key,
                version_id=version,
                body=body,
                rows=facts.rows,
                gzip=facts.gzip,
                columns=facts.columns,
                uncompressed_bytes=facts.expanded_bytes,
                checksum=ObjectChecksum(algorithm=checksum.name, type="FULL_OBJECT", value=digest.checksum),
                request=request or {},
                reason=(suspect or {}).get(address),
            )
            self.put_json(address.manifest_key(run_id), manifest.to_json())
            exports.append(ArchivedExport.of(manifest))
        missing_exports = tuple(MissingExport(**entry) for entry in missing)
        document = RunManifest(
            run_id=run_id,
            attempt=1,
            scheduled_time=run_moment(run_id).isoformat(),
            finished_at=timestamp(run_moment(run_id) + timedelta(seconds=65)),
            meibo_version="0",
            complete=not missing,
            counts=RunCounts.of(exports, missing_exports),
            exports=tuple(exports),
            missing=missing_exports,
        ).to_json()
        self.put_json(run_manifest_key(run_id, 1), document)
        return document

    def put_json(self, key: str, document: Any) -> None:
        """Write a JSON document, and replace an existing object."""
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
