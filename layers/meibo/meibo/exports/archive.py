"""Archive one export: copy its file into the bucket and write its manifest.

The Lambda function ``archive_export`` runs this code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import meibo
from meibo import aws
from meibo.archive.copier import Copier, S3Copier
from meibo.archive.copy import Content, CopyOptions, LocationSource, StreamSource
from meibo.archive.manifest import (
    ArchivedContent,
    ArchivedObject,
    ArchivingDetails,
    ExportManifest,
    ManifestJob,
    ObjectChecksum,
    timestamp,
)
from meibo.archive.storage import ArchiveStorage, S3Storage
from meibo.clock import TimeLeft
from meibo.errors import ArchiveConflictError
from meibo.exports.checkpoint import Collected, Collector, Unfinished, gzip_chunks
from meibo.exports.events import ExportEvent
from meibo.exports.plan import PlannedExport
from meibo.exports.sanity import assess_sanity
from meibo.observability import logger
from meibo.providers import provider
from meibo.providers.base import ByteStream, ExportSource, JobFile, Pages, ProviderContext
from meibo.settings import GIB, MIB, BucketSettings, ObjectLock

# A copy requires COPY_WORKERS × COPY_PART_BYTES of the function's memory, plus a constant.
COPY_WORKERS = 16
COPY_PART_BYTES = 5 * MIB
# A larger decompressed file is rejected as a decompression bomb. 512 GiB contain about 500 million users.
MAX_EXPANDED_BYTES = 512 * GIB


@dataclass(frozen=True, kw_only=True)
class Archiver:
    """Archives exports. ``collector`` collects the exports that are read page by page."""

    storage: ArchiveStorage
    bucket: str
    copier: Copier
    collector: Collector
    context: ProviderContext
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def archive(self, event: ExportEvent) -> dict[str, Any]:
        """Archive one export of a run, and return its counts and the verdict of the sanity check.

        If the export is incomplete, ``status`` is ``continue``: the workflow waits ``wait_seconds`` and invokes the
        function again with the ``progress``. If the manifest exists, its values are returned and nothing is copied.
        """
        export = event.export
        manifest_key = export.address.manifest_key(event.run_id)
        manifest = ExportManifest.read(self.storage, manifest_key)
        if manifest is None:
            source = self._open(event)
            if isinstance(source, Unfinished):
                return {
                    "export_id": export.export_id,
                    "status": "continue",
                    "wait_seconds": source.wait_seconds,
                    "progress": source.progress.to_json(),
                }
            manifest = self._archive(event.run_id, export, source, manifest_key)
        else:
            logger.info("already archived", extra={"export_id": export.export_id})
        return {
            "export_id": export.export_id,
            "status": "archived",
            "wait_seconds": 0,
            "progress": None,
            "rows": manifest.content.rows,
            "bytes": manifest.object.bytes,
            "verdict": manifest.sanity.verdict,
        }

    def _open(self, event: ExportEvent) -> ExportSource | Collected | Unfinished:
        export = event.export
        context, job_id = self.context, export.job.id if export.job else None
        if provider(export.provider).dataset(export.dataset).reading == "pages":
            context = replace(context, time_left=self.collector.reading_time_left)
        source = provider(export.provider).open_source(export, job_id, context)
        return self.collector.collect(event, source) if isinstance(source, Pages) else source

    def _archive(
        self, run_id: str, export: PlannedExport, source: ExportSource | Collected, manifest_key: str
    ) -> ExportManifest:
        dataset = provider(export.provider).dataset(export.dataset)
        gzip = isinstance(source, Collected) or source.gzip
        content = Content(
            format=export.format,
            gzip="required" if gzip else "never",
            header=isinstance(source, ExportSource) and source.header,
            uniform=export.format == "csv" and not dataset.csv_ragged,
            max_expanded_bytes=MAX_EXPANDED_BYTES,
        )
        key = export.address.object_key(run_id, gzip=gzip)
        started = self.now()
        # If the object exists, an earlier invocation completed and validated it, but ended before it wrote the
        # manifest. Objects are not overwritten, so the object is read, and its manifest is written.
        adopted = self.storage.exists(key)
        if adopted:
            result = self.copier.read_back(key, content)
        else:
            result = self.copier.copy(_copy_source(source), key, content)
        # If the object already existed, the export's current job may not be the job that created it.
        job = None if adopted else export.job
        manifest = ExportManifest(
            run_id=run_id,
            export_id=export.export_id,
            address=export.address,
            request=export.request,
            job=ManifestJob(id=job.id, created_at=job.created_at.isoformat()) if job else None,
            object=ArchivedObject(
                bucket=self.bucket,
                key=key,
                version_id=result.version_id,
                bytes=result.bytes,
                sha256=result.sha256,
                checksum=ObjectChecksum(
                    algorithm=result.checksum_algorithm, type=result.checksum_type, value=result.checksum
                ),
            ),
            content=ArchivedContent(
                gzip=result.gzip,
                rows=result.rows,
                uncompressed_bytes=result.expanded_bytes,
                columns=result.columns,
                notes=source.notes(),
            ),
            sanity=assess_sanity(self.storage, export, run_id, result.rows),
            archived=ArchivingDetails(
                started_at=timestamp(started),
                finished_at=timestamp(self.now()),
                meibo_version=meibo.__version__,
                read_back=adopted or result.already_there,
            ),
        )
        written = manifest.write(self.storage, manifest_key)
        # Another invocation may have written the manifest first. This is not an error if it describes the same file.
        if written.object.sha256 != result.sha256:
            raise ArchiveConflictError(
                f"{manifest_key}: expected the manifest of {key}, found the manifest of another file"
            )
        logger.info(
            "archived",
            extra={
                "export_id": export.export_id,
                "rows": result.rows,
                "bytes": result.bytes,
                "sha256": result.sha256,
                "verdict": written.sanity.verdict,
            },
        )
        return written


def _copy_source(source: ExportSource | Collected) -> LocationSource | StreamSource:
    if isinstance(source, JobFile):
        return LocationSource(source.fetch_location)
    if isinstance(source, ByteStream):
        return StreamSource(gzip_chunks(source.chunks()) if source.gzip else source.chunks())
    if isinstance(source, Collected):
        return StreamSource(source.chunks())
    raise TypeError(f"unsupported type of ExportSource: {type(source).__name__}")


def archiver(settings: BucketSettings, object_lock: ObjectLock, time_left: TimeLeft) -> Archiver:
    """Return an Archiver for the archive bucket in the settings."""
    s3 = aws.s3()
    return Archiver(
        storage=S3Storage(s3, settings.bucket, object_lock=object_lock),
        bucket=settings.bucket,
        copier=S3Copier(
            client=s3,
            bucket=settings.bucket,
            options=CopyOptions(workers=COPY_WORKERS, part_bytes=COPY_PART_BYTES),
            object_lock=object_lock,
            time_left=time_left,
        ),
        # Parts have no Object Lock, because a lifecycle rule expires them.
        collector=Collector(storage=S3Storage(s3, settings.bucket), time_left=time_left),
        context=ProviderContext(time_left),
    )
