"""The events that the functions accept, parsed and validated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from meibo.archive.keys import run_moment
from meibo.documents import Fields
from meibo.errors import EventError
from meibo.exports.plan import PlannedExport

_CREATE_EVENTS = (
    '{"scheduled_time": "2026-11-21T18:00:00Z"}, {"run_id": "20261121T180000Z", "repair": true} or'
    ' {"run_id": …, "attempt": …, "export": {…}}'
)


@dataclass(frozen=True)
class TickEvent:
    """A schedule tick: ``{"scheduled_time": "2026-11-21T18:00:00Z"}``."""

    scheduled_time: datetime


@dataclass(frozen=True)
class RepairEvent:
    """A request to archive the missing exports of a run: ``{"run_id": "20261121T180000Z", "repair": true}``."""

    run_id: str


@dataclass(frozen=True, kw_only=True)
class CheckpointProgress:
    """The progress of an export that takes several invocations: counts, and the number of its last part.

    The cursor is stored with the part and not in the state of the workflow, which is retained for 90 days: cursors of
    members contain user ids, which are e-mail addresses in some connections. ``moved_at`` is the time of the last rows.
    """

    part: int
    rows: int
    organizations: int
    skipped: int
    moved_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which the state of the workflow contains."""
        return {**asdict(self), "moved_at": self.moved_at.isoformat()}

    @classmethod
    def from_json(cls, fields: Fields) -> CheckpointProgress:
        """Read the JSON form."""
        counts = {name: fields.integer(name) for name in ("part", "rows", "organizations", "skipped")}
        return cls(**counts, moved_at=fields.moment("moved_at"))


@dataclass(frozen=True)
class ExportEvent:
    """One export of an attempt, from the workflow: ``{"run_id", "attempt", "export"}``, and its ``progress`` if any."""

    run_id: str
    attempt: int
    export: PlannedExport
    progress: CheckpointProgress | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class CaughtError:
    """An error that the workflow caught: its name, and its cause as Step Functions passes it, which may be empty."""

    name: str
    cause: str = field(default="", repr=False)

    @classmethod
    def from_json(cls, fields: Fields) -> CaughtError:
        """Read ``{"Error", "Cause"}``."""
        return cls(fields.string("Error"), fields.optional_string("Cause") or "")


@dataclass(frozen=True)
class FailedExportEvent(ExportEvent):
    """One export and the error that the workflow caught: also ``"error": {"Error", "Cause"}``."""

    error: CaughtError


@dataclass(frozen=True)
class RunEndEvent:
    """The end of an attempt's workflow: ``{"run_id", "attempt"}``."""

    run_id: str
    attempt: int


def parse_create_event(event: Any) -> TickEvent | RepairEvent | ExportEvent:
    """Return an event of ``create_exports``. Raises EventError, which names the accepted events or the field."""
    fields = _fields(event, _CREATE_EVENTS)
    if "scheduled_time" in fields.document:
        fields.check_keys({"scheduled_time"})
        return TickEvent(fields.moment("scheduled_time"))
    if "repair" in fields.document:
        fields.check_keys({"run_id", "repair"})
        if not fields.boolean("repair"):
            raise EventError("event.repair: expected true; to start a new run, send scheduled_time")
        return RepairEvent(_run_id(fields))
    if "export" in fields.document:
        return parse_export_event(event)
    raise EventError(f"event: expected {_CREATE_EVENTS}")


def parse_export_event(event: Any) -> ExportEvent:
    """Return an event about one export. Raises EventError, which names the field."""
    fields = _fields(event, '{"run_id": …, "attempt": …, "export": {…}}')
    fields.check_keys({"run_id", "attempt", "export", "progress"})
    progress = fields.optional_object("progress")
    return ExportEvent(
        _run_id(fields),
        fields.integer("attempt", minimum=1),
        PlannedExport.from_json(fields.document.get("export")),
        progress=CheckpointProgress.from_json(progress) if progress else None,
    )


def parse_finish_event(event: Any) -> RunEndEvent | FailedExportEvent:
    """Return an event of ``finish_run``. Raises EventError, which names the field."""
    fields = _fields(event, '{"run_id": …, "attempt": …}')
    fields.check_keys({"run_id", "attempt", "export", "error"})
    run_id, attempt = _run_id(fields), fields.integer("attempt", minimum=1)
    if not {"export", "error"} & set(fields.document):
        return RunEndEvent(run_id, attempt)
    error = CaughtError.from_json(fields.object("error"))
    return FailedExportEvent(run_id, attempt, PlannedExport.from_json(fields.document.get("export")), error)


def _fields(event: Any, expected: str) -> Fields:
    if not isinstance(event, Mapping):
        raise EventError(f"event: expected {expected}")
    return Fields(event, "event", EventError)


def _run_id(fields: Fields) -> str:
    run_id = fields.string("run_id")
    run_moment(run_id)
    return run_id
