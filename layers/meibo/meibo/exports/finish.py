"""Finish a run: write its manifest, metrics, report and event (function ``finish_run``)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

import meibo
from meibo import aws, errors
from meibo.archive.keys import failure_key, report_key, run_manifest_key
from meibo.archive.manifest import ArchivedExport, ExportManifest, MissingExport, RunCounts, RunManifest, timestamp
from meibo.archive.storage import ArchiveStorage, S3Storage
from meibo.documents import FLATTEN, Document, PositiveInt
from meibo.errors import EventError
from meibo.exports.events import CaughtError
from meibo.exports.heartbeat import Heartbeat
from meibo.exports.plan import Plan, PlannedExport
from meibo.observability import MetricUnit, logger, metrics
from meibo.report.page import render
from meibo.report.state import gather
from meibo.settings import FinishRunSettings, ReportLanguage, Retention

_PARALLEL_READS = 16

# EventBridge accepts 256 KiB per entry. The event contains the first 100 ids of each kind, the manifest all ids.
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
_MAX_EVENT_IDS = 100

# The role of finish_run may send events to this bus only. A rule on it can forward events to any other bus:
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-bus-to-bus.html
EVENT_BUS = "default"
EVENT_SOURCE = "meibo"
EVENT_DETAIL_TYPE = "Meibo Run Finished"


class EventBus(Protocol):
    """The event bus that receives an event at the end of each attempt of a run."""

    def publish(self, detail: Mapping[str, Any]) -> None:
        """Put one event on the bus."""
        ...


class EventBridgeBus:
    """The default EventBridge bus of the account and region."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def publish(self, detail: Mapping[str, Any]) -> None:
        """Put one event on the bus. Raises AwsBusyError or UnexpectedError if EventBridge rejects it."""
        entry = {
            "Source": EVENT_SOURCE,
            "DetailType": EVENT_DETAIL_TYPE,
            "Detail": json.dumps(detail),
            "EventBusName": EVENT_BUS,
        }
        response = self._client.put_events(Entries=[entry])
        if response["FailedEntryCount"]:
            code = response["Entries"][0].get("ErrorCode", "unknown")
            error = errors.AwsBusyError if aws.is_busy_code(code) else errors.UnexpectedError
            raise error(f"EventBridge rejected the event of the finished run with {code}; retried")


@dataclass(frozen=True, kw_only=True)
class FailureRecord(Document):
    """The record of why one export failed in one attempt."""

    export: Annotated[MissingExport, FLATTEN]
    attempt: PositiveInt


def _reason(error: CaughtError) -> str:
    known = getattr(errors, error.name, None)
    if not (isinstance(known, type) and issubclass(known, errors.MeiboError)):
        # Not a Meibo error: its message may contain sensitive data, so it is not copied.
        return "see the function's log and the execution's history in Step Functions"
    cause = error.cause
    # The cause is the message of a refused export, or the JSON error of a function.
    with contextlib.suppress(ValueError, TypeError, KeyError):
        cause = json.loads(cause or "")["errorMessage"]
    return cause or known.__doc__ or error.name


@dataclass(frozen=True, kw_only=True)
class RunFinisher:
    """Finishes the attempts of runs."""

    storage: ArchiveStorage
    bus: EventBus
    report: Callable[[str, int], None] = lambda _run_id, _attempt: None
    heartbeat: Callable[[], None] = lambda: None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def finish(self, run_id: str, attempt: int) -> dict[str, Any]:
        """Write the manifest of an attempt, its metrics, event and report; return ``complete`` and the counts.

        An export is archived if its manifest is in the bucket. If the run manifest exists, it is not changed, and its
        event is published again. The heartbeat is sent if the run is complete.
        """
        key = run_manifest_key(run_id, attempt)
        manifest = RunManifest.read(self.storage, key)
        if manifest is None:
            manifest = self._manifest(run_id, attempt)
            if not self.storage.put_json(key, manifest.to_json()):
                manifest = RunManifest.read(self.storage, key) or manifest
        summary = {
            "run_id": run_id,
            "attempt": attempt,
            "complete": manifest.complete,
            **asdict(manifest.counts),
        }
        _add_metrics(manifest)
        self.bus.publish(
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
        """Record the failure of one export."""
        missing = MissingExport(export_id=export.export_id, error=error.name, reason=_reason(error))
        document = FailureRecord(attempt=attempt, export=missing).to_json()
        self.storage.put_json(failure_key(run_id, attempt, export.export_id), document)
        metrics.add_metric("FailedExports", MetricUnit.Count, 1)
        logger.error("export failed", extra={**document, "run_id": run_id})
        return {"export_id": export.export_id, "recorded": True}

    def _manifest(self, run_id: str, attempt: int) -> RunManifest:
        plan = self._plan(run_id, attempt)

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

    def _plan(self, run_id: str, attempt: int) -> Plan:
        """Return the newest plan up to this attempt; a repair may have written its own plan."""
        for number in range(attempt, 0, -1):
            plan = Plan.read(self.storage, run_id, number)
            if plan is not None:
                return plan
        raise EventError(
            f"run {run_id}: expected a run with a plan, found none; check the id (`meibo ls` lists finished runs)"
        )

    def _missing(self, run_id: str, attempt: int, export: PlannedExport) -> MissingExport:
        key = failure_key(run_id, attempt, export.export_id)
        document = self.storage.read_json(key)
        if document is not None:
            return FailureRecord.from_json(document, key).export
        reason = "the workflow ended before it recorded a reason; see the execution's history in Step Functions"
        return MissingExport(export_id=export.export_id, error="Unknown", reason=reason)


def _add_metrics(manifest: RunManifest) -> None:
    counts = manifest.counts
    metrics.add_metric("CompleteRuns", MetricUnit.Count, 1 if manifest.complete else 0)
    metrics.add_metric("ArchivedExports", MetricUnit.Count, counts.archived)
    metrics.add_metric("MissingExports", MetricUnit.Count, counts.missing)
    metrics.add_metric("SuspectExports", MetricUnit.Count, counts.suspect)
    metrics.add_metric("ArchivedBytes", MetricUnit.Bytes, counts.bytes)
    metrics.add_metric("ArchivedRows", MetricUnit.Count, counts.rows)


def run_finisher(settings: FinishRunSettings, retention: Retention | None) -> RunFinisher:
    """Return a RunFinisher for the archive bucket in the settings and the account's event bus."""
    # Reports have no retention: they can be created again at any time, and a lifecycle rule may delete them.
    reports = S3Storage(aws.s3(), settings.bucket)
    return RunFinisher(
        storage=S3Storage(aws.s3(), settings.bucket, retention=retention),
        bus=EventBridgeBus(aws.event_bridge()),
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
    """Write the report at the end of an attempt.

    Does not raise: the run is archived, and a failed report must not fail it. The failure is logged.
    """
    try:
        page = render(gather(archive, now), language=language, timezone=timezone).encode()
        archive.put_bytes(report_key(run_id, attempt), page, content_type="text/html; charset=utf-8")
    except Exception as error:  # noqa: BLE001  # see above
        # Only the class is logged, because the message of an unknown error may contain user data.
        logger.warning("cannot write the report", extra={"run_id": run_id, "error": type(error).__name__})
