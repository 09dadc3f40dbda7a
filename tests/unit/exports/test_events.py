from __future__ import annotations

from typing import Any

import pytest

from meibo.errors import EventError
from meibo.exports.events import (
    CheckpointProgress,
    ExportEvent,
    FailedExportEvent,
    RepairEvent,
    RunEndEvent,
    TickEvent,
    parse_create_event,
    parse_export_event,
    parse_finish_event,
)
from meibo.exports.plan import PlannedExport
from tests.unit.exports.conftest import RUN, TICK
from tests.unit.exports.test_check import EXPORT

ONE = {"run_id": RUN, "attempt": 1, "export": EXPORT.to_json()}


def test_a_tick_a_repair_and_one_export_are_told_apart() -> None:
    assert parse_create_event({"scheduled_time": "2026-11-22T03:00:00+09:00"}) == TickEvent(TICK)
    assert parse_create_event({"run_id": RUN, "repair": True}) == RepairEvent(RUN)
    assert parse_create_event(ONE) == ExportEvent(RUN, 1, EXPORT)


def test_the_end_of_a_run_and_a_failed_export_are_told_apart() -> None:
    error = {"Error": "BadFileError", "Cause": "…"}

    assert parse_finish_event({"run_id": RUN, "attempt": 2}) == RunEndEvent(RUN, 2)
    assert parse_finish_event({**ONE, "error": error}) == FailedExportEvent(RUN, 1, EXPORT, error)


def test_progress_travels_with_an_export() -> None:
    progress = CheckpointProgress(part=2, rows=700, organizations=90, skipped=1, moved_at=TICK)

    assert parse_export_event({**ONE, "progress": progress.to_json()}) == ExportEvent(RUN, 1, EXPORT, progress=progress)
    assert parse_export_event({**ONE, "progress": None}) == ExportEvent(RUN, 1, EXPORT)


@pytest.mark.parametrize(
    ("progress", "message"),
    [
        (7, "progress must be"),
        ({}, "progress.part must be"),
        ({"part": -1, "rows": 0, "organizations": 0, "skipped": 0, "moved_at": "x"}, "progress.part must be"),
        ({"part": 1, "rows": True, "organizations": 0, "skipped": 0, "moved_at": "x"}, "progress.rows must be"),
        ({"part": 1, "rows": 0, "organizations": 0, "skipped": 0}, "progress.moved_at must be a time"),
        (
            {"part": 1, "rows": 0, "organizations": 0, "skipped": 0, "moved_at": "2026-11-21T18:00:00"},
            "progress.moved_at must say its time zone",
        ),
    ],
)
def test_a_wrong_progress_is_named(progress: Any, message: str) -> None:
    with pytest.raises(EventError, match=message):
        parse_export_event({**ONE, "progress": progress})


def test_an_export_travels_through_json_unchanged() -> None:
    assert PlannedExport.from_json(EXPORT.to_json()) == EXPORT


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (None, "the event must be"),
        ([], "the event must be"),
        ({}, "the event must be"),
        ({"scheduled_time": "yesterday"}, "scheduled_time must be a time such as"),
        ({"scheduled_time": 5}, "scheduled_time must be a time such as"),
        ({"scheduled_time": "2026-11-21T18:00:00"}, "must say its time zone"),
        ({"scheduled_time": "2026-11-21T18:00:00Z", "dry": 1}, "unknown key"),
        ({"run_id": RUN, "repair": "yes"}, "repair must be true"),
        ({"run_id": "today", "repair": True}, "run_id must be a UTC time"),
        ({"repair": True}, "run_id must be a UTC time"),
    ],
)
def test_a_wrong_event_of_create_exports_says_what_is_accepted(event: Any, message: str) -> None:
    with pytest.raises(EventError, match=message):
        parse_create_event(event)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attempt": 0}, "attempt must be a whole number from 1"),
        ({"attempt": True}, "attempt must be a whole number from 1"),
        ({"export": None}, "export: expected an object as in the plan"),
        ({"export": {**EXPORT.to_json(), "provider": "okta"}}, "provider: expected 'auth0' or 'cybozu', got 'okta'"),
        ({"export": {**EXPORT.to_json(), "format": "xml"}}, "export.format: expected 'ndjson' or 'csv'"),
        ({"export": {**EXPORT.to_json(), "secret": ""}}, "export.secret: expected a string that is not empty"),
        ({"export": {**EXPORT.to_json(), "request": None}}, "export.request: expected an object"),
        ({"export": {**EXPORT.to_json(), "job": {"id": "job_1"}}}, "export.job: expected an object with id"),
        ({"export": {**EXPORT.to_json(), "refused": "no"}}, "export.refused: expected an object with error"),
    ],
)
def test_a_wrong_event_about_an_export_names_the_fault(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EventError, match=message):
        parse_export_event({**ONE, **change})


def test_an_error_without_its_name_is_refused() -> None:
    with pytest.raises(EventError, match="error must be what the workflow caught"):
        parse_finish_event({**ONE, "error": {}})
