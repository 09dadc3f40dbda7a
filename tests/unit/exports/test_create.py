from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import ANY

import pytest
from botocore.exceptions import ClientError

from meibo.archive.keys import run_manifest_key
from meibo.configuration import Configuration
from meibo.errors import (
    AwsBusyError,
    ConfigurationError,
    CredentialsRefusedError,
    EventError,
    JobsExhaustedError,
    OutOfTimeError,
    ProviderBusyError,
)
from meibo.exports.finish import RunFinisher
from meibo.exports.plan import ExportJob, Plan, PlannedExport
from tests.support.clock import FakeClock, VirtualTime
from tests.support.memory_archive import MemoryArchiveStore
from tests.unit.exports.conftest import (
    ORGANIZATIONS,
    RUN,
    TICK,
    ExportsHarness,
    FakeBus,
    WorldOf,
    auth0_source,
    configuration_of,
    cybozu_source,
)

PLAN = f"runs/dt=2026-11-21/run={RUN}/_plan.json"
ATTEMPT_1 = f"runs/dt=2026-11-21/run={RUN}/_attempt-1.json"
ATTEMPT_2 = f"runs/dt=2026-11-21/run={RUN}/_attempt-2.json"
ATTEMPT_3 = f"runs/dt=2026-11-21/run={RUN}/_attempt-3.json"
MANIFEST = f"runs/dt=2026-11-21/run={RUN}/_manifest.json"
SHARED = "acme/users/ndjson/con_000000000000000S"


def planned(world: ExportsHarness, key: str = ATTEMPT_1) -> list[PlannedExport]:
    return [PlannedExport.from_json(entry) for entry in world.store.get_json(key) or []]


def archive(world: ExportsHarness, *exports: PlannedExport) -> None:
    for export in exports:
        world.store.put_json(
            export.address.manifest_key(RUN),
            {
                "object": {"key": "k", "bytes": 100, "sha256": "ab"},
                "content": {"rows": 10},
                "sanity": {"verdict": "ok"},
            },
        )


def finished(world: ExportsHarness, attempt: int) -> dict[str, Any]:
    """Finish the attempt and return its run manifest."""
    world.workflow.executions[RUN, attempt] = "FAILED"
    RunFinisher(store=world.store, bus=FakeBus()).finish(RUN, attempt)
    manifest = world.store.get_json(run_manifest_key(RUN, attempt))
    assert isinstance(manifest, dict)
    return manifest


def unarchived(export: PlannedExport) -> dict[str, str]:
    return {"export_id": export.export_id, "error": "Unknown", "reason": ANY}


def test_a_tick_writes_the_plan_creates_the_jobs_and_starts_the_workflow(world: ExportsHarness) -> None:
    answer = world.creator.begin(TICK)

    assert answer == {"run_id": RUN, "attempt": 1, "status": "started", "exports": 3, "jobs": 2, "not_created": []}
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


