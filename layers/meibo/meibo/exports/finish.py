"""Finish a run: what is archived, what is missing, what is suspect. The work of ``finish_run``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import meibo
from meibo import aws, errors
from meibo.archive.keys import failure_key, plan_key, report_key, run_manifest_key
from meibo.archive.manifest import MANIFEST_VERSION, timestamp
from meibo.archive.reader import ArchiveReader, S3Reader
from meibo.archive.storage import ArchiveStore, S3ArchiveStore
from meibo.errors import EventError
from meibo.exports.plan import Plan, PlannedExport
from meibo.observability import MetricUnit, logger, metrics
from meibo.report.page import render
from meibo.report.state import gather
from meibo.settings import BucketSettings, Retention

_PARALLEL_READS = 16

# EventBridge takes 256 KiB an entry; a hundred ids of each kind stay far below it, the manifest has them all.
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
_NAMED_IN_EVENT = 100

# The role of finish_run may send events to this bus only. A rule on it can forward events to any other bus:
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-bus-to-bus.html
EVENT_BUS = "default"
EVENT_SOURCE = "meibo"
EVENT_DETAIL_TYPE = "Meibo Run Finished"


class EventBus(Protocol):
    """Where the end of a run is announced."""

    def announce(self, detail: Mapping[str, Any]) -> None:
        """Put one event on the bus."""
        ...


class EventBridgeBus:
    """The default EventBridge bus of the account and region."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def announce(self, detail: Mapping[str, Any]) -> None:
        """Put one event on the bus, raising where EventBridge did not take it."""
        entry = {
            "Source": EVENT_SOURCE,
            "DetailType": EVENT_DETAIL_TYPE,
            "Detail": json.dumps(detail),
            "EventBusName": EVENT_BUS,
        }
        answer = self._client.put_events(Entries=[entry])
        if answer["FailedEntryCount"]:
            code = answer["Entries"][0].get("ErrorCode", "unknown")
            error = errors.AwsBusyError if aws.is_busy_code(code) else errors.UnexpectedError
            raise error(f"EventBridge rejected the event of the run's end with {code}")


def _reason(error: Mapping[str, Any]) -> tuple[str, str]:
    name = str(error.get("Error", "Unknown"))
    known = getattr(errors, name, None)
    if not (isinstance(known, type) and issubclass(known, errors.MeiboError)):
        # Not our words: they could hold anything, so they are left where they were said.
        return name, "see the function's log and the execution's history in Step Functions"
    cause = str(error.get("Cause", ""))
    # A refusal from the plan comes with the plain message, a function's error within JSON.
    with contextlib.suppress(ValueError, TypeError, KeyError):
        cause = json.loads(cause)["errorMessage"]
    return name, cause or (known.__doc__ or name)


