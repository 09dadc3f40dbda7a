"""A repair finishes a run, and its run manifest lists the archived and the missing exports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import boto3
import pytest
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from meibo.archive.runs import find_run
from meibo.archive.storage import S3Reader
from meibo.exports.finish import RunFinisher
from meibo_local.aws import REGION
from meibo_simulators import FIRST_CONNECTION, SECOND_CONNECTION, SimulatedDomain, SimulatedTenant
from tests.support.clock import FakeClock
from tests.support.stack import FOLDER, RUN, TICK, System, running_system, wait_for

ACCOUNT = "123456789012"
# Step Functions deletes executions after 90 days.
EXECUTION_RETENTION = timedelta(days=91)


@pytest.fixture
def unfinished(system: System, no_retry_waits: None, monkeypatch: pytest.MonkeyPatch) -> System:  # no_retry_waits
    """A run with archived exports, whose execution ended before the run manifest was written."""
    system.configure(system.auth0_source({"dataset": "users"}), system.cybozu_source({"dataset": "users"}))

    def fail(*_: Any) -> dict[str, Any]:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(RunFinisher, "finish", fail)
        assert system.aws.tick(TICK).failed is False
        wait_for(lambda: system.aws.execution(RUN)["status"] == "FAILED")
    assert f"{FOLDER}_manifest.json" not in system.aws.keys("runs/")
    return system


def test_run_without_a_manifest_is_finished_by_a_repair(unfinished: System) -> None:
    reader = S3Reader(boto3.client("s3"), unfinished.aws.bucket)
    assert find_run(reader, RUN) is None
    archived = unfinished.aws.keys("archive/")

    manifest = unfinished.repair()

    # then: the attempt has no exports of its own, and readers find the data
    assert (manifest["attempt"], manifest["complete"], manifest["counts"]["archived"]) == (2, True, 2)
    assert unfinished.aws.read_json(f"{FOLDER}_attempt-2.json") == []
    assert unfinished.aws.keys("archive/") == archived
    run = find_run(reader, RUN)
    assert run is not None
    assert len(run.exports) == 2
    assert unfinished.aws.invoke({"run_id": RUN, "repair": True}).payload["status"] == "complete"


def test_run_is_finished_after_step_functions_deleted_its_execution(
    unfinished: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine in stepfunctions_parser_backends[ACCOUNT][REGION].state_machines:
        machine.executions.clear()
    clock = FakeClock(time.time() + EXECUTION_RETENTION.total_seconds())
    monkeypatch.setattr("meibo.exports.create.SystemClock", lambda: clock)
    jobs = [request for request in unfinished.tenant.requests if request.path.endswith("/jobs/users-exports")]

    outcome = unfinished.aws.invoke({"run_id": RUN, "repair": True})

    assert (outcome.payload["status"], outcome.payload["attempt"], outcome.payload["exports"]) == ("started", 2, 0)
    assert unfinished.finished(RUN, 2)["complete"] is True
    assert [request for request in unfinished.tenant.requests if request.path.endswith("/jobs/users-exports")] == jobs


@pytest.fixture
def system_with_organizations() -> Iterator[System]:
    tenant = SimulatedTenant("acme", users=300, organizations=2)
    tenant.switches.polls_until_completed = 0
    with running_system(tenant, SimulatedDomain("example", users=20)) as running:
        yield running


def test_shared_connection_that_was_refused_is_archived_by_a_repair(system_with_organizations: System) -> None:
    system = system_with_organizations
    # given: two organizations that share a connection and have different fields
    first, second = system.tenant.organizations.ids()
    system.tenant.organizations.enable(first, [FIRST_CONNECTION, SECOND_CONNECTION])
    system.tenant.organizations.enable(second, [SECOND_CONNECTION])
    shared = f"acme/users/ndjson/{SECOND_CONNECTION}"

    def configure(*fields: str) -> None:
        entries = [
            {"dataset": "users", "organization_id": organization_id, "fields": ["user_id", field]}
            for organization_id, field in zip((first, second), fields, strict=True)
        ]
        system.configure(system.auth0_source(*entries))

    configure("email", "name")
    outcome = system.aws.tick(TICK)
    assert [failure["export_id"] for failure in outcome.payload["not_created"]] == [shared]
    refused = system.finished(RUN, 1)
    assert [missing["export_id"] for missing in refused["missing"]] == [shared]

    # when: the configuration is corrected
    configure("email", "email")
    repaired = system.repair()

    assert (repaired["complete"], repaired["missing"]) == (True, [])
    assert {export["export_id"]: export["rows"] for export in repaired["exports"]} == {
        f"acme/users/ndjson/{connection}": system.tenant.expected_rows(connection)
        for connection in (FIRST_CONNECTION, SECOND_CONNECTION)
    }
