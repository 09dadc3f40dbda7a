"""Parse the events of the functions, and name the error of an invalid event."""

from __future__ import annotations

import re
from typing import Any

import pytest

from meibo.errors import EventError
from meibo.exports.events import (
    AttemptEvent,
    CaughtError,
    CheckpointProgress,
    ExportEvent,
    FailedExportEvent,
    RepairEvent,
    TickEvent,
    parse_create_event,
    parse_export_event,
    parse_finish_event,
)
from meibo.exports.plan import PlannedExport
from tests.unit.exports.conftest import EXPORT, RUN, TICK

EVENT = {"run_id": RUN, "attempt": 1, "export": EXPORT.to_json()}


def test_create_event_is_a_tick_a_repair_or_an_export() -> None:
    assert parse_create_event({"scheduled_time": "2026-11-22T03:00:00+09:00"}) == TickEvent(TICK)
    assert parse_create_event({"run_id": RUN, "repair": True}) == RepairEvent(RUN)
    assert parse_create_event(EVENT) == ExportEvent(RUN, 1, EXPORT)


def test_finish_event_is_the_end_of_a_run_or_a_failed_export() -> None:
    error = {"Error": "BadFileError", "Cause": "…"}

    assert parse_finish_event({"run_id": RUN, "attempt": 2}) == AttemptEvent(RUN, 2)
    assert parse_finish_event({**EVENT, "error": error}) == FailedExportEvent(
        RUN, 1, EXPORT, CaughtError("BadFileError", "…")
    )


def test_progress_of_an_export_is_parsed() -> None:
    progress = CheckpointProgress(part=2, rows=700, items=90, skipped=1, moved_at=TICK)

    assert parse_export_event({**EVENT, "progress": progress.to_json()}) == ExportEvent(
        RUN, 1, EXPORT, progress=progress
    )
    assert parse_export_event({**EVENT, "progress": None}) == ExportEvent(RUN, 1, EXPORT)


@pytest.mark.parametrize(
    ("progress", "message"),
    [
        (7, "event.progress: expected an object, found a number"),
        ({}, "event.progress.part: expected an integer ≥ 0, found nothing"),
        (
            {"part": -1, "rows": 0, "organizations": 0, "skipped": 0, "moved_at": "x"},
            "event.progress.part: expected an integer ≥ 0, found a number",
        ),
        (
            {"part": 1, "rows": True, "organizations": 0, "skipped": 0, "moved_at": "x"},
            "event.progress.rows: expected an integer ≥ 0, found a boolean",
        ),
        (
            {"part": 1, "rows": 0, "organizations": 0, "skipped": 0},
            "event.progress.moved_at: expected a time such as 2026-11-21T18:00:00Z, found nothing",
        ),
        (
            {"part": 1, "rows": 0, "organizations": 0, "skipped": 0, "moved_at": "2026-11-21T18:00:00"},
            "event.progress.moved_at: expected a time with a time zone such as 2026-11-21T18:00:00Z, found a string",
        ),
    ],
)
def test_error_of_an_invalid_progress_names_the_field(progress: Any, message: str) -> None:
    with pytest.raises(EventError, match=re.escape(message)):
        parse_export_event({**EVENT, "progress": progress})


def test_export_is_unchanged_by_json() -> None:
    assert PlannedExport.from_json(EXPORT.to_json(), "export") == EXPORT


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (None, 'event: expected {"scheduled_time": '),
        ([], 'event: expected {"scheduled_time": '),
        ({}, 'event: expected {"scheduled_time": '),
        (
            {"scheduled_time": "yesterday"},
            "event.scheduled_time: expected a time such as 2026-11-21T18:00:00Z, found a string",
        ),
        ({"scheduled_time": 5}, "event.scheduled_time: expected a time such as 2026-11-21T18:00:00Z, found a number"),
        ({"scheduled_time": "2026-11-21T18:00:00"}, "event.scheduled_time: expected a time with a time zone such as"),
        (
            {"scheduled_time": "2026-11-21T18:00:00Z", "dry": 1},
            "event: expected only scheduled_time; found 1 other key",
        ),
        ({"run_id": RUN, "repair": "yes"}, "event.repair: expected true or false, found a string"),
        ({"run_id": RUN, "repair": False}, "event.repair: expected true; to start a new run, send scheduled_time"),
        ({"run_id": "today", "repair": True}, "run_id: expected a UTC time such as 20261121T180000Z"),
        ({"repair": True}, "event.run_id: expected a string that is not empty, found nothing"),
    ],
)
def test_error_of_an_invalid_create_event_names_the_field(event: Any, message: str) -> None:
    with pytest.raises(EventError, match=re.escape(message)):
        parse_create_event(event)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attempt": 0}, "event.attempt: expected an integer ≥ 1, found a number"),
        ({"attempt": True}, "event.attempt: expected an integer ≥ 1, found a boolean"),
        ({"export": None}, "export: expected an object, found nothing"),
        ({"export": {**EXPORT.to_json(), "provider": "okta"}}, "provider: expected 'auth0' or 'cybozu', found 'okta'"),
        ({"export": {**EXPORT.to_json(), "format": "xml"}}, 'export.format: expected "ndjson" or "csv"'),
        ({"export": {**EXPORT.to_json(), "secret": ""}}, "export.secret: expected a string that is not empty"),
        ({"export": {**EXPORT.to_json(), "request": None}}, "export.request: expected an object, found nothing"),
        (
            {"export": {**EXPORT.to_json(), "job": {"id": "job_1"}}},
            "export.job.created_at: expected a time such as 2026-11-21T18:00:00Z, found nothing",
        ),
        ({"export": {**EXPORT.to_json(), "refused": "no"}}, "export.refused: expected an object, found a string"),
    ],
)
def test_error_of_an_invalid_export_event_names_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EventError, match=re.escape(message)):
        parse_export_event({**EVENT, **change})


def test_failure_without_an_error_name_is_rejected() -> None:
    with pytest.raises(EventError, match=r"event\.error\.Error: expected a string that is not empty, found nothing"):
        parse_finish_event({**EVENT, "error": {}})
