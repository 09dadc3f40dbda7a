"""How each kind of export is delivered: a file behind a location, a stream of CSV, or pages put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from meibo.archive import copy as copying
from meibo.archive.copy import Content, CopyOptions, CopyResult, LocationSource, StreamSource, Target
from meibo.archive.existing_object import describe_existing_object
from meibo.archive.storage import ObjectLock
from meibo.errors import EventError
from meibo.exports.checkpoint import Collected, Unfinished, gzip_chunks
from meibo.exports.events import ExportEvent
from meibo.exports.plan import PlannedExport
from meibo.exports.provider_clients import ProviderClients
from meibo.providers.cybozu.csv_files import RAGGED_CSV_FILES, stream_csv
from meibo.providers.cybozu.organizations import (
    stream_groups_ndjson,
    stream_members_ndjson,
    stream_organizations_ndjson,
)
from meibo.providers.cybozu.pagination import PagingReport
from meibo.providers.cybozu.users import stream_users_ndjson
from meibo.settings import GIB, MIB, ArchiveExportSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# How each dataset of a cybozu.com domain is read page by page; its CSV files are all read in the same way.
_CYBOZU_NDJSON: Mapping[str, Callable[..., Iterator[bytes]]] = {
    "users": stream_users_ndjson,
    "organizations": stream_organizations_ndjson,
    "groups": stream_groups_ndjson,
    "members": stream_members_ndjson,
}
_CONTENT_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}


@dataclass(frozen=True, kw_only=True)
class CopyTransfer:
    """A delivery that the copy moves: where the bytes come from, and what they must be."""

    source: Callable[[], LocationSource | StreamSource]
    content: Content
    gzip: bool
    client: S3Client
    bucket: str
    options: CopyOptions
    lock: ObjectLock | None
    deadline: Callable[[], float]
    tell: Callable[[], Mapping[str, Any]] = dict

    def copy_to(self, key: str) -> CopyResult:
        """Copy the file to the key, all of it verified, or raise and leave nothing there."""
        lock = None
        if self.lock:
            lock = copying.ObjectLock(self.lock.mode, self.lock.retain_until(datetime.now(UTC)))
        target = Target(
            client=self.client,
            bucket=self.bucket,
            key=key,
            content_type="application/gzip" if self.gzip else _CONTENT_TYPES[self.content.format],
            object_lock=lock,
        )
        return copying.copy(self.source(), target, content=self.content, options=self.options, deadline=self.deadline)

    def read_back(self, key: str) -> CopyResult:
        """Read an object that an earlier try completed, and return the result that the try could not."""
        return describe_existing_object(self.client, self.bucket, key, content=self.content, deadline=self.deadline)

    def notes(self) -> Mapping[str, Any]:
        """Return what the reading met, for the manifest: counts, and ids of what was deleted meanwhile."""
        return self.tell()


@dataclass(frozen=True, kw_only=True)
class Transfers:
    """Opens the delivery of an export, as its provider and format want it."""

    providers: ProviderClients
    settings: ArchiveExportSettings
    lock: ObjectLock | None
    client: S3Client
    collect: Callable[[ExportEvent], Collected | Unfinished]
    options: CopyOptions = field(init=False)

    def __post_init__(self) -> None:
        """Take the copy's options from the settings."""
        options = CopyOptions(lanes=self.settings.copy_lanes, part_bytes=self.settings.copy_part_mib * MIB)
        object.__setattr__(self, "options", options)

    def __call__(self, event: ExportEvent) -> CopyTransfer | Unfinished:
        """Return the delivery; what is read call by call is collected first, and may outlast the invocation."""
        export = event.export
        if export.provider == "cybozu":
            return self._cybozu(export)
        return self._auth0_users(export) if export.has_job else self._auth0_collected(event)

    def _auth0_users(self, export: PlannedExport) -> CopyTransfer:
        job = export.job
        if job is None:
            raise EventError("export.job is missing: create the job before its file is archived")

        def fetch() -> str:
            return self.providers.location(export, job.id, self.settings.location_hosts)

        return self._delivery(export, lambda: LocationSource(fetch), gzip=True, header=export.format == "csv")

    def _auth0_collected(self, event: ExportEvent) -> CopyTransfer | Unfinished:
        collected = self.collect(event)
        if isinstance(collected, Unfinished):
            return collected
        return self._delivery(
            event.export, lambda: StreamSource(collected.chunks()), gzip=True, header=False, tell=collected.notes
        )

    def _cybozu(self, export: PlannedExport) -> CopyTransfer:
        report = PagingReport()
        stream = _CYBOZU_NDJSON.get(export.dataset)
        paged = export.format == "ndjson"
        if paged and stream is None:
            raise EventError(f"export.dataset {export.dataset[:40]!r} is not read as NDJSON from cybozu.com")

        def chunks() -> Iterator[bytes]:
            with self.providers.cybozu(export) as client:
                if stream is None or not paged:
                    yield from stream_csv(client, export.dataset)
                    return
                yield from gzip_chunks(
                    stream(client, concurrency=self.settings.cybozu_concurrency, report=report, **export.request)
                )

        def tell() -> Mapping[str, Any]:
            # An object that is read back was fetched by an invocation whose report is lost.
            if not report.pages:
                return {}
            counts: dict[str, Any] = {"pages": report.pages, "duplicates_dropped": report.duplicates}
            if export.dataset == "members":
                # Deleted between the list and the reading of them.
                counts["skipped"] = {"count": len(report.gone), "ids": list(report.gone)}
            return counts

        return self._delivery(export, lambda: StreamSource(chunks()), gzip=paged, header=False, tell=tell)

    def _delivery(
        self,
        export: PlannedExport,
        source: Callable[[], LocationSource | StreamSource],
        *,
        gzip: bool,
        header: bool,
        tell: Callable[[], Mapping[str, Any]] = dict,
    ) -> CopyTransfer:
        content = Content(
            format=export.format,
            gzip="required" if gzip else "never",
            header=header,
            uniform=export.format == "csv" and export.dataset not in RAGGED_CSV_FILES,
            decode=self.settings.copy_decode,
            max_expanded_bytes=self.settings.max_expanded_gib * GIB,
        )
        return CopyTransfer(
            source=source,
            content=content,
            gzip=gzip,
            client=self.client,
            bucket=self.settings.bucket,
            options=self.options,
            lock=self.lock,
            deadline=self.providers.deadline,
            tell=tell,
        )