@dataclass(frozen=True, kw_only=True)
class RunFinisher:
    """Ends the attempts of runs."""

    store: ArchiveStore
    bus: EventBus
    report: Callable[[str, int], None] = lambda _run_id, _attempt: None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def finish(self, run_id: str, attempt: int) -> dict[str, Any]:
        """Write the run's manifest, count its metrics and announce its end; return ``complete`` and counts.

        What counts is what is in the bucket: an export is archived when its manifest is there. Called again, the
        manifest of the first call stands and is announced again.
        """
        key = run_manifest_key(run_id, attempt)
        document = self.store.get_json(key)
        if document is None:
            document = self._document(run_id, attempt)
            if not self.store.put_json(key, document):
                document = self.store.get_json(key) or document
        summary = {
            "run_id": run_id,
            "attempt": attempt,
            "complete": document["complete"],
            **document["counts"],
        }
        self._count(document)
        self.bus.announce(
            {
                **summary,
                "manifest_key": key,
                "missing": [one["export_id"] for one in document["missing"]][:_NAMED_IN_EVENT],
                "suspect": [one["export_id"] for one in document["exports"] if one["verdict"] == "suspect"][
                    :_NAMED_IN_EVENT
                ],
            }
        )
        logger.info("run finished", extra=summary)
        self.report(run_id, attempt)
        return summary

    def record_failure(
        self, run_id: str, attempt: int, export: PlannedExport, error: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write down why one export failed; ``error`` is what the workflow caught (``Error`` and ``Cause``)."""
        name, reason = _reason(error)
        document = {"export_id": export.export_id, "attempt": attempt, "error": name, "reason": reason}
        self.store.put_json(failure_key(run_id, attempt, export.export_id), document)
        metrics.add_metric("FailedExports", MetricUnit.Count, 1)
        logger.error("export failed", extra={**document, "run_id": run_id})
        return {"export_id": export.export_id, "recorded": True}

    def _document(self, run_id: str, attempt: int) -> dict[str, Any]:
        plan = self._plan(run_id, attempt)
        exports = plan.exports
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            manifests = list(pool.map(lambda export: self.store.get_json(export.address.manifest_key(run_id)), exports))
        archived = [
            {
                "export_id": export.export_id,
                "manifest_key": export.address.manifest_key(run_id),
                "key": manifest["object"]["key"],
                "bytes": manifest["object"]["bytes"],
                "sha256": manifest["object"]["sha256"],
                "rows": manifest["content"]["rows"],
                "verdict": manifest["sanity"]["verdict"],
            }
            for export, manifest in zip(exports, manifests, strict=True)
            if manifest is not None
        ]
        missing = [
            self._missing(run_id, attempt, export)
            for export, manifest in zip(exports, manifests, strict=True)
            if manifest is None
        ]
        return {
            "manifest_version": MANIFEST_VERSION,
            "run_id": run_id,
            "attempt": attempt,
            "scheduled_time": plan.scheduled_time,
            "finished_at": timestamp(self.now()),
            "meibo_version": meibo.__version__,
            "complete": not missing,
            "counts": {
                "planned": len(exports),
                "archived": len(archived),
                "missing": len(missing),
                "suspect": sum(one["verdict"] == "suspect" for one in archived),
                "bytes": sum(one["bytes"] for one in archived),
                "rows": sum(one["rows"] or 0 for one in archived),
            },
            "exports": archived,
            "missing": missing,
        }

    def _plan(self, run_id: str, attempt: int) -> Plan:
        """Return the newest plan that the attempt may have: a repair writes one of its own."""
        for number in range(attempt, 0, -1):
            document = self.store.get_json(plan_key(run_id, number))
            if document is not None:
                return Plan.from_json(document)
        raise EventError(f"there is no plan of a run {run_id}")

    def _missing(self, run_id: str, attempt: int, export: PlannedExport) -> dict[str, Any]:
        failure = self.store.get_json(failure_key(run_id, attempt, export.export_id))
        if failure:
            return {"export_id": export.export_id, "error": failure["error"], "reason": failure["reason"]}
        return {
            "export_id": export.export_id,
            "error": "Unknown",
            "reason": "the workflow ended before it could say why; see the execution's history in Step Functions",
        }

    def _count(self, document: Mapping[str, Any]) -> None:
        counts = document["counts"]
        metrics.add_metric("CompleteRuns", MetricUnit.Count, 1 if document["complete"] else 0)
        metrics.add_metric("ArchivedExports", MetricUnit.Count, counts["archived"])
        metrics.add_metric("MissingExports", MetricUnit.Count, counts["missing"])
        metrics.add_metric("SuspectExports", MetricUnit.Count, counts["suspect"])
        metrics.add_metric("ArchivedBytes", MetricUnit.Bytes, counts["bytes"])
        metrics.add_metric("ArchivedRows", MetricUnit.Count, counts["rows"])


def run_finisher(settings: BucketSettings, retention: Retention | None) -> RunFinisher:
    """Return the finisher that the settings describe, on the real bucket and event bus."""
    store = S3ArchiveStore(aws.s3(), settings.bucket, retention=retention)
    # No retention for pages: they can be written again at any time, and a lifecycle rule may expire them.
    pages, reader = S3ArchiveStore(aws.s3(), settings.bucket), S3Reader(aws.s3(), settings.bucket)
    return RunFinisher(
        store=store,
        bus=EventBridgeBus(aws.event_bridge()),
        report=lambda run_id, attempt: write_report(reader, pages, run_id, attempt, datetime.now(UTC)),
    )


def write_report(archive: ArchiveReader, store: ArchiveStore, run_id: str, attempt: int, now: datetime) -> None:
    """Write the page that an attempt of a run ends with.

    Never raises: the run is archived and announced already, and a page that could not be written must not make it
    look failed. The log says so.
    """
    try:
        page = render(gather(archive, now)).encode()
        store.put_bytes(report_key(run_id, attempt), page, content_type="text/html; charset=utf-8")
    except Exception as error:  # noqa: BLE001  # see above
        # The class only: what an error says of itself is not known to be quiet about people.
        logger.warning("the report could not be written", extra={"run_id": run_id, "error": type(error).__name__})
