"""Archive one export: copy its file into the bucket, judge it, write its manifest. The work of ``archive_export``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import meibo
from meibo import aws
from meibo.archive.copy import CopyResult
from meibo.archive.manifest import MANIFEST_VERSION, assess_sanity, previous_manifest, timestamp
from meibo.archive.storage import ArchiveStore, ObjectLock, S3ArchiveStore
from meibo.errors import ArchiveConflictError
from meibo.exports.checkpoint import Collector, Unfinished
from meibo.exports.events import ExportEvent
from meibo.exports.plan import PlannedExport
from meibo.exports.provider_clients import ProviderClients
from meibo.exports.transfer import Transfers
from meibo.http.ratelimit import Deadline
from meibo.observability import logger
from meibo.settings import ArchiveExportSettings


class Transfer(Protocol):
    """One export's file on its way from the provider into the bucket."""

    @property
    def gzip(self) -> bool:
        """Whether the archived file is gzip data; it is part of the key."""
        ...

    def copy_to(self, key: str) -> CopyResult:
        """Copy the file to the key, all of it verified, or raise and leave nothing there."""
        ...

    def read_back(self, key: str) -> CopyResult:
        """Read an object that an earlier try completed, and return the result that the try could not."""
        ...

    def notes(self) -> Mapping[str, Any]:
        """Return what the manifest says of this delivery beyond the file: counts only."""
        ...


@dataclass(frozen=True, kw_only=True)
class Archiver:
    """Archives exports; ``deliver`` opens the provider's delivery of one export, or says that it goes on later."""

    store: ArchiveStore
    bucket: str
    open_transfer: Callable[[ExportEvent], Transfer | Unfinished]
    suspect_share: float
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def archive(self, event: ExportEvent) -> dict[str, Any]:
        """Archive one export of a run and return its counts and verdict.

        Where it outlasts the invocation the ``status`` is ``continue``: the workflow waits ``wait_seconds`` and
        invokes again with the ``progress``.

        Done once: where the manifest is there, it is the answer. An object without a manifest was completed by a
        try that ended before its last step. It was verified before it became visible, so it is read back and
        given its manifest, instead of being fetched into a key that can hold only one file.
        """
        run_id, export = event.run_id, event.export
        manifest_key = export.address.manifest_key(run_id)
        manifest = self.store.get_json(manifest_key)
        if manifest is None:
            transfer = self.open_transfer(event)
            if isinstance(transfer, Unfinished):
                return {
                    "export_id": export.export_id,
                    "status": "continue",
                    "wait_seconds": transfer.wait_seconds,
                    "progress": transfer.progress.to_json(),
                }
            manifest = self._archive(run_id, export, transfer, manifest_key)
        else:
            logger.info("archived already", extra={"export_id": export.export_id})
        return {
            "export_id": export.export_id,
            "status": "archived",
            "wait_seconds": 0,
            "progress": None,
            "rows": manifest["content"]["rows"],
            "bytes": manifest["object"]["bytes"],
            "verdict": manifest["sanity"]["verdict"],
        }

    def _archive(self, run_id: str, export: PlannedExport, transfer: Transfer, manifest_key: str) -> Mapping[str, Any]:
        key = export.address.object_key(run_id, gzip=transfer.gzip)
        started = self.now()
        adopted = self.store.exists(key)
        result = transfer.read_back(key) if adopted else transfer.copy_to(key)
        previous = previous_manifest(self.store, export.address, run_id, accept_from=export.accept_from)
        manifest: dict[str, Any] = {
            "manifest_version": MANIFEST_VERSION,
            "run_id": run_id,
            "export_id": export.export_id,
            "provider": export.provider,
            "source": export.source,
            "dataset": export.dataset,
            "format": export.format,
            "scope": export.scope,
            "request": dict(export.request),
            # Which job an object of an earlier try came from is not known here; the attempts' lists name them all.
            "job": {"id": export.job.id, "created_at": export.job.created_at} if export.job and not adopted else None,
            "object": {
                "bucket": self.bucket,
                "key": key,
                "version_id": result.version_id,
                "bytes": result.bytes,
                "sha256": result.sha256,
                "checksum": {
                    "algorithm": result.checksum_algorithm,
                    "type": result.checksum_type,
                    "value": result.checksum,
                },
            },
            "content": {
                "gzip": result.gzip,
                "rows": result.rows,
                "uncompressed_bytes": result.expanded_bytes,
                "columns": list(result.columns) if isinstance(result.columns, tuple) else result.columns,
                **transfer.notes(),
            },
            "sanity": assess_sanity(
                result.rows,
                previous,
                run_id=run_id,
                suspect_share=self.suspect_share,
                accept_from=export.accept_from,
                may_be_empty=export.may_be_empty,
                dataset=export.dataset,
            ),
            "archived": {
                "started_at": timestamp(started),
                "finished_at": timestamp(self.now()),
                "meibo_version": meibo.__version__,
                "read_back": adopted or result.already_there,
            },
        }
        if not self.store.put_json(manifest_key, manifest):
            # Another invocation of the same export was quicker. Its manifest counts if it speaks of the same file.
            written = self.store.get_json(manifest_key)
            if written is None or written["object"]["sha256"] != result.sha256:
                raise ArchiveConflictError(f"{manifest_key} describes another file than the one at {key}")
            return dict(written)
        logger.info(
            "archived",
            extra={
                "export_id": export.export_id,
                "rows": result.rows,
                "bytes": result.bytes,
                "sha256": result.sha256,
                "verdict": manifest["sanity"]["verdict"],
            },
        )
        return manifest


def archiver(settings: ArchiveExportSettings, lock: ObjectLock | None, time_left: Deadline) -> Archiver:
    """Return the archiver that the settings describe, on the real bucket and providers."""
    providers = ProviderClients(deadline=time_left)
    # No retention for the parts: they are temporary, and a lifecycle rule expires them.
    collector = Collector(store=S3ArchiveStore(aws.s3(), settings.bucket), tenant=providers.tenant, time_left=time_left)
    return Archiver(
        store=S3ArchiveStore(aws.s3(), settings.bucket, lock=lock),
        bucket=settings.bucket,
        open_transfer=Transfers(
            providers=providers, settings=settings, lock=lock, client=aws.s3(), collect=collector.collect
        ),
        suspect_share=settings.suspect_share,
    )
