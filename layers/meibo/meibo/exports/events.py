"""The events that the functions accept, checked at the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
class Tick:
    """A schedule tick: ``{"scheduled_time": "2026-11-21T18:00:00Z"}``."""

    scheduled_time: datetime


@dataclass(frozen=True)
class Repair:
    """A wish to fetch what a run lacks: ``{"run_id": "20261121T180000Z", "repair": true}``."""

    run_id: str


@dataclass(frozen=True)
class OneExport:
    """One export of an attempt, from the workflow: ``{"run_id", "attempt", "export"}``."""

    run_id: str
    attempt: int
    export: PlannedExport


@dataclass(frozen=True)
class FailedExport(OneExport):
    """One export and the error that the workflow caught: also ``"error": {"Error", "Cause"}``."""

    error: Mapping[str, Any]


@dataclass(frozen=True)
class EndOfRun:
    """The end of an attempt's workflow: ``{"run_id", "attempt"}``."""

    run_id: str
    attempt: int


def create_event(event: Any) -> Tick | Repair | OneExport:
    """Read an event of ``create_exports``, raising EventError that says what is accepted."""
    fields = _object(event, _CREATE_SHAPES)
    if "scheduled_time" in fields:
        _only(fields, {"scheduled_time"})
        return Tick(_moment(fields["scheduled_time"]))
    if "repair" in fields:
        _only(fields, {"run_id", "repair"})
        if fields["repair"] is not True:
            raise EventError("repair must be true; to begin a new run give scheduled_time")
        return Repair(_run_id(fields))
    if "export" in fields:
        return export_event(fields)
    raise EventError(f"the event must be {_CREATE_SHAPES}")


def export_event(event: Any) -> OneExport:
    """Read an event about one export, raising EventError that names what is wrong."""
    fields = _object(event, '{"run_id": …, "attempt": …, "export": {…}}')
    _only(fields, {"run_id", "attempt", "export"})
    return OneExport(_run_id(fields), _attempt(fields), PlannedExport.from_json(fields.get("export")))


def finish_event(event: Any) -> EndOfRun | FailedExport:
    """Read an event of ``finish_run``, raising EventError that names what is wrong."""
    fields = _object(event, '{"run_id": …, "attempt": …}')
    _only(fields, {"run_id", "attempt", "export", "error"})
    run_id, attempt = _run_id(fields), _attempt(fields)
    if "export" not in fields and "error" not in fields:
        return EndOfRun(run_id, attempt)
    error = fields.get("error")
    if not isinstance(error, Mapping) or not isinstance(error.get("Error"), str):
        raise EventError("error must be what the workflow caught, with Error and Cause")
    return FailedExport(run_id, attempt, PlannedExport.from_json(fields.get("export")), error)


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


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise EventError("scheduled_time must be a time such as 2026-11-21T18:00:00Z") from None
    if moment.tzinfo is None:
        raise EventError("scheduled_time must say its time zone, for example 2026-11-21T18:00:00Z")
    return moment.astimezone(UTC)
