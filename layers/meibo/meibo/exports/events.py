"""Parse and validate the events of the functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar

from meibo.archive.keys import run_moment
from meibo.documents import Document, InvalidFieldError, Key, PositiveInt
from meibo.errors import EventError, MeiboError
from meibo.exports.plan import PlannedExport
from meibo.formatting import format_count
from meibo.providers.base import ItemCount

_CREATE_EVENTS = (
    '{"scheduled_time": "2026-11-21T18:00:00Z"}, {"run_id": "20261121T180000Z", "repair": true} or'
    ' {"run_id": …, "attempt": …, "export": {…}}'
)

AnyEvent = TypeVar("AnyEvent", bound="Event")


@dataclass(frozen=True)
class Event(Document):
    """Base class of the events."""

    error_type: ClassVar[type[MeiboError]] = EventError


@dataclass(frozen=True)
class TickEvent(Event):
    """A schedule tick: ``{"scheduled_time": "2026-11-21T18:00:00Z"}``."""

    scheduled_time: datetime


@dataclass(frozen=True)
class RepairEvent(Event):
    """A request to archive the missing exports of a run: ``{"run_id": "20261121T180000Z", "repair": true}``."""

    run_id: str
    repair: bool = True

    def __post_init__(self) -> None:
        run_moment(self.run_id)
        if not self.repair:
            raise InvalidFieldError("repair", "expected true; to start a new run, send scheduled_time")


@dataclass(frozen=True)
class AttemptEvent(Event):
    """An attempt of a run: ``{"run_id", "attempt"}``. Base class of the other events of an attempt."""

    run_id: str
    attempt: PositiveInt

    def __post_init__(self) -> None:
        run_moment(self.run_id)


@dataclass(frozen=True, kw_only=True)
class CheckpointProgress(Event):
    """The progress of an export that takes several invocations: its counts, and the number of the last part.

    The position is stored with the part and not in the state of the workflow, which is retained for 90 days, because a
    position may contain user ids, and user ids may be e-mail addresses. ``moved_at`` is the end of the last
    invocation that finished a part, or of the first invocation if no part is finished.
    """

    part: int
    rows: int
    items: ItemCount
    skipped: int
    moved_at: datetime


@dataclass(frozen=True)
class ExportEvent(AttemptEvent):
    """One export of an attempt: ``{"run_id", "attempt", "export"}``, and optionally its ``progress``."""

    export: PlannedExport
    progress: CheckpointProgress | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class CaughtError:
    """The name and the cause of an error that the workflow caught. The cause may be empty."""

    name: Annotated[str, Key("Error")]
    cause: Annotated[str | None, Key("Cause")] = field(default=None, repr=False)


@dataclass(frozen=True)
class FailedExportEvent(ExportEvent):
    """A failed export: the keys of an ExportEvent and ``"error": {"Error", "Cause"}``."""

    error: CaughtError


def parse_create_event(event: Any) -> TickEvent | RepairEvent | ExportEvent:
    """Parse an event of ``create_exports``. Raises EventError with the invalid field or the accepted events."""
    keys = event.keys() if isinstance(event, Mapping) else ()
    if "scheduled_time" in keys:
        return _parse(TickEvent, event, _CREATE_EVENTS)
    if "repair" in keys:
        return _parse(RepairEvent, event, _CREATE_EVENTS)
    if "export" in keys:
        return _parse(ExportEvent, event, _CREATE_EVENTS)
    raise EventError(f"event: expected {_CREATE_EVENTS}")


def parse_export_event(event: Any) -> ExportEvent:
    """Parse an event of one export. Raises EventError with the invalid field."""
    return _parse(ExportEvent, event, '{"run_id": …, "attempt": …, "export": {…}}')


def parse_finish_event(event: Any) -> AttemptEvent | FailedExportEvent:
    """Parse an event of ``finish_run``. Raises EventError with the invalid field."""
    expected = '{"run_id": …, "attempt": …}'
    if isinstance(event, Mapping) and ("export" in event or "error" in event):
        return _parse(FailedExportEvent, event, expected)
    return _parse(AttemptEvent, event, expected)


def _parse(kind: type[AnyEvent], event: Any, expected: str) -> AnyEvent:
    if not isinstance(event, Mapping):
        raise EventError(f"event: expected {expected}")
    known = {field.name for field in fields(kind)}
    if unknown := len(event.keys() - known):
        raise EventError(f"event: expected only {', '.join(sorted(known))}; found {format_count(unknown, 'other key')}")
    return kind.from_json(event, "event")
