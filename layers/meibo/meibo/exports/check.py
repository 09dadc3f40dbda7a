"""Check the job of an export. The Lambda function ``check_export`` runs this code and never returns the location."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from meibo.errors import EventError
from meibo.exports.plan import PlannedExport
from meibo.observability import logger
from meibo.providers import provider
from meibo.providers.base import ProviderContext

# A job is checked again after a quarter of its age, so that slow jobs cause few requests.
MIN_JOB_WAIT_SECONDS = 1
MAX_JOB_WAIT_SECONDS = 120


def check(export: PlannedExport, context: ProviderContext, *, now: datetime | None = None) -> dict[str, Any]:
    """Return ``{"status": "ready" | "pending" | "gone", "wait_seconds": n}`` for the export's job.

    ``wait_seconds`` is the time until the next check. A job that is still pending after its deadline is reported
    as ``gone``, and the workflow replaces it. Raises EventError if the export has no job.
    """
    if export.job is None:
        raise EventError("export.job: expected a job, found nothing; create the job first")
    age = ((now or datetime.now(UTC)) - export.job.created_at).total_seconds()
    state = provider(export.provider).check_job(export, export.job.id, context)
    wait = max(MIN_JOB_WAIT_SECONDS, min(MAX_JOB_WAIT_SECONDS, int(age / 4)))
    status = {"completed": "ready", "gone": "gone"}.get(state.status, "pending")
    reason = state.reason
    if status == "pending" and age > export.job_deadline_seconds:
        status, reason = "gone", f"not finished {int(age)} s after its creation"
    if status == "gone":
        logger.warning("job gone", extra={"export_id": export.export_id, "job_id": export.job.id, "reason": reason})
    return {"status": status, "wait_seconds": wait}
