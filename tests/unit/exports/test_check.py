"""Check an export's job: its state, its deadline and the wait before the next check."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from meibo.errors import EventError
from meibo.exports.check import MAX_JOB_WAIT_SECONDS, check
from meibo.providers import PROVIDERS
from meibo.providers.auth0.provider import Auth0Provider
from meibo.providers.base import ExportRequest, JobState, ProviderContext
from tests.unit.exports.conftest import EXPORT, TICK

CONTEXT = ProviderContext(lambda: 900.0)


class SingleJobProvider(Auth0Provider):
    """Auth0 with a single job, whose state a test sets."""

    state = JobState("pending")

    def check_job(self, export: ExportRequest, job_id: str, context: ProviderContext) -> JobState:
        assert EXPORT.job is not None
        assert job_id == EXPORT.job.id
        return self.state


@pytest.fixture(autouse=True)
def single_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "auth0", SingleJobProvider())


def check_after(seconds: float, state: JobState) -> dict[str, object]:
    SingleJobProvider.state = state
    return check(EXPORT, CONTEXT, now=TICK + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("seconds", "state", "status"),
    [
        (10, JobState("completed"), "ready"),
        (10, JobState("gone", "failed"), "gone"),
        (10, JobState("pending"), "pending"),
        (3600, JobState("pending"), "pending"),
        (3601, JobState("pending"), "gone"),
        (7200, JobState("completed"), "ready"),
    ],
)
def test_status_follows_the_state_and_the_deadline_of_the_job(seconds: float, state: JobState, status: str) -> None:
    assert check_after(seconds, state)["status"] == status


def test_wait_grows_with_the_age_of_the_job_up_to_a_maximum() -> None:
    waits = [check_after(age, JobState("pending"))["wait_seconds"] for age in (0, 4, 60, 400, 3000)]

    assert waits == [1, 1, 15, 100, MAX_JOB_WAIT_SECONDS]


def test_wait_is_not_negative_after_the_clock_was_set_back() -> None:
    assert check_after(-300, JobState("pending"))["wait_seconds"] == 1


def test_export_without_a_job_is_an_event_error() -> None:
    with pytest.raises(EventError, match="expected a job, found nothing; create the job first"):
        check(replace(EXPORT, job=None), CONTEXT, now=TICK)
