"""Plan a run, create its jobs, start its workflow, and repair it."""

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
from meibo.archive.storage import ObjectStat
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
from tests.support.archives import export_manifest
from tests.support.clock import FakeClock, VirtualTime
from tests.support.memory_archive import MemoryStorage
from tests.unit.exports.conftest import (
    ORGANIZATIONS,
    RUN,
    TICK,
    ExportsHarness,
    HarnessFactory,
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


def planned(harness: ExportsHarness, key: str = ATTEMPT_1) -> list[PlannedExport]:
    return [PlannedExport.from_json(entry, "export") for entry in harness.storage.read_json(key) or []]


def archive(harness: ExportsHarness, *exports: PlannedExport) -> None:
    for export in exports:
        harness.storage.put_json(export.address.manifest_key(RUN), export_manifest(export.address).to_json())


def finished(harness: ExportsHarness, attempt: int) -> dict[str, Any]:
    """Finish the attempt and return its run manifest."""
    harness.workflow.executions[RUN, attempt] = "FAILED"
    RunFinisher(storage=harness.storage).finish(RUN, attempt)
    manifest = harness.storage.read_json(run_manifest_key(RUN, attempt))
    assert isinstance(manifest, dict)
    return manifest


def unarchived(export: PlannedExport) -> dict[str, str]:
    return {"export_id": export.export_id, "error": "Unknown", "reason": ANY}


def test_tick_writes_the_plan_creates_jobs_and_starts_the_workflow(harness: ExportsHarness) -> None:
    response = harness.creator.begin(TICK)

    assert response == {"run_id": RUN, "attempt": 1, "status": "started", "exports": 3, "jobs": 2, "not_created": []}
    plan = harness.storage.read_json(PLAN)
    assert plan is not None
    assert [entry["export_id"] for entry in plan["exports"]] == [
        "acme/users/ndjson/con_0000000000000001",
        "acme/users/csv/con_0000000000000002",
        "example/users/csv/all",
    ]
    assert all("job" not in entry for entry in plan["exports"])
    assert [export.job.id if export.job else None for export in planned(harness)] == [
        "job_0000000000000001",
        "job_0000000000000002",
        None,
    ]
    assert harness.workflow.starts == [(RUN, 1, ATTEMPT_1)]


def test_tick_that_is_delivered_twice_changes_nothing(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    before = dict(harness.storage.objects)

    response = harness.creator.begin(TICK)

    assert response["status"] == "already_started"
    assert harness.storage.objects == before
    assert len(harness.providers.jobs) == 2
    assert len(harness.workflow.starts) == 1


def test_tick_that_was_killed_after_its_plan_is_resumed_without_new_jobs(harness: ExportsHarness) -> None:
    # given: the first delivery wrote the plan, created jobs and was killed before it started the workflow
    harness.creator.begin(TICK)
    harness.workflow.executions.clear()
    harness.workflow.starts.clear()
    del harness.storage.objects[ATTEMPT_1]
    harness.providers.jobs.clear()

    # when: the schedule delivers the tick again
    response = harness.creator.begin(TICK)

    # then: the workflow is started and creates the jobs
    assert (response["status"], response["exports"], response["jobs"]) == ("started", 3, 0)
    assert harness.providers.jobs == []
    assert harness.workflow.starts == [(RUN, 1, ATTEMPT_1)]


def test_jobs_without_time_left_are_created_by_the_workflow(harness: ExportsHarness) -> None:
    harness.seconds_left = 59.0

    response = harness.creator.begin(TICK)

    assert response["jobs"] == 0
    assert response["status"] == "started"
    assert all(export.job is None for export in planned(harness))


def test_job_that_cannot_be_created_does_not_stop_the_others(harness: ExportsHarness) -> None:
    harness.providers.fails["acme/users/ndjson/con_0000000000000001"] = ProviderBusyError("busy")

    response = harness.creator.begin(TICK)

    assert response["jobs"] == 1
    assert [export.job is not None for export in planned(harness)] == [False, True, False]


def test_organization_resolves_to_its_connections_without_duplicates(new_harness: HarnessFactory) -> None:
    # given: two organizations with a connection that is also configured directly
    harness = new_harness(
        auth0_source(
            {"dataset": "users", "organization_id": "org_0000000000000001"},
            {"dataset": "users", "organization_id": "org_0000000000000002"},
            {"dataset": "users", "connection_id": "con_000000000000000S"},
        )
    )

    harness.creator.begin(TICK)

    assert [export.export_id for export in planned(harness)] == [
        "acme/users/ndjson/con_0000000000000001",
        "acme/users/ndjson/con_000000000000000S",
    ]


def test_accepted_date_is_in_the_plan_and_the_latest_counts_for_a_shared_connection(
    new_harness: HarnessFactory,
) -> None:
    harness = new_harness(
        auth0_source(
            {"dataset": "users", "organization_id": "org_0000000000000001", "accept_from": "2026-11-20"},
            {"dataset": "users", "organization_id": "org_0000000000000002", "accept_from": "2026-11-21"},
            {"dataset": "members"},
        )
    )

    harness.creator.begin(TICK)

    assert {export.export_id: export.accept_from for export in planned(harness)} == {
        "acme/users/ndjson/con_0000000000000001": "2026-11-20",
        "acme/users/ndjson/con_000000000000000S": "2026-11-21",
        "acme/members/ndjson/all": None,
    }


def test_repair_uses_the_current_settings_of_the_source(new_harness: HarnessFactory) -> None:
    # given: a run whose files were on a host outside the allowed hosts
    harness = new_harness(auth0_source({"dataset": "users"}))
    harness.begin_failed_run()
    source = {**auth0_source({"dataset": "users"}), "location_hosts": ["files.example.com"], "suspect_share": 0.25}
    harness.configuration = configuration_of({**source, "job_deadline_seconds": 600})

    harness.creator.repair(RUN)

    (export,) = harness.storage.read_json(ATTEMPT_2) or []
    assert export["options"] == {"location_hosts": ["files.example.com"]}
    assert (export["suspect_share"], export["job_deadline_seconds"]) == (0.25, 600)


def test_organization_without_connections_fails_only_its_own_export(new_harness: HarnessFactory) -> None:
    harness = new_harness(
        auth0_source(
            {"dataset": "users", "organization_id": "org_0000000000000009"},
            {"dataset": "users", "format": "csv"},
        )
    )

    harness.creator.begin(TICK)

    refused, other = planned(harness)
    assert refused.refused is not None
    assert refused.refused.error == "RequestRefusedError"
    assert other.job is not None


def test_busy_aws_does_not_refuse_an_organization(new_harness: HarnessFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = new_harness(auth0_source({"dataset": "users", "organization_id": "org_0000000000000001"}))

    def busy(*_arguments: object) -> list[str]:
        raise AwsBusyError("AWS answered GetSecretValue with ThrottlingException; retry later")

    # when: the secret of the source temporarily cannot be read
    with monkeypatch.context() as patch:
        patch.setattr(harness.providers, "connection_ids", busy)
        with pytest.raises(AwsBusyError):
            harness.creator.begin(TICK)
    planned_while_busy = harness.storage.read_json(PLAN)
    harness.creator.begin(TICK)

    # then: no plan was written, and the next delivery of the tick starts the run
    assert planned_while_busy is None
    assert all(export.refused is None for export in planned(harness))


def test_export_that_is_configured_twice_with_different_fields_is_refused(new_harness: HarnessFactory) -> None:
    harness = new_harness(
        auth0_source(
            {"dataset": "users", "organization_id": "org_0000000000000001", "fields": ["user_id"]},
            {"dataset": "users", "organization_id": "org_0000000000000002", "fields": ["email"]},
        )
    )

    harness.creator.begin(TICK)

    shared = next(export for export in planned(harness) if export.scope == "con_000000000000000S")
    assert shared.refused is not None
    assert "twice with different fields" in shared.refused.message


def test_number_of_jobs_per_export_is_bounded(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    export = planned(harness)[0]

    second = harness.creator.create_job(export)
    third = harness.creator.create_job(second)

    assert third.job == ExportJob(id="job_0000000000000004", created_at=TICK, number=3)
    with pytest.raises(JobsExhaustedError) as caught:
        harness.creator.create_job(third)
    assert str(caught.value) == (
        "acme/users/ndjson/con_0000000000000001: expected a file from one of 3 jobs, found none; check the provider's"
        " log, then repair the run"
    )


def test_export_of_cybozu_has_no_job(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    export = planned(harness)[2]

    assert harness.creator.create_job(export) == export


def test_repair_contains_only_missing_exports(harness: ExportsHarness) -> None:
    harness.begin_failed_run()
    harness.storage.put_json(planned(harness)[0].address.manifest_key(RUN), {})

    response = harness.creator.repair(RUN)

    assert response == {"run_id": RUN, "attempt": 2, "status": "started", "exports": 2, "jobs": 1, "not_created": []}
    assert [export.export_id for export in planned(harness, ATTEMPT_2)] == [
        "acme/users/csv/con_0000000000000002",
        "example/users/csv/all",
    ]
    assert harness.workflow.starts[-1] == (RUN, 2, ATTEMPT_2)


def test_repair_of_a_running_attempt_changes_nothing(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)

    assert harness.creator.repair(RUN) == {"run_id": RUN, "attempt": 1, "status": "running"}
    assert len(harness.workflow.starts) == 1


def test_repair_of_a_complete_run_starts_nothing(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    archive(harness, *planned(harness))
    finished(harness, 1)
    harness.workflow.executions[RUN, 1] = "SUCCEEDED"

    assert harness.creator.repair(RUN) == {"run_id": RUN, "attempt": 1, "status": "complete", "exports": 0}
    assert harness.workflow.starts == [(RUN, 1, ATTEMPT_1)]


def test_repair_starts_the_attempt_that_a_killed_repair_prepared(harness: ExportsHarness) -> None:
    harness.begin_failed_run()
    harness.creator.repair(RUN)
    del harness.workflow.executions[RUN, 2]
    harness.workflow.starts.clear()

    response = harness.creator.repair(RUN)

    assert (response["attempt"], response["status"], response["jobs"]) == (2, "started", 2)
    assert harness.workflow.starts == [(RUN, 2, ATTEMPT_2)]
    assert len(harness.providers.jobs) == 4


def test_repair_uses_the_current_domain_and_secret(harness: ExportsHarness) -> None:
    harness.begin_failed_run()
    source = auth0_source({"dataset": "users", "connection_id": "con_0000000000000001"})
    source.update(domain="acme.eu.auth0.com", secret="meibo/acme-corrected")
    harness.configuration = configuration_of(source, cybozu_source({"dataset": "users"}))

    harness.creator.repair(RUN)

    repaired = planned(harness, ATTEMPT_2)[0]
    assert (repaired.endpoint, repaired.secret) == ("acme.eu.auth0.com", "meibo/acme-corrected")


def test_repair_resolves_refused_exports_again(new_harness: HarnessFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    # given: an organization without connections when the plan was written
    harness = new_harness(auth0_source({"dataset": "users", "organization_id": "org_0000000000000009"}))
    harness.begin_failed_run()

    # when: the organization has a connection
    monkeypatch.setitem(ORGANIZATIONS, "org_0000000000000009", ["con_0000000000000009"])
    harness.creator.repair(RUN)

    # then: the connection replaces the refused export
    (export,) = planned(harness, ATTEMPT_2)
    assert export.export_id == "acme/users/ndjson/con_0000000000000009"
    assert export.refused is None
    assert finished(harness, 2)["missing"] == [unarchived(export)]


def test_repair_reads_the_state_of_each_export_once(harness: ExportsHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.creator.begin(TICK)
    harness.workflow.executions[RUN, 1] = "FAILED"
    keys: list[str] = []
    stat = harness.storage.stat

    def recorded_stat(key: str, version_id: str | None = None) -> ObjectStat | None:
        keys.append(key)
        return stat(key, version_id)

    monkeypatch.setattr(harness.storage, "stat", recorded_stat)
    harness.creator.repair(RUN)

    archived = sorted(key for key in keys if key.startswith("archive/"))
    assert archived == sorted(export.address.manifest_key(RUN) for export in planned(harness))


def test_unknown_run_cannot_be_repaired(harness: ExportsHarness) -> None:
    with pytest.raises(EventError, match=f"^run {RUN}: expected a plan in the archive, found none; check the id"):
        harness.creator.repair(RUN)


# -- concurrent invocations


def organizations_of_one_tenant() -> dict[str, Any]:
    return auth0_source(
        {"dataset": "users", "organization_id": "org_0000000000000001"},
        {"dataset": "users", "organization_id": "org_0000000000000002"},
    )


def at_the_same_time(harness: ExportsHarness, *calls: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the calls concurrently, on a clock on which every call of a provider takes 20 seconds."""
    time = VirtualTime(TICK.timestamp())
    harness.clock = time
    harness.providers.wait = lambda: time.sleep(20)
    responses: list[dict[str, Any]] = []
    time.run([lambda call=call: responses.append(call()) for call in calls])  # type: ignore[misc]  # call is bound early
    return responses


@pytest.mark.parametrize(
    "sources",
    [
        # The second invocation starts while the first creates jobs, because resolving these exports takes no time.
        (auth0_source({"dataset": "users"}, {"dataset": "users", "format": "csv"}),),
        # Neither invocation finds a plan, so both resolve the exports.
        (organizations_of_one_tenant(),),
    ],
)
def test_two_concurrent_ticks_create_each_job_once(new_harness: HarnessFactory, sources: Any) -> None:
    harness = new_harness(*sources)

    responses = at_the_same_time(harness, *[lambda: harness.creator.begin(TICK)] * 2)

    assert sorted(response["status"] for response in responses) == ["already_started", "started"]
    assert len(harness.providers.jobs) == 2
    assert [export.job.id if export.job else None for export in planned(harness)] == [
        "job_0000000000000001",
        "job_0000000000000002",
    ]
    assert harness.workflow.starts == [(RUN, 1, ATTEMPT_1)]


def test_two_concurrent_repairs_create_each_job_once(harness: ExportsHarness) -> None:
    harness.begin_failed_run()
    harness.providers.jobs.clear()

    responses = at_the_same_time(harness, *[lambda: harness.creator.repair(RUN)] * 2)

    assert sorted((response["attempt"], response["status"]) for response in responses) == [
        (2, "running"),
        (2, "started"),
    ]
    assert len(harness.providers.jobs) == 2
    assert [bool(export.job) for export in planned(harness, ATTEMPT_2)] == [True, True, False]
    assert harness.workflow.starts[1:] == [(RUN, 2, ATTEMPT_2)]


def kill_after_plan(harness: ExportsHarness, attempt: int, key: str) -> None:
    """Restore the state of an attempt whose invocation was killed while it created jobs."""
    del harness.workflow.executions[RUN, attempt]
    del harness.storage.objects[key]
    harness.workflow.starts.clear()
    harness.providers.jobs.clear()


@pytest.mark.parametrize("attempt", [1, 2])
def test_preparation_is_taken_over_after_the_timeout_of_its_invocation(harness: ExportsHarness, attempt: int) -> None:
    clock = FakeClock(TICK.timestamp())
    harness.clock = clock
    harness.creator.begin(TICK)
    if attempt == 2:
        harness.workflow.executions[RUN, 1] = "FAILED"
        harness.creator.repair(RUN)
    kill_after_plan(harness, attempt, (ATTEMPT_1, ATTEMPT_2)[attempt - 1])

    response = harness.creator.begin(TICK) if attempt == 1 else harness.creator.repair(RUN)

    assert (response["attempt"], response["status"], response["jobs"]) == (attempt, "started", 0)
    assert clock.now() - TICK.timestamp() == harness.seconds_left
    assert harness.providers.jobs == []


def test_invocation_without_time_to_wait_for_a_preparation_fails(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    kill_after_plan(harness, 1, ATTEMPT_1)
    harness.seconds_left = 59

    with pytest.raises(OutOfTimeError, match="is still creating the jobs"):
        harness.creator.begin(TICK)

    assert harness.workflow.starts == []


class LostResponses(MemoryStorage):
    """A bucket whose first response to each write is lost, so that the client's retry finds an existing key."""

    def put_json(self, key: str, document: Any) -> bool:
        super().put_json(key, document)
        return False


def test_invocation_recognizes_its_own_plan_after_a_lost_response(harness: ExportsHarness) -> None:
    harness.storage = LostResponses()

    response = harness.creator.begin(TICK)

    assert (response["status"], response["jobs"]) == ("started", 2)
    assert harness.workflow.starts == [(RUN, 1, ATTEMPT_1)]


# -- exports that were not created


def test_response_lists_exports_that_were_not_created(
    new_harness: HarnessFactory, caplog: pytest.LogCaptureFixture
) -> None:
    harness = new_harness(
        auth0_source({"dataset": "users"}, {"dataset": "users", "organization_id": "org_0000000000000009"}),
        cybozu_source({"dataset": "users"}),
    )
    harness.providers.fails["acme/users/ndjson/all"] = CredentialsRefusedError("the client secret of acme is wrong")

    response = harness.creator.begin(TICK)

    assert (response["exports"], response["jobs"]) == (3, 0)
    assert sorted(response["not_created"], key=lambda failure: failure["export_id"]) == [
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
        if record.getMessage() == "export refused or job not created"
    ] == response["not_created"]


def test_response_of_a_repair_lists_exports_that_were_not_created(harness: ExportsHarness) -> None:
    harness.begin_failed_run()
    harness.providers.fails["acme/users/ndjson/con_0000000000000001"] = ProviderBusyError("busy")

    response = harness.creator.repair(RUN)

    assert response["not_created"] == [
        {"export_id": "acme/users/ndjson/con_0000000000000001", "error": "ProviderBusyError", "reason": "busy"}
    ]


def test_unexpected_error_does_not_stop_other_exports_and_its_message_is_withheld(
    harness: ExportsHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.providers.fails["acme/users/ndjson/con_0000000000000001"] = KeyError("taro@example.jp")

    response = harness.creator.begin(TICK)

    assert (response["status"], response["jobs"]) == ("started", 1)
    assert response["not_created"][0]["error"] == "UnexpectedError"
    assert response["not_created"][0]["reason"].startswith("KeyError; ")
    assert "taro" not in json.dumps(response)
    assert not any("taro" in str(vars(record)) for record in caplog.records)


def test_busy_aws_is_reported(harness: ExportsHarness) -> None:
    harness.providers.fails["acme/users/ndjson/con_0000000000000001"] = ClientError(
        {"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "GetSecretValue"
    )

    response = harness.creator.begin(TICK)

    assert [failure["error"] for failure in response["not_created"]] == ["AwsBusyError"]


# -- repairs of unfinished runs


def test_aborted_run_without_a_manifest_is_finished(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    archive(harness, *planned(harness))
    harness.workflow.executions[RUN, 1] = "ABORTED"

    response = harness.creator.repair(RUN)

    assert (response["attempt"], response["status"], response["exports"]) == (2, "started", 0)
    assert harness.storage.read_json(ATTEMPT_2) == []
    assert harness.workflow.starts[-1] == (RUN, 2, ATTEMPT_2)
    assert finished(harness, 2)["complete"] is True
    assert harness.creator.repair(RUN)["status"] == "complete"


def test_outdated_run_manifest_is_followed_by_a_correct_one(harness: ExportsHarness) -> None:
    # given: the second attempt archived the missing export, and was aborted before its run manifest
    harness.creator.begin(TICK)
    archive(harness, *planned(harness)[:2])
    assert finished(harness, 1)["complete"] is False
    harness.creator.repair(RUN)
    archive(harness, *planned(harness)[2:])
    harness.workflow.executions[RUN, 2] = "ABORTED"

    response = harness.creator.repair(RUN)

    assert (response["attempt"], response["status"], response["exports"]) == (3, "started", 0)
    assert finished(harness, 3)["counts"]["archived"] == 3


@pytest.mark.parametrize("archived", [2, 3])
def test_run_is_repaired_after_its_executions_were_deleted(harness: ExportsHarness, archived: int) -> None:
    # given: an execution that was aborted more than 90 days ago
    clock = FakeClock(TICK.timestamp())
    harness.clock = clock
    harness.creator.begin(TICK)
    archive(harness, *planned(harness)[:archived])
    clock.time += timedelta(days=91).total_seconds()
    harness.workflow.executions.clear()

    response = harness.creator.repair(RUN)

    # then: a new attempt contains only the missing exports, not the old list with its jobs
    assert (response["attempt"], response["status"], response["exports"]) == (2, "started", 3 - archived)
    assert [export.export_id for export in planned(harness, ATTEMPT_2)] == [
        export.export_id for export in planned(harness)[archived:]
    ]
    assert clock.slept == []
    assert finished(harness, 2)["counts"]["missing"] == 3 - archived


def test_complete_run_stays_complete_after_its_executions_were_deleted(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    archive(harness, *planned(harness))
    finished(harness, 1)
    harness.workflow.executions.clear()
    harness.clock.sleep(timedelta(days=91).total_seconds())

    assert harness.creator.repair(RUN)["status"] == "complete"


def test_tick_of_a_run_with_deleted_executions_changes_nothing(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    finished(harness, 1)
    harness.workflow.executions.clear()
    harness.clock.sleep(timedelta(days=91).total_seconds())

    assert harness.creator.begin(TICK)["status"] == "already_started"
    assert harness.workflow.starts == [(RUN, 1, ATTEMPT_1)]


def test_run_with_all_exports_is_finished_without_a_configuration(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    archive(harness, *planned(harness))
    harness.workflow.executions[RUN, 1] = "ABORTED"

    def broken() -> Configuration:
        raise ConfigurationError("the configuration is not valid JSON")

    assert replace(harness.creator, configuration=broken).repair(RUN)["status"] == "started"
    assert finished(harness, 2)["complete"] is True


@pytest.mark.parametrize("lost", [(ATTEMPT_1,), (ATTEMPT_1, ATTEMPT_2), (ATTEMPT_2,)])
def test_repair_does_not_reuse_the_name_of_an_execution_without_a_list(
    harness: ExportsHarness, lost: tuple[str, ...]
) -> None:
    harness.begin_failed_run()
    if ATTEMPT_2 in lost:
        harness.creator.repair(RUN)
        harness.workflow.executions[RUN, 2] = "FAILED"
    for key in lost:
        del harness.storage.objects[key]

    response = harness.creator.repair(RUN)

    attempt = 3 if ATTEMPT_2 in lost else 2
    assert (response["attempt"], response["status"], response["exports"]) == (attempt, "started", 3)
    assert harness.workflow.executions[RUN, attempt] == "RUNNING"
    assert len(planned(harness, ATTEMPT_3 if attempt == 3 else ATTEMPT_2)) == 3


def test_name_of_an_execution_without_objects_is_not_reused(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    harness.workflow.executions.update({(RUN, 1): "FAILED", (RUN, 2): "FAILED"})

    assert harness.creator.repair(RUN)["attempt"] == 3


def test_run_that_was_planned_but_not_started_is_repaired(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    kill_after_plan(harness, 1, ATTEMPT_1)
    harness.clock.sleep(harness.seconds_left)

    response = harness.creator.repair(RUN)

    assert (response["status"], response["exports"], response["jobs"]) == ("started", 3, 2)


def test_plan_without_a_preparation_can_be_repaired(harness: ExportsHarness) -> None:
    # given: a plan of an earlier version of Meibo
    harness.begin_failed_run()
    document = harness.storage.read_json(PLAN)
    assert document is not None
    del document["preparation"], harness.storage.objects[PLAN]
    harness.storage.put_json(PLAN, document)

    assert harness.creator.repair(RUN)["attempt"] == 2


# -- refused exports


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
def test_shared_connection_is_archived_after_its_fields_agree(
    new_harness: HarnessFactory, corrected: dict[str, Any]
) -> None:
    harness = new_harness(shared_with(["user_id"], ["email"]))
    harness.creator.begin(TICK)
    archive(harness, *(export for export in planned(harness) if not export.refused))
    assert [missing["export_id"] for missing in finished(harness, 1)["missing"]] == [SHARED]

    harness.configuration = configuration_of(corrected)
    response = harness.creator.repair(RUN)

    assert response["not_created"] == []
    (export,) = planned(harness, ATTEMPT_2)
    assert (export.export_id, export.refused, export.request["fields"]) == (SHARED, None, [{"name": "user_id"}])
    archive(harness, export)
    assert finished(harness, 2)["complete"] is True


def test_fields_that_still_differ_are_refused_again(new_harness: HarnessFactory) -> None:
    harness = new_harness(shared_with(["user_id"], ["email"]))
    harness.begin_failed_run()

    response = harness.creator.repair(RUN)

    assert [(failure["export_id"], failure["error"]) for failure in response["not_created"]] == [
        (SHARED, "ConfigurationError")
    ]
    assert "twice with different fields" in response["not_created"][0]["reason"]


def test_export_that_is_no_longer_configured_is_missing_with_that_reason(new_harness: HarnessFactory) -> None:
    harness = new_harness(shared_with(["user_id"], ["email"]))
    harness.begin_failed_run()
    harness.configuration = configuration_of(auth0_source({"dataset": "organizations"}))

    response = harness.creator.repair(RUN)

    (failure,) = response["not_created"]
    assert failure["export_id"] == SHARED
    assert "the configuration no longer contains it" in failure["reason"]


def test_export_of_a_removed_source_is_missing_with_that_reason(new_harness: HarnessFactory) -> None:
    harness = new_harness(auth0_source({"dataset": "users", "organization_id": "org_0000000000000009"}))
    harness.begin_failed_run()
    harness.configuration = configuration_of(cybozu_source({"dataset": "users"}))

    (failure,) = harness.creator.repair(RUN)["not_created"]

    assert "the configuration no longer contains it" in failure["reason"]


def test_run_is_complete_if_the_connections_of_a_refused_organization_are_archived(
    new_harness: HarnessFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: an organization without connections, and an export of a connection that is enabled for it later
    harness = new_harness(
        auth0_source(
            {"dataset": "users", "connection_id": "con_0000000000000009"},
            {"dataset": "users", "organization_id": "org_0000000000000009"},
        )
    )
    harness.creator.begin(TICK)
    archive(harness, planned(harness)[0])
    assert finished(harness, 1)["complete"] is False
    monkeypatch.setitem(ORGANIZATIONS, "org_0000000000000009", ["con_0000000000000009"])

    response = harness.creator.repair(RUN)

    assert (response["status"], response["exports"]) == ("started", 0)
    assert finished(harness, 2)["complete"] is True
    assert harness.creator.repair(RUN)["status"] == "complete"


def test_connection_archived_with_other_fields_does_not_hide_a_refused_export(
    new_harness: HarnessFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = new_harness(
        auth0_source(
            {"dataset": "users", "connection_id": "con_0000000000000009", "fields": ["email"]},
            {"dataset": "users", "organization_id": "org_0000000000000009", "fields": ["user_id"]},
        )
    )
    harness.creator.begin(TICK)
    archive(harness, planned(harness)[0])
    harness.workflow.executions[RUN, 1] = "FAILED"
    monkeypatch.setitem(ORGANIZATIONS, "org_0000000000000009", ["con_0000000000000009"])

    (failure,) = harness.creator.repair(RUN)["not_created"]

    assert failure["export_id"] == "acme/users/ndjson/org_0000000000000009"
    assert "twice with different fields" in failure["reason"]


def test_refused_organizations_are_resolved_once_each(new_harness: HarnessFactory) -> None:
    names = [f"org_{number:016d}" for number in range(3, 9)]
    harness = new_harness(auth0_source(*({"dataset": "users", "organization_id": name} for name in names)))
    harness.begin_failed_run()
    calls: list[None] = []
    harness.providers.wait = lambda: calls.append(None)

    harness.creator.repair(RUN)

    assert len(calls) == len(names)


def test_plan_is_read_as_it_was_written(harness: ExportsHarness) -> None:
    harness.creator.begin(TICK)
    document = harness.storage.read_json(PLAN)

    assert Plan.from_json(document, "plan").to_json() == document


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
def test_malformed_plan_is_an_event_error(harness: ExportsHarness, change: dict[str, Any]) -> None:
    harness.creator.begin(TICK)
    document = harness.storage.read_json(PLAN)
    assert document is not None

    with pytest.raises(EventError, match="plan"):
        Plan.from_json({**document, **change}, "plan")
