"""The events that the functions accept, checked at the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from meibo.archive.keys import run_moment
from meibo.errors import EventError
from meibo.exports.plan import PlannedExport

_CREATE_SHAPES = (
    '{"scheduled_time": "2026-11-21T18:00:00Z"}, {"run_id": "20261121T180000Z", "repair": true} or'
    ' {"run_id": …, "attempt": …, "export": {…}}'
)


@dataclass(frozen=True)
class TickEvent:
    """A schedule tick: ``{"scheduled_time": "2026-11-21T18:00:00Z"}``."""

    scheduled_time: datetime


@dataclass(frozen=True)
class RepairEvent:
    """A wish to fetch what a run lacks: ``{"run_id": "20261121T180000Z", "repair": true}``."""

    run_id: str


@dataclass(frozen=True)
class CheckpointProgress:
    """How far an export that outlasts an invocation has come: counts, and the last of its parts.

    The part leads to the cursor: it is kept with the part, because cursors of members hold user ids, which are
    e-mail addresses at some connections, and the workflow's state is kept for 90 days. ``moved_at`` is when the
    provider last gave something.
    """

    part: int
    rows: int
    organizations: int
    skipped: int
    moved_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the form that travels through the workflow."""
        return {**asdict(self), "moved_at": self.moved_at.isoformat()}


@dataclass(frozen=True)
class ExportEvent:
    """One export of an attempt, from the workflow: ``{"run_id", "attempt", "export"}``, and its ``progress`` if any."""

    run_id: str
    attempt: int
    export: PlannedExport
    progress: CheckpointProgress | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class FailedExportEvent(ExportEvent):
    """One export and the error that the workflow caught: also ``"error": {"Error", "Cause"}``."""

    error: Mapping[str, Any]


@dataclass(frozen=True)
class RunEndEvent:
    """The end of an attempt's workflow: ``{"run_id", "attempt"}``."""

    run_id: str
    attempt: int


def parse_create_event(event: Any) -> TickEvent | RepairEvent | ExportEvent:
    """Read an event of ``create_exports``, raising EventError that says what is accepted."""
    fields = _object(event, _CREATE_SHAPES)
    if "scheduled_time" in fields:
        _only(fields, {"scheduled_time"})
        return TickEvent(_moment(fields["scheduled_time"]))
    if "repair" in fields:
        _only(fields, {"run_id", "repair"})
        if fields["repair"] is not True:
            raise EventError("repair must be true; to begin a new run give scheduled_time")
        return RepairEvent(_run_id(fields))
    if "export" in fields:
        return parse_export_event(fields)
    raise EventError(f"the event must be {_CREATE_SHAPES}")


def parse_export_event(event: Any) -> ExportEvent:
    """Read an event about one export, raising EventError that names what is wrong."""
    fields = _object(event, '{"run_id": …, "attempt": …, "export": {…}}')
    _only(fields, {"run_id", "attempt", "export", "progress"})
    export = PlannedExport.from_json(fields.get("export"))
    return ExportEvent(_run_id(fields), _attempt(fields), export, progress=_progress(fields.get("progress")))


def parse_finish_event(event: Any) -> RunEndEvent | FailedExportEvent:
    """Read an event of ``finish_run``, raising EventError that names what is wrong."""
    fields = _object(event, '{"run_id": …, "attempt": …}')
    _only(fields, {"run_id", "attempt", "export", "error"})
    run_id, attempt = _run_id(fields), _attempt(fields)
    if "export" not in fields and "error" not in fields:
        return RunEndEvent(run_id, attempt)
    error = fields.get("error")
    if not isinstance(error, Mapping) or not isinstance(error.get("Error"), str):
        raise EventError("error must be what the workflow caught, with Error and Cause")
    return FailedExportEvent(run_id, attempt, PlannedExport.from_json(fields.get("export")), error)


def _object(event: Any, shape: str) -> Mapping[str, Any]:
    if not isinstance(event, Mapping):
        raise EventError(f"the event must be {shape}")
    return event


def _only(fields: Mapping[str, Any], known: set[str]) -> None:
    unknown = len(set(fields) - known)
    if unknown:
        raise EventError(f"the event has {unknown} unknown key(s); it may have {', '.join(sorted(known))}")


def _run_id(fields: Mapping[str, Any]) -> str:
    run_id = fields.get("run_id")
    if not isinstance(run_id, str):
        raise EventError("run_id must be a UTC time of the form 20261121T180000Z")
    run_moment(run_id)
    return run_id


def _attempt(fields: Mapping[str, Any]) -> int:
    attempt = fields.get("attempt")
    if not isinstance(attempt, int) or isinstance(attempt, bool) or attempt < 1:
        raise EventError("attempt must be a whole number from 1")
    return attempt


def _progress(value: Any) -> CheckpointProgress | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise EventError("progress must be what the last invocation returned, or null")
    counts = {name: _count(value, name) for name in ("part", "rows", "organizations", "skipped")}
    return CheckpointProgress(**counts, moved_at=_moment(value.get("moved_at"), "progress.moved_at"))


def _count(progress: Mapping[str, Any], name: str) -> int:
    count = progress.get(name)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise EventError(f"progress.{name} must be a whole number from 0")
    return count


def _moment(value: Any, name: str = "scheduled_time") -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise EventError(f"{name} must be a time such as 2026-11-21T18:00:00Z") from None
    if moment.tzinfo is None:
        raise EventError(f"{name} must say its time zone, for example 2026-11-21T18:00:00Z")
    return moment.astimezone(UTC)
