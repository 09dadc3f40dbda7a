from __future__ import annotations

import pytest
from meibo.configuration import Auth0Source
from meibo.errors import AwsBusyError, EventError, JobsExhaustedError, ProviderBusyError
from meibo.exports.plan import Job, PlannedExport

from tests.unit.exports.conftest import (
    ORGANIZATIONS,
    RUN,
    TICK,
    World,
    WorldOf,
    auth0_source,
    configuration_of,
    cybozu_source,
)

PLAN = f"runs/dt=2026-11-21/run={RUN}/_plan.json"
ATTEMPT_1 = f"runs/dt=2026-11-21/run={RUN}/_attempt-1.json"
ATTEMPT_2 = f"runs/dt=2026-11-21/run={RUN}/_attempt-2.json"


def planned(world: World, key: str = ATTEMPT_1) -> list[PlannedExport]:
    return [PlannedExport.from_json(entry) for entry in world.store.get_json(key) or []]


def test_a_tick_writes_the_plan_creates_the_jobs_and_starts_the_workflow(world: World) -> None:
    answer = world.creator.begin(TICK)

    assert answer == {"run_id": RUN, "attempt": 1, "status": "started", "exports": 3, "jobs": 2}
    plan = world.store.get_json(PLAN)
    assert plan is not None
    assert [entry["export_id"] for entry in plan["exports"]] == [
        "acme/users/ndjson/con_0000000000000001",
        "acme/users/csv/con_0000000000000002",
        "example/users/csv/all",
    ]
    assert all("job" not in entry for entry in plan["exports"])
    assert [export.job.id if export.job else None for export in planned(world)] == [
        "job_0000000000000001",
        "job_0000000000000002",
        None,
    ]
    assert world.workflow.starts == [(RUN, 1, ATTEMPT_1)]


def test_a_tick_that_is_delivered_twice_changes_nothing(world: World) -> None:
    world.creator.begin(TICK)
    before = dict(world.store.objects)

    answer = world.creator.begin(TICK)

    assert answer["status"] == "already_started"
    assert world.store.objects == before
    assert len(world.providers.jobs) == 2
    assert len(world.workflow.starts) == 1


def test_a_tick_that_died_after_its_plan_is_taken_up_without_creating_jobs(world: World) -> None:
    # given: the first delivery wrote the plan, created jobs and vanished before it started the workflow
    world.creator.begin(TICK)
    world.workflow.executions.clear()
    world.workflow.starts.clear()
    del world.store.objects[ATTEMPT_1]
    world.providers.jobs.clear()

    # when: the schedule delivers the tick again
    answer = world.creator.begin(TICK)

    # then: the workflow runs, and it creates the jobs
    assert answer["status"] == "started"
    assert world.providers.jobs == []
    assert world.workflow.starts == [(RUN, 1, ATTEMPT_1)]


def test_what_the_time_does_not_allow_is_left_to_the_workflow(world: World) -> None:
    world.seconds_left = 59.0

    answer = world.creator.begin(TICK)

    assert answer["jobs"] == 0
    assert answer["status"] == "started"
    assert all(export.job is None for export in planned(world))


def test_one_job_that_cannot_be_created_does_not_stop_the_others(world: World) -> None:
    world.providers.fails["acme/users/ndjson/con_0000000000000001"] = ProviderBusyError("busy")

    answer = world.creator.begin(TICK)

    assert answer["jobs"] == 1
    assert [export.job is not None for export in planned(world)] == [False, True, False]


def test_an_organization_means_each_of_its_connections_and_a_shared_one_once(world_of: WorldOf) -> None:
    world = world_of(
        auth0_source(
            {"dataset": "users", "organization_id": "org_0000000000000001"},
            {"dataset": "users", "organization_id": "org_0000000000000002"},
        )
    )

    world.creator.begin(TICK)

    assert [export.export_id for export in planned(world)] == [
        "acme/users/ndjson/con_0000000000000001",
        "acme/users/ndjson/con_000000000000000S",
    ]


def test_accepted_date_is_in_the_plan_and_the_latest_one_counts_for_a_shared_connection(world_of: WorldOf) -> None:
    world = world_of(
        auth0_source(
            {"dataset": "users", "organization_id": "org_0000000000000001", "accept_from": "2026-11-20"},
            {"dataset": "users", "organization_id": "org_0000000000000002", "accept_from": "2026-11-21"},
            {"dataset": "members"},
        )
    )

    world.creator.begin(TICK)

    assert {export.export_id: export.accept_from for export in planned(world)} == {
        "acme/users/ndjson/con_0000000000000001": "2026-11-20",
        "acme/users/ndjson/con_000000000000000S": "2026-11-21",
        "acme/members/ndjson/all": None,
    }


def test_an_organization_without_connections_fails_alone(world_of: WorldOf) -> None:
    world = world_of(
        auth0_source(
            {"dataset": "users", "organization_id": "org_0000000000000009"},
            {"dataset": "users", "format": "csv"},
        )
    )

    world.creator.begin(TICK)

    refused, other = planned(world)
    assert refused.refused is not None
    assert refused.refused.error == "RequestRefusedError"
    assert other.job is not None


