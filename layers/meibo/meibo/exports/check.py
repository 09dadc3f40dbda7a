"""Ask how a job is doing: the work of ``check_export``. It returns a status and never the location."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

from meibo.errors import EventError
from meibo.exports.plan import PlannedExport
from meibo.observability import logger

# A job's next poll comes after a quarter of its age: quick for small tenants, and few calls for slow jobs.
FIRST_WAIT_SECONDS = 1
MAX_WAIT_SECONDS = 120


class JobState(Protocol):
    """What the provider says of a job."""

    @property
    def status(self) -> str:
        """``pending``, ``completed`` or ``gone``."""
        ...

    @property
    def reason(self) -> str | None:
        """Why the job is gone."""
        ...


class JobReader(Protocol):
    """Asks the provider for a job."""

    def __call__(self, export: PlannedExport, job_id: str) -> JobState:
        """Return the job's state."""
        ...


def check(
    export: PlannedExport, read_job: JobReader, *, deadline_seconds: int, now: datetime | None = None
) -> dict[str, Any]:
    """Return ``{"status": "ready" | "pending" | "gone", "wait_seconds": n}`` of the export's job.

    A job that is older than the deadline is gone as well: it is stuck, and the provider deletes it 24 h after its
    creation. ``wait_seconds`` says when to ask again.
    """
    if export.job is None:
        raise EventError("export.job is missing: there is no job to check; create it first")
    age = ((now or datetime.now(UTC)) - _moment(export.job.created_at)).total_seconds()
    state = read_job(export, export.job.id)
    wait = max(FIRST_WAIT_SECONDS, min(MAX_WAIT_SECONDS, int(age / 4)))
    status = {"completed": "ready", "gone": "gone"}.get(state.status, "pending")
    reason = state.reason
    if status == "pending" and age > deadline_seconds:
        status, reason = "gone", f"still not done {int(age)} s after its creation"
    if status == "gone":
        logger.warning("job gone", extra={"export_id": export.export_id, "job_id": export.job.id, "reason": reason})
    return {"status": status, "wait_seconds": wait}


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise EventError("export.job.created_at must be a time such as 2026-11-21T18:00:00+00:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