def test_a_tick_that_is_delivered_twice_changes_nothing(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    before = dict(world.store.objects)

    answer = world.creator.begin(TICK)

    assert answer["status"] == "already_started"
    assert world.store.objects == before
    assert len(world.providers.jobs) == 2
    assert len(world.workflow.starts) == 1


def test_a_tick_that_died_after_its_plan_is_taken_up_without_creating_jobs(world: ExportsHarness) -> None:
    # given: the first delivery wrote the plan, created jobs and vanished before it started the workflow
    world.creator.begin(TICK)
    world.workflow.executions.clear()
    world.workflow.starts.clear()
    del world.store.objects[ATTEMPT_1]
    world.providers.jobs.clear()

    # when: the schedule delivers the tick again
    answer = world.creator.begin(TICK)

    # then: the workflow runs, and it creates the jobs
    assert (answer["status"], answer["exports"], answer["jobs"]) == ("started", 3, 0)
    assert world.providers.jobs == []
    assert world.workflow.starts == [(RUN, 1, ATTEMPT_1)]


def test_what_the_time_does_not_allow_is_left_to_the_workflow(world: ExportsHarness) -> None:
    world.seconds_left = 59.0

    answer = world.creator.begin(TICK)

    assert answer["jobs"] == 0
    assert answer["status"] == "started"
    assert all(export.job is None for export in planned(world))


def test_one_job_that_cannot_be_created_does_not_stop_the_others(world: ExportsHarness) -> None:
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


def test_a_repair_uses_the_settings_of_the_source_as_they_are_today(world_of: WorldOf) -> None:
    # given: a run whose files are on a host that was not allowed
    world = world_of(auth0_source({"dataset": "users"}))
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    source = {**auth0_source({"dataset": "users"}), "location_hosts": ["files.example.com"], "suspect_share": 0.25}
    world.configuration = configuration_of({**source, "job_deadline_seconds": 600})

    # when
    world.creator.repair(RUN)

    # then
    (export,) = world.store.get_json(ATTEMPT_2) or []
    assert export["options"] == {"location_hosts": ["files.example.com"]}
    assert (export["suspect_share"], export["job_deadline_seconds"]) == (0.25, 600)


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

    def busy(*_arguments: object) -> list[str]:
        raise AwsBusyError("AWS answered GetSecretValue with ThrottlingException; retry later")

    # when: the secret of the source cannot be read for a moment
    with monkeypatch.context() as patch:
        patch.setattr(world.providers, "organization_connections", busy)
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


def test_each_new_job_of_an_export_is_counted_up_to_the_bound(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    export = planned(world)[0]

    second = PlannedExport.from_json(world.creator.create(export))
    third = PlannedExport.from_json(world.creator.create(second))

    assert third.job == ExportJob(id="job_0000000000000004", created_at=TICK.isoformat(), number=3)
    with pytest.raises(JobsExhaustedError, match="3 jobs were created for acme/users/ndjson"):
        world.creator.create(third)


def test_cybozu_has_no_jobs(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    export = planned(world)[2]

    assert world.creator.create(export) == export.to_json()


def test_a_repair_fetches_only_what_the_plan_lacks(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    world.store.put_json(planned(world)[0].address.manifest_key(RUN), {})

    answer = world.creator.repair(RUN)

    assert answer == {"run_id": RUN, "attempt": 2, "status": "started", "exports": 2, "jobs": 1, "not_created": []}
    assert [export.export_id for export in planned(world, ATTEMPT_2)] == [
        "acme/users/csv/con_0000000000000002",
        "example/users/csv/all",
    ]
    assert world.workflow.starts[-1] == (RUN, 2, ATTEMPT_2)


def test_a_repair_of_a_running_attempt_changes_nothing(world: ExportsHarness) -> None:
    world.creator.begin(TICK)

    assert world.creator.repair(RUN) == {"run_id": RUN, "attempt": 1, "status": "running"}
    assert len(world.workflow.starts) == 1


def test_a_repair_of_a_complete_run_has_nothing_to_do(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "SUCCEEDED"
    archive(world, *planned(world))
    world.store.put_json(MANIFEST, {"complete": True})

    assert world.creator.repair(RUN) == {"run_id": RUN, "attempt": 1, "status": "complete", "exports": 0}
    assert world.workflow.starts == [(RUN, 1, ATTEMPT_1)]


def test_a_repair_starts_the_attempt_that_a_dead_repair_had_prepared(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    world.creator.repair(RUN)
    del world.workflow.executions[RUN, 2]
    world.workflow.starts.clear()

    answer = world.creator.repair(RUN)

    assert (answer["attempt"], answer["status"], answer["jobs"]) == (2, "started", 2)
    assert world.workflow.starts == [(RUN, 2, ATTEMPT_2)]
    assert len(world.providers.jobs) == 4


def test_a_repair_uses_the_domain_and_the_secret_of_todays_configuration(world: ExportsHarness) -> None:
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
    assert export.refused is None
    assert finished(world, 2)["missing"] == [unarchived(export)]


def test_a_run_that_never_was_cannot_be_repaired(world: ExportsHarness) -> None:
    with pytest.raises(EventError, match="there is no plan"):
        world.creator.repair(RUN)


# -- several invocations for one run


def organizations_of_one_tenant() -> dict[str, Any]:
    return auth0_source(
        {"dataset": "users", "organization_id": "org_0000000000000001"},
        {"dataset": "users", "organization_id": "org_0000000000000002"},
    )


def at_the_same_time(world: ExportsHarness, *calls: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the calls in threads, on a clock on which each call to a provider takes 20 seconds."""
    time = VirtualTime(TICK.timestamp())
    world.clock = time
    world.providers.wait = lambda: time.sleep(20)
    answers: list[dict[str, Any]] = []
    time.run([lambda call=call: answers.append(call()) for call in calls])  # type: ignore[misc]  # call is bound early
    return answers


@pytest.mark.parametrize(
    "sources",
    [
        # The second begins while the first creates jobs: resolving these takes no time.
        (auth0_source({"dataset": "users"}, {"dataset": "users", "format": "csv"}),),
        # Both find no plan, and resolve at the same time.
        (organizations_of_one_tenant(),),
    ],
)
def test_two_begins_at_the_same_time_create_each_job_once(world_of: WorldOf, sources: Any) -> None:
    world = world_of(*sources)

    answers = at_the_same_time(world, *[lambda: world.creator.begin(TICK)] * 2)

    assert sorted(answer["status"] for answer in answers) == ["already_started", "started"]
    assert len(world.providers.jobs) == 2
    assert [export.job.id if export.job else None for export in planned(world)] == [
        "job_0000000000000001",
        "job_0000000000000002",
    ]
    assert world.workflow.starts == [(RUN, 1, ATTEMPT_1)]


def test_two_repairs_at_the_same_time_create_each_job_once(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    world.providers.jobs.clear()

    answers = at_the_same_time(world, *[lambda: world.creator.repair(RUN)] * 2)

    assert sorted((answer["attempt"], answer["status"]) for answer in answers) == [(2, "running"), (2, "started")]
    assert len(world.providers.jobs) == 2
    assert [bool(export.job) for export in planned(world, ATTEMPT_2)] == [True, True, False]
    assert world.workflow.starts[1:] == [(RUN, 2, ATTEMPT_2)]


def died_after_its_plan(world: ExportsHarness, attempt: int, key: str) -> None:
    """Leave the attempt as an invocation leaves it that vanished while it created jobs."""
    del world.workflow.executions[RUN, attempt]
    del world.store.objects[key]
    world.workflow.starts.clear()
    world.providers.jobs.clear()


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_preparation_is_taken_over_when_its_invocation_is_over(world: ExportsHarness, attempt: int) -> None:
    clock = FakeClock(TICK.timestamp())
    world.clock = clock
    world.creator.begin(TICK)
    if attempt == 2:
        world.workflow.executions[RUN, 1] = "FAILED"
        world.creator.repair(RUN)
    died_after_its_plan(world, attempt, (ATTEMPT_1, ATTEMPT_2)[attempt - 1])

    answer = world.creator.begin(TICK) if attempt == 1 else world.creator.repair(RUN)

    assert (answer["attempt"], answer["status"], answer["jobs"]) == (attempt, "started", 0)
    assert clock.now() - TICK.timestamp() == world.seconds_left
    assert world.providers.jobs == []


def test_who_has_no_time_to_wait_for_a_preparation_fails_and_is_invoked_again(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    died_after_its_plan(world, 1, ATTEMPT_1)
    world.seconds_left = 59

    with pytest.raises(OutOfTimeError, match="still creates the jobs"):
        world.creator.begin(TICK)

    assert world.workflow.starts == []


class LostAnswers(MemoryArchiveStore):
    """A bucket whose first answer to each write is lost, so that the client's retry finds the key taken."""

    def put_json(self, key: str, document: Any) -> bool:
        super().put_json(key, document)
        return False


def test_an_invocation_recognizes_its_own_plan_when_the_answer_was_lost(world: ExportsHarness) -> None:
    world.store = LostAnswers()

    answer = world.creator.begin(TICK)

    assert (answer["status"], answer["jobs"]) == ("started", 2)
    assert world.workflow.starts == [(RUN, 1, ATTEMPT_1)]


# -- what could not be created


def test_the_answer_lists_each_export_that_could_not_be_created(
    world_of: WorldOf, caplog: pytest.LogCaptureFixture
) -> None:
    world = world_of(
        auth0_source({"dataset": "users"}, {"dataset": "users", "organization_id": "org_0000000000000009"}),
        cybozu_source({"dataset": "users"}),
    )
    world.providers.fails["acme/users/ndjson/all"] = CredentialsRefusedError("the client secret of acme is wrong")

    answer = world.creator.begin(TICK)

    assert (answer["exports"], answer["jobs"]) == (3, 0)
    assert sorted(answer["not_created"], key=lambda failure: failure["export_id"]) == [
        {
            "export_id": "acme/users/ndjson/all",
            "error": "CredentialsRefusedError",
            "reason": "the client secret of acme is wrong",
        },
        {
            "export_id": "acme/users/ndjson/org_0000000000000009",
            "error": "RequestRefusedError",
            "reason": "organization org_0000000000000009 has no enabled connection",
        },
    ]
    assert [
        {name: vars(record)[name] for name in ("export_id", "error", "reason")}
        for record in caplog.records
        if record.getMessage() == "export not created"
    ] == answer["not_created"]


def test_the_answer_of_a_repair_lists_them_too(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    world.providers.fails["acme/users/ndjson/con_0000000000000001"] = ProviderBusyError("busy")

    answer = world.creator.repair(RUN)

    assert answer["not_created"] == [
        {"export_id": "acme/users/ndjson/con_0000000000000001", "error": "ProviderBusyError", "reason": "busy"}
    ]


def test_an_error_that_is_not_ours_stops_no_other_export_and_its_message_is_withheld(
    world: ExportsHarness, caplog: pytest.LogCaptureFixture
) -> None:
    world.providers.fails["acme/users/ndjson/con_0000000000000001"] = KeyError("taro@example.jp")

    answer = world.creator.begin(TICK)

    assert (answer["status"], answer["jobs"]) == ("started", 1)
    assert answer["not_created"][0]["error"] == "UnexpectedError"
    assert answer["not_created"][0]["reason"].startswith("KeyError; ")
    assert "taro" not in json.dumps(answer)
    assert not any("taro" in str(vars(record)) for record in caplog.records)


def test_a_busy_aws_is_reported_as_such(world: ExportsHarness) -> None:
    world.providers.fails["acme/users/ndjson/con_0000000000000001"] = ClientError(
        {"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "GetSecretValue"
    )

    answer = world.creator.begin(TICK)

    assert [failure["error"] for failure in answer["not_created"]] == ["AwsBusyError"]


# -- a repair always finishes the run


def test_a_run_that_was_aborted_before_its_manifest_gets_one(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    archive(world, *planned(world))
    world.workflow.executions[RUN, 1] = "ABORTED"

    answer = world.creator.repair(RUN)

    assert (answer["attempt"], answer["status"], answer["exports"]) == (2, "started", 0)
    assert world.store.get_json(ATTEMPT_2) == []
    assert world.workflow.starts[-1] == (RUN, 2, ATTEMPT_2)
    assert finished(world, 2)["complete"] is True
    assert world.creator.repair(RUN)["status"] == "complete"


def test_a_manifest_that_is_older_than_the_archives_is_followed_by_a_true_one(world: ExportsHarness) -> None:
    # given: the second attempt archived what the first one's manifest lacks, and was aborted before its own
    world.creator.begin(TICK)
    archive(world, *planned(world)[:2])
    assert finished(world, 1)["complete"] is False
    world.creator.repair(RUN)
    archive(world, *planned(world)[2:])
    world.workflow.executions[RUN, 2] = "ABORTED"

    answer = world.creator.repair(RUN)

    assert (answer["attempt"], answer["status"], answer["exports"]) == (3, "started", 0)
    assert finished(world, 3)["counts"]["archived"] == 3


@pytest.mark.parametrize("archived", [2, 3])
def test_a_run_is_repaired_after_its_executions_are_forgotten(world: ExportsHarness, archived: int) -> None:
    # given: an execution that was aborted before its end, more than 90 days ago
    clock = FakeClock(TICK.timestamp())
    world.clock = clock
    world.creator.begin(TICK)
    archive(world, *planned(world)[:archived])
    clock.time += timedelta(days=91).total_seconds()
    world.workflow.executions.clear()

    answer = world.creator.repair(RUN)

    # then: a new attempt fetches what lacks, and is not that of the old list with its jobs
    assert (answer["attempt"], answer["status"], answer["exports"]) == (2, "started", 3 - archived)
    assert [export.export_id for export in planned(world, ATTEMPT_2)] == [
        export.export_id for export in planned(world)[archived:]
    ]
    assert clock.slept == []
    assert finished(world, 2)["counts"]["missing"] == 3 - archived


def test_a_complete_run_stays_complete_after_its_executions_are_forgotten(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    archive(world, *planned(world))
    finished(world, 1)
    world.workflow.executions.clear()
    world.clock.sleep(timedelta(days=91).total_seconds())

    assert world.creator.repair(RUN)["status"] == "complete"


def test_a_tick_of_a_run_that_is_forgotten_changes_nothing(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    finished(world, 1)
    world.workflow.executions.clear()
    world.clock.sleep(timedelta(days=91).total_seconds())

    assert world.creator.begin(TICK)["status"] == "already_started"
    assert world.workflow.starts == [(RUN, 1, ATTEMPT_1)]


def test_a_run_whose_exports_are_all_archived_is_finished_without_a_configuration(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    archive(world, *planned(world))
    world.workflow.executions[RUN, 1] = "ABORTED"

    def broken() -> Configuration:
        raise ConfigurationError("the configuration is not valid JSON")

    assert replace(world.creator, configuration=broken).repair(RUN)["status"] == "started"
    assert finished(world, 2)["complete"] is True


@pytest.mark.parametrize("lost", [(ATTEMPT_1,), (ATTEMPT_1, ATTEMPT_2), (ATTEMPT_2,)])
def test_a_repair_never_uses_the_name_of_an_execution_that_has_lost_its_list(
    world: ExportsHarness, lost: tuple[str, ...]
) -> None:
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    if ATTEMPT_2 in lost:
        world.creator.repair(RUN)
        world.workflow.executions[RUN, 2] = "FAILED"
    for key in lost:
        del world.store.objects[key]

    answer = world.creator.repair(RUN)

    attempt = 3 if ATTEMPT_2 in lost else 2
    assert (answer["attempt"], answer["status"], answer["exports"]) == (attempt, "started", 3)
    assert world.workflow.executions[RUN, attempt] == "RUNNING"
    assert len(planned(world, ATTEMPT_3 if attempt == 3 else ATTEMPT_2)) == 3


def test_an_execution_that_left_nothing_in_the_bucket_keeps_its_name(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    world.workflow.executions.update({(RUN, 1): "FAILED", (RUN, 2): "FAILED"})

    assert world.creator.repair(RUN)["attempt"] == 3


def test_a_run_that_was_planned_and_never_started_is_repaired(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    died_after_its_plan(world, 1, ATTEMPT_1)
    world.clock.sleep(world.seconds_left)

    answer = world.creator.repair(RUN)

    assert (answer["status"], answer["exports"], answer["jobs"]) == ("started", 3, 2)


def test_a_plan_without_a_preparation_can_be_repaired(world: ExportsHarness) -> None:
    # given: a plan that an earlier version of Meibo wrote
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    document = world.store.get_json(PLAN)
    assert document is not None
    del document["preparation"], world.store.objects[PLAN]
    world.store.put_json(PLAN, document)

    assert world.creator.repair(RUN)["attempt"] == 2


# -- what was refused is resolved again


def shared_with(fields_1: list[str], fields_2: list[str]) -> dict[str, Any]:
    return auth0_source(
        {"dataset": "users", "organization_id": "org_0000000000000001", "fields": fields_1},
        {"dataset": "users", "organization_id": "org_0000000000000002", "fields": fields_2},
    )


@pytest.mark.parametrize(
    "corrected",
    [
        shared_with(["user_id"], ["user_id"]),
        auth0_source({"dataset": "users", "organization_id": "org_0000000000000002", "fields": ["user_id"]}),
        auth0_source({"dataset": "users", "connection_id": "con_000000000000000S", "fields": ["user_id"]}),
    ],
)
def test_a_shared_connection_is_archived_once_its_fields_agree(world_of: WorldOf, corrected: dict[str, Any]) -> None:
    world = world_of(shared_with(["user_id"], ["email"]))
    world.creator.begin(TICK)
    archive(world, *(export for export in planned(world) if not export.refused))
    assert [missing["export_id"] for missing in finished(world, 1)["missing"]] == [SHARED]

    world.configuration = configuration_of(corrected)
    answer = world.creator.repair(RUN)

    assert answer["not_created"] == []
    (export,) = planned(world, ATTEMPT_2)
    assert (export.export_id, export.refused, export.request["fields"]) == (SHARED, None, [{"name": "user_id"}])
    archive(world, export)
    assert finished(world, 2)["complete"] is True


def test_fields_that_still_differ_are_refused_again(world_of: WorldOf) -> None:
    world = world_of(shared_with(["user_id"], ["email"]))
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"

    answer = world.creator.repair(RUN)

    assert [(one["export_id"], one["error"]) for one in answer["not_created"]] == [(SHARED, "ConfigurationError")]
    assert "twice with different fields" in answer["not_created"][0]["reason"]


def test_what_is_not_configured_any_more_is_missing_with_that_reason(world_of: WorldOf) -> None:
    world = world_of(shared_with(["user_id"], ["email"]))
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    world.configuration = configuration_of(auth0_source({"dataset": "organizations"}))

    answer = world.creator.repair(RUN)

    (failure,) = answer["not_created"]
    assert failure["export_id"] == SHARED
    assert "not in the configuration any more" in failure["reason"]


def test_a_source_that_was_removed_stays_missing_with_a_reason(world_of: WorldOf) -> None:
    world = world_of(auth0_source({"dataset": "users", "organization_id": "org_0000000000000009"}))
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    world.configuration = configuration_of(cybozu_source({"dataset": "users"}))

    (failure,) = world.creator.repair(RUN)["not_created"]

    assert "not in the configuration any more" in failure["reason"]


def test_a_refused_organization_whose_connections_are_archived_completes_the_run(
    world_of: WorldOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: an organization without connections, beside an export of the connection that it will have
    world = world_of(
        auth0_source(
            {"dataset": "users", "connection_id": "con_0000000000000009"},
            {"dataset": "users", "organization_id": "org_0000000000000009"},
        )
    )
    world.creator.begin(TICK)
    archive(world, planned(world)[0])
    assert finished(world, 1)["complete"] is False
    monkeypatch.setitem(ORGANIZATIONS, "org_0000000000000009", ["con_0000000000000009"])

    answer = world.creator.repair(RUN)

    assert (answer["status"], answer["exports"]) == ("started", 0)
    assert finished(world, 2)["complete"] is True
    assert world.creator.repair(RUN)["status"] == "complete"


def test_a_connection_that_is_archived_with_other_fields_does_not_hide_a_refusal(
    world_of: WorldOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(
        auth0_source(
            {"dataset": "users", "connection_id": "con_0000000000000009", "fields": ["email"]},
            {"dataset": "users", "organization_id": "org_0000000000000009", "fields": ["user_id"]},
        )
    )
    world.creator.begin(TICK)
    archive(world, planned(world)[0])
    world.workflow.executions[RUN, 1] = "FAILED"
    monkeypatch.setitem(ORGANIZATIONS, "org_0000000000000009", ["con_0000000000000009"])

    (failure,) = world.creator.repair(RUN)["not_created"]

    assert failure["export_id"] == "acme/users/ndjson/org_0000000000000009"
    assert "twice with different fields" in failure["reason"]


def test_the_connections_of_a_tenant_are_resolved_once_for_all_that_was_refused(world_of: WorldOf) -> None:
    names = [f"org_{number:016d}" for number in range(3, 9)]
    world = world_of(auth0_source(*({"dataset": "users", "organization_id": name} for name in names)))
    world.creator.begin(TICK)
    world.workflow.executions[RUN, 1] = "FAILED"
    calls: list[None] = []
    world.providers.wait = lambda: calls.append(None)

    world.creator.repair(RUN)

    assert len(calls) == len(names)


def test_a_plan_is_read_as_it_was_written(world: ExportsHarness) -> None:
    world.creator.begin(TICK)
    document = world.store.get_json(PLAN)

    assert Plan.from_json(document).to_json() == document


@pytest.mark.parametrize(
    "change",
    [
        {"exports": None},
        {"run_id": ""},
        {"preparation": "now"},
        {"preparation": {"invocation": "a", "until": "soon"}},
        {"preparation": {"until": "2026-11-21T18:15:00+00:00"}},
    ],
)
def test_a_malformed_plan_is_an_error_that_names_the_field(world: ExportsHarness, change: dict[str, Any]) -> None:
    world.creator.begin(TICK)
    document = world.store.get_json(PLAN)
    assert document is not None

    with pytest.raises(EventError, match="plan"):
        Plan.from_json({**document, **change})
