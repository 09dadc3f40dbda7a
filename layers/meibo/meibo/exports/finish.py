"""Finish a run: write its manifest, metrics and report, and send its event.

The Lambda function ``finish_run`` runs this code.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import meibo
from meibo import aws, errors
from meibo.archive.keys import failure_key, report_key, run_manifest_key
from meibo.archive.manifest import ArchivedExport, ExportManifest, MissingExport, RunCounts, RunManifest, timestamp
from meibo.archive.storage import ArchiveStorage, S3Storage, StoredDocument
from meibo.documents import FLATTEN, PositiveInt
from meibo.exports.events import CaughtError
from meibo.exports.heartbeat import Heartbeat
from meibo.exports.plan import Plan, PlannedExport
from meibo.observability import MetricUnit, logger, metrics
from meibo.report.page import render
from meibo.report.state import gather
from meibo.settings import FinishRunSettings, ObjectLock, ReportLanguage

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

_PARALLEL_READS = 16

# EventBridge accepts 256 KiB per entry. The event contains at most 100 ids of each kind.
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
_MAX_EVENT_IDS = 100

# The role of finish_run can send events to this bus only. A rule of the bus can forward events to any other bus:
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-bus-to-bus.html
EVENT_BUS = "default"
EVENT_SOURCE = "meibo"
EVENT_DETAIL_TYPE = "Meibo Run Finished"


def put_event(client: EventBridgeClient, detail: Mapping[str, Any]) -> None:
    """Send the event of a finished run. Raises AwsBusyError or UnexpectedError if EventBridge rejects it."""
    response = client.put_events(
        Entries=[
            {
                "Source": EVENT_SOURCE,
                "DetailType": EVENT_DETAIL_TYPE,
                "Detail": json.dumps(detail),
                "EventBusName": EVENT_BUS,
            }
        ]
    )
    if response["FailedEntryCount"]:
        code = response["Entries"][0].get("ErrorCode", "unknown")
        error = errors.AwsBusyError if aws.is_busy_code(code) else errors.UnexpectedError
        raise error(f"EventBridge rejected the event of the finished run with {code}; the workflow retries")


@dataclass(frozen=True, kw_only=True)
class FailureRecord(StoredDocument):
    """The record of a failed export in an attempt."""

    export: Annotated[MissingExport, FLATTEN]
    attempt: PositiveInt


def _reason(error: CaughtError) -> str:
    known = getattr(errors, error.name, None)
    if not (isinstance(known, type) and issubclass(known, errors.MeiboError)):
        # The message of any other error may contain sensitive data, so it is not copied.
        return "see the function's log and the execution's history in Step Functions"
    cause = error.cause
    # The cause is the message of a refused export, or the JSON document of a function's error.
    with contextlib.suppress(ValueError, TypeError, KeyError):
        cause = json.loads(cause or "")["errorMessage"]
    return cause or (known.__doc__ or error.name).partition("\n")[0]


@dataclass(frozen=True, kw_only=True)
class RunFinisher:
    """Finishes the attempts of runs."""

    storage: ArchiveStorage
    publish: Callable[[Mapping[str, Any]], None] = lambda _detail: None
    report: Callable[[str, int], None] = lambda _run_id, _attempt: None
    heartbeat: Callable[[], None] = lambda: None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def finish(self, run_id: str, attempt: int) -> dict[str, Any]:
        """Write the run manifest, the metrics, the event and the report of an attempt, and return its counts.

        An export is archived if its manifest exists. If the run manifest exists, it is not changed, and the
        other steps are repeated. The heartbeat is sent if the run is complete.
        """
        key = run_manifest_key(run_id, attempt)
        manifest = RunManifest.read(self.storage, key)
        if manifest is None:
            manifest = self._manifest(run_id, attempt).write(self.storage, key)
        summary = {
            "run_id": run_id,
            "attempt": attempt,
            "complete": manifest.complete,
            **asdict(manifest.counts),
        }
        _add_metrics(manifest)
        self.publish(
            {
                **summary,
                "manifest_key": key,
                "missing": [export.export_id for export in manifest.missing][:_MAX_EVENT_IDS],
                "suspect": [export.export_id for export in manifest.suspects][:_MAX_EVENT_IDS],
            }
        )
        logger.info("run finished", extra=summary)
        self.report(run_id, attempt)
        if manifest.complete:
            self.heartbeat()
        return summary

    def record_failure(self, run_id: str, attempt: int, export: PlannedExport, error: CaughtError) -> dict[str, Any]:
        """Record the failure of an export in the archive, the metrics and the log."""
        missing = MissingExport(export_id=export.export_id, error=error.name, reason=_reason(error))
        record = FailureRecord(attempt=attempt, export=missing)
        record.write(self.storage, failure_key(run_id, attempt, export.export_id))
        metrics.add_metric("FailedExports", MetricUnit.Count, 1)
        logger.error("export failed", extra={**record.to_json(), "run_id": run_id})
        return {"export_id": export.export_id, "recorded": True}

    def _manifest(self, run_id: str, attempt: int) -> RunManifest:
        _, plan = Plan.newest(self.storage, run_id, attempt)

        def read(export: PlannedExport) -> ExportManifest | None:
            return ExportManifest.read(self.storage, export.address.manifest_key(run_id))

        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            manifests = list(pool.map(read, plan.exports))
        exports = tuple(ArchivedExport.of(manifest) for manifest in manifests if manifest is not None)
        missing = tuple(
            self._missing(run_id, attempt, export)
            for export, manifest in zip(plan.exports, manifests, strict=True)
            if manifest is None
        )
        return RunManifest(
            run_id=run_id,
            attempt=attempt,
            scheduled_time=plan.scheduled_time,
            finished_at=timestamp(self.now()),
            meibo_version=meibo.__version__,
            complete=not missing,
            counts=RunCounts.of(exports, missing),
            exports=exports,
            missing=missing,
        )

    def _missing(self, run_id: str, attempt: int, export: PlannedExport) -> MissingExport:
        record = FailureRecord.read(self.storage, failure_key(run_id, attempt, export.export_id))
        if record is not None:
            return record.export
        reason = "no reason was recorded; see the execution's history in Step Functions"
        return MissingExport(export_id=export.export_id, error="Unknown", reason=reason)


def _add_metrics(manifest: RunManifest) -> None:
    counts = manifest.counts
    metrics.add_metric("CompleteRuns", MetricUnit.Count, 1 if manifest.complete else 0)
    metrics.add_metric("ArchivedExports", MetricUnit.Count, counts.archived)
    metrics.add_metric("MissingExports", MetricUnit.Count, counts.missing)
    metrics.add_metric("SuspectExports", MetricUnit.Count, counts.suspect)
    metrics.add_metric("ArchivedBytes", MetricUnit.Bytes, counts.bytes)
    metrics.add_metric("ArchivedRows", MetricUnit.Count, counts.rows)


def run_finisher(settings: FinishRunSettings, object_lock: ObjectLock) -> RunFinisher:
    """Return a RunFinisher for the archive bucket in the settings and the account's event bus."""
    # Reports have no Object Lock, because they can be created again, and an operator may add a rule that expires them.
    reports = S3Storage(aws.s3(), settings.bucket)
    return RunFinisher(
        storage=S3Storage(aws.s3(), settings.bucket, object_lock=object_lock),
        publish=partial(put_event, aws.event_bridge()),
        report=lambda run_id, attempt: write_report(
            reports,
            run_id,
            attempt,
            datetime.now(UTC),
            language=settings.report_language,
            timezone=settings.timezone,
        ),
        heartbeat=Heartbeat(settings.heartbeat_secret).send if settings.heartbeat_secret else lambda: None,
    )


def write_report(
    archive: ArchiveStorage,
    run_id: str,
    attempt: int,
    now: datetime,
    *,
    language: ReportLanguage = "en",
    timezone: str = "UTC",
) -> None:
    """Write the report of an attempt. Errors are logged and not raised, because the run is already archived."""
    try:
        page = render(gather(archive, now), language=language, timezone=timezone).encode()
        archive.put_bytes(report_key(run_id, attempt), page, content_type="text/html; charset=utf-8")
    except Exception as error:  # noqa: BLE001  # logged by type only, because the message may contain user data
        logger.warning("cannot write the report", extra={"run_id": run_id, "error": type(error).__name__})
