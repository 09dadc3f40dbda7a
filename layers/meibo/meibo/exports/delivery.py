"""How each kind of export is delivered: a file behind a location, a stream of CSV, or pages put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from meibo.archive import copy as copying
from meibo.archive.copy import Content, CopyOptions, CopyResult, LocationSource, StreamSource, Target
from meibo.archive.read_back import read_back
from meibo.archive.store import ObjectLock
from meibo.cybozu.paging import PagingReport
from meibo.cybozu.users import stream_users_csv, stream_users_ndjson
from meibo.errors import EventError
from meibo.exports.gzipping import gzipped
from meibo.exports.plan import PlannedExport
from meibo.exports.providers import Providers
from meibo.settings import GIB, MIB, ArchiveExportSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CONTENT_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}


@dataclass(frozen=True, kw_only=True)
class CopyDelivery:
    """A delivery that the copy moves: where the bytes come from, and what they must be."""

    source: Callable[[], LocationSource | StreamSource]
    content: Content
    gzip: bool
    client: S3Client
    bucket: str
    options: CopyOptions
    lock: ObjectLock | None
    deadline: Callable[[], float]
    report: PagingReport | None = None

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
        return read_back(self.client, self.bucket, key, content=self.content, deadline=self.deadline)

    def notes(self) -> Mapping[str, Any]:
        """Return what paging met: users that were met twice because the directory moved."""
        if self.report is None:
            return {}
        return {"pages": self.report.pages, "duplicates_dropped": self.report.duplicates}


@dataclass(frozen=True, kw_only=True)
class Deliveries:
    """Opens the delivery of an export, as its provider and format want it."""

    providers: Providers
    settings: ArchiveExportSettings
    lock: ObjectLock | None
    client: S3Client
    options: CopyOptions = field(init=False)

    def __post_init__(self) -> None:
        """Take the copy's options from the settings."""
        options = CopyOptions(lanes=self.settings.copy_lanes, part_bytes=self.settings.copy_part_mib * MIB)
        object.__setattr__(self, "options", options)

    def __call__(self, export: PlannedExport) -> CopyDelivery:
        """Return the delivery; nothing is fetched yet."""
        if export.dataset != "users":
            raise EventError(f"export.dataset must be 'users', not {export.dataset[:40]!r}")
        return self._auth0_users(export) if export.provider == "auth0" else self._cybozu_users(export)

    def _auth0_users(self, export: PlannedExport) -> CopyDelivery:
        job = export.job
        if job is None:
            raise EventError("export.job is missing: create the job before its file is archived")

        def fetch() -> str:
            return self.providers.location(export, job.id, self.settings.location_hosts)

        return self._delivery(export, lambda: LocationSource(fetch), gzip=True, header=export.format == "csv")

    def _cybozu_users(self, export: PlannedExport) -> CopyDelivery:
        report = PagingReport()

        def chunks() -> Iterator[bytes]:
            with self.providers.cybozu(export) as client:
                if export.format == "csv":
                    yield from stream_users_csv(client)
                    return
                yield from gzipped(
                    stream_users_ndjson(
                        client,
                        ids=export.request.get("ids", ()),
                        codes=export.request.get("codes", ()),
                        concurrency=self.settings.cybozu_concurrency,
                        report=report,
                    )
                )

        paged = export.format == "ndjson"
        return self._delivery(
            export, lambda: StreamSource(chunks()), gzip=paged, header=False, report=report if paged else None
        )

    def _delivery(
        self,
        export: PlannedExport,
        source: Callable[[], LocationSource | StreamSource],
        *,
        gzip: bool,
        header: bool,
        report: PagingReport | None = None,
    ) -> CopyDelivery:
        content = Content(
            format=export.format,
            gzip="required" if gzip else "never",
            header=header,
            decode=self.settings.copy_decode,
            max_expanded_bytes=self.settings.max_expanded_gib * GIB,
        )
        return CopyDelivery(
            source=source,
            content=content,
            gzip=gzip,
            client=self.client,
            bucket=self.settings.bucket,
            options=self.options,
            lock=self.lock,
            deadline=self.providers.deadline,
            report=report,
        )
