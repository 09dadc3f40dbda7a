from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from meibo.errors import EventError
from meibo.exports.check import MAX_WAIT_SECONDS, check
from meibo.exports.plan import ExportJob, PlannedExport
from tests.unit.exports.conftest import TICK

EXPORT = PlannedExport(
    provider="auth0",
    source="acme",
    dataset="users",
    format="ndjson",
    scope="all",
    endpoint="acme.jp.auth0.com",
    secret="meibo/acme",
    request={"fields": [{"name": "user_id"}]},
    job=ExportJob(id="job_0000000000000001", created_at=TICK.isoformat(), number=1),
)


@dataclass
class State:
    status: str
    reason: str | None = None


def check_after(seconds: float, state: State) -> dict[str, object]:
    return check(EXPORT, lambda _export, _job: state, deadline_seconds=3600, now=TICK + timedelta(seconds=seconds))


def test_a_completed_job_is_ready() -> None:
    assert check_after(10, State("completed"))["status"] == "ready"


def test_a_job_that_is_gone_is_to_be_created_again() -> None:
    assert check_after(10, State("gone", "failed"))["status"] == "gone"


@pytest.mark.parametrize("status", ["pending", "processing", "a state of next year"])
def test_any_other_state_is_pending(status: str) -> None:
    assert check_after(10, State(status))["status"] == "pending"


def test_a_job_past_its_deadline_is_stuck_and_counts_as_gone() -> None:
    assert check_after(3600, State("pending"))["status"] == "pending"
    assert check_after(3601, State("pending"))["status"] == "gone"


def test_a_job_that_completed_late_is_still_ready() -> None:
    assert check_after(7200, State("completed"))["status"] == "ready"


def test_waits_grow_with_the_jobs_age_up_to_a_bound() -> None:
    waits = [check_after(age, State("pending"))["wait_seconds"] for age in (0, 4, 60, 400, 3000)]

    assert waits == [1, 1, 15, 100, MAX_WAIT_SECONDS]


def test_a_clock_that_was_set_back_does_not_make_the_wait_negative() -> None:
    assert check_after(-300, State("pending"))["wait_seconds"] == 1


def test_an_export_without_a_job_is_a_wrong_event() -> None:
    with pytest.raises(EventError, match="no job to check"):
        check(replace(EXPORT, job=None), lambda _export, _job: State("pending"), deadline_seconds=3600, now=TICK)
