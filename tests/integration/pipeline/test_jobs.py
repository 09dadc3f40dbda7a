"""Export jobs of Auth0 that are slow, stuck or lost."""

from __future__ import annotations

import pytest

from meibo_simulators import faults as broken
from meibo_simulators.auth0.switches import Fate
from tests.support.stack import System

JOBS = "/api/v2/jobs/users-exports"


def jobs_created(system: System) -> int:
    return sum(request.method == "POST" and request.path == JOBS for request in system.tenant.requests)


@pytest.mark.parametrize("fate", ["failed", "expired", "error", "vanished"])
def test_lost_job_is_created_again_a_bounded_number_of_times(system: System, fate: Fate) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    system.tenant.switches.job_fate = fate

    manifest = system.run()

    assert manifest["missing"][0]["error"] == "JobsExhaustedError"
    assert "3 jobs" in manifest["missing"][0]["reason"]
    assert jobs_created(system) == 3


def test_lost_job_is_replaced_once(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    system.tenant.jobs.fates[0] = "failed"

    assert system.run()["complete"] is True
    assert jobs_created(system) == 2


def test_job_in_an_unknown_state_is_polled_again(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    system.tenant.switches.polls_until_completed = 1
    system.tenant.switches.polls_processing = 2

    assert system.run()["complete"] is True
    assert jobs_created(system) == 1


def test_expired_location_is_fetched_again(system: System) -> None:
    # given: the response of S3 after the location's 60 seconds
    expired = broken.respond(
        403,
        "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
        {"Content-Type": "application/xml"},
    )
    system.configure(system.auth0_source({"dataset": "users"}))
    system.tenant.faults.add("GET /job_*", expired)

    assert system.run()["complete"] is True
    assert jobs_created(system) == 1


def test_location_is_fetched_without_authorization(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    system.run()

    files = [request for request in system.tenant.requests if request.path.startswith("/job_")]
    assert files
    assert not any(request.authorized for request in files)


@pytest.mark.usefixtures("no_retry_waits")
def test_busy_provider_is_not_a_failure(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}), system.cybozu_source({"dataset": "users"}))
    system.tenant.faults.add("* /api/v2/*", broken.too_many_requests(retry_after=0), times=2)
    system.tenant.faults.add("* /api/v2/*", broken.html(502), times=1, after=1)
    system.tenant.faults.add("* /oauth/token", broken.reset())
    system.domain.faults.add("GET /v1/*", broken.html(503))

    assert system.run()["complete"] is True