def test_an_organization_is_not_refused_while_aws_is_busy(world_of: WorldOf, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    world = world_of(auth0_source({"dataset": "users", "organization_id": "org_0000000000000001"}))

    def busy(_source: Auth0Source, _organization_id: str) -> list[str]:
        raise AwsBusyError("AWS answered GetSecretValue with ThrottlingException; retry later")

    # when: the secret of the source cannot be read for a moment
    with monkeypatch.context() as patch:
        patch.setattr(world.providers, "connections", busy)
        with pytest.raises(AwsBusyError):
            world.creator.begin(TICK)
    planned_while_busy = world.store.get_json(PLAN)
    world.creator.begin(TICK)

    # then: nothing was decided by then, and the tick that is delivered again begins the run
    assert planned_while_busy is None
    assert all(export.refused is None for export in planned(world))


def test_two_wishes_for_one_key_that_differ_are_refused(world_of: WorldOf) -> None:
    world = world_of(
        auth0_source(
            {"dataset": "users", "organization_id": "org_0000000000000001", "fields": ["user_id"]},
            {"dataset": "users", "organization_id": "org_0000000000000002", "fields": ["email"]},
        )
    )

    world.creator.begin(TICK)

    shared = next(export for export in planned(world) if export.scope == "con_000000000000000S")
    assert shared.refused is not None
    assert "twice with different fields" in shared.refused.message


def test_each_new_job_of_an_export_is_counted_up_to_the_bound(world: World) -> None:
    world.creator.begin(TICK)
    export = planned(world)[0]

    second = PlannedExport.from_json(world.creator.create(export))
    third = PlannedExport.from_json(world.creator.create(second))

    assert third.job == Job(id="job_0000000000000004", created_at=TICK.isoformat(), number=3)
    with pytest.raises(JobsExhaustedError, match="3 jobs were created for acme/users/ndjson"):
        world.creator.create(third)


def test_cybozu_has_no_jobs(world: World) -> None:
    world.creator.begin(TICK)
    export = planned(world)[2]

    assert world.creator.create(export) == export.to_json()


def test_a_repair_fetches_only_what_the_plan_lacks(world: World) -> None:
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    world.store.put_json(planned(world)[0].address.manifest_key(RUN), {})

    answer = world.creator.repair(RUN)

    assert answer == {"run_id": RUN, "attempt": 2, "status": "started", "exports": 2, "jobs": 1}
    assert [export.export_id for export in planned(world, ATTEMPT_2)] == [
        "acme/users/csv/con_0000000000000002",
        "example/users/csv/all",
    ]
    assert world.workflow.starts[-1] == (RUN, 2, ATTEMPT_2)


def test_a_repair_of_a_running_attempt_changes_nothing(world: World) -> None:
    world.creator.begin(TICK)

    assert world.creator.repair(RUN) == {"run_id": RUN, "attempt": 1, "status": "running"}
    assert len(world.workflow.starts) == 1


def test_a_repair_of_a_complete_run_has_nothing_to_do(world: World) -> None:
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "SUCCEEDED"
    for export in planned(world):
        world.store.put_json(export.address.manifest_key(RUN), {})

    assert world.creator.repair(RUN)["status"] == "complete"


def test_a_repair_starts_the_attempt_that_a_dead_repair_had_prepared(world: World) -> None:
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    world.creator.repair(RUN)
    del world.workflow.executions[RUN, 2]

    assert world.creator.repair(RUN) == {"run_id": RUN, "attempt": 2, "status": "started"}


def test_a_repair_uses_the_domain_and_the_secret_of_todays_configuration(world: World) -> None:
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    source = auth0_source({"dataset": "users", "connection_id": "con_0000000000000001"})
    source.update(domain="acme.eu.auth0.com", secret="meibo/acme-corrected")
    world.configuration = configuration_of(source, cybozu_source({"dataset": "users"}))

    world.creator.repair(RUN)

    repaired = planned(world, ATTEMPT_2)[0]
    assert (repaired.endpoint, repaired.secret) == ("acme.eu.auth0.com", "meibo/acme-corrected")


def test_a_repair_resolves_again_what_was_refused(world_of: WorldOf, monkeypatch: pytest.MonkeyPatch) -> None:
    # given: an organization had no connection when the plan was made
    world = world_of(auth0_source({"dataset": "users", "organization_id": "org_0000000000000009"}))
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    # when: it has one now
    monkeypatch.setitem(ORGANIZATIONS, "org_0000000000000009", ["con_0000000000000009"])
    world.creator.repair(RUN)

    # then: the connection takes the refused export's place
    (export,) = planned(world, ATTEMPT_2)
    assert export.export_id == "acme/users/ndjson/con_0000000000000009"
    assert export.resolved_from == "acme/users/ndjson/org_0000000000000009"
    assert export.refused is None


def test_a_run_that_never_was_cannot_be_repaired(world: World) -> None:
    with pytest.raises(EventError, match="there is no plan"):
        world.creator.repair(RUN)
