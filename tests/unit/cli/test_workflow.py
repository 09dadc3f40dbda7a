"""The workflow that runs in one process behaves like the state machine."""

from __future__ import annotations

import errno
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from meibo import errors
from meibo.archive.keys import plan_key, run_manifest_key
from meibo.errors import (
    AwsBusyError,
    CopyBrokenError,
    CredentialsRefusedError,
    JobGoneError,
    JobsExhaustedError,
    MeiboError,
    OutOfTimeError,
    ProviderBusyError,
    SourceChangedError,
)
from meibo.exports.events import CaughtError, ExportEvent
from meibo.exports.plan import ExportJob, PlannedExport, UnresolvedExport
from meibo_cli.workflow import RETRIES, Execution, LocalWorkflow, Retry
from tests.support.memory_archive import MemoryStorage

RUN = "20261121T180000Z"
DEFINITION = json.loads((Path(__file__).parents[3] / "statemachines" / "export.asl.json").read_text(encoding="utf-8"))
EXPORT_STATES = DEFINITION["States"]["Exports"]["ItemProcessor"]["States"]
TASKS = {name: state for name, state in {**DEFINITION["States"], **EXPORT_STATES}.items() if state["Type"] == "Task"}


# -- The definition of the retries


def retries_of_state(state: dict[str, Any]) -> dict[str, Retry]:
    """Return the retries of Meibo's own errors in a state of the state machine."""
    return {
        name: Retry(
            interval_seconds=retrier["IntervalSeconds"],
            max_attempts=retrier["MaxAttempts"],
            backoff_rate=retrier["BackoffRate"],
            max_delay_seconds=retrier.get("MaxDelaySeconds"),
            jitter=retrier.get("JitterStrategy") == "FULL",
        )
        for retrier in state["Retry"]
        for name in retrier["ErrorEquals"]
        if hasattr(errors, name)
    }


@pytest.mark.parametrize("name", sorted(TASKS))
def test_retries_are_those_of_the_state_machine(name: str) -> None:
    assert {error.__name__: retry for error, retry in RETRIES[name].items()} == retries_of_state(TASKS[name])


def test_every_task_has_retries() -> None:
    assert RETRIES.keys() == TASKS.keys()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_errors_share_their_attempts_as_in_the_state_machine(name: str) -> None:
    together = [
        {error for error in retrier["ErrorEquals"] if hasattr(errors, error)} for retrier in TASKS[name]["Retry"]
    ]

    for errors_of_retrier in filter(None, together):
        retries = {retry for error, retry in RETRIES[name].items() if error.__name__ in errors_of_retrier}
        others = {retry for error, retry in RETRIES[name].items() if error.__name__ not in errors_of_retrier}
        assert len(retries) == 1
        assert retries.isdisjoint(others)


def test_only_a_gone_job_is_caught_other_than_by_recording_the_failure() -> None:
    caught = {
        (name, error, catcher["Next"])
        for name, state in EXPORT_STATES.items()
        for catcher in state.get("Catch", ())
        for error in catcher["ErrorEquals"]
        if error != "States.ALL"
    }

    assert caught == {("ArchiveExport", "JobGoneError", "CreateExport")}


def test_delay_grows_to_its_maximum_with_full_jitter() -> None:
    retry = Retry(5, 50, max_delay_seconds=300)

    for retries, ceiling in ((0, 5), (1, 10), (5, 160), (6, 300), (40, 300)):
        delays = [retry.delay(retries) for _ in range(200)]
        assert 0 <= min(delays) < ceiling / 2 < max(delays) <= ceiling
    assert Retry(1, 4, backoff_rate=1, jitter=False).delay(3) == 1


# -- The states


def planned(name: str = "users", *, has_job: bool = True, **values: Any) -> PlannedExport:
    return PlannedExport(
        request={},
        provider="auth0",
        source="acme",
        dataset=name,
        format="ndjson",
        scope="all",
        endpoint="acme.jp.auth0.com",
        secret="meibo/acme",
        has_job=has_job,
        **values,
    )


PAGES = planned("members", has_job=False)
Step = Mapping[str, Any] | Exception


@dataclass
class FakeFunctions:
    """Functions that return or raise their results in order, and repeat the last result."""

    checks: list[Step] = field(default_factory=lambda: [{"status": "ready", "wait_seconds": 1}])
    archives: list[Step] = field(
        default_factory=lambda: [{"status": "archived", "rows": 3, "bytes": 5, "verdict": "ok"}]
    )
    creates: list[Step] = field(default_factory=lambda: [{}])
    records: list[Step] = field(default_factory=lambda: [{}])
    finishes: list[Step] = field(default_factory=lambda: [{"complete": True}])
    calls: list[str] = field(default_factory=list)
    events: list[ExportEvent] = field(default_factory=list)
    failures: list[tuple[str, CaughtError]] = field(default_factory=list)

    def create(self, export: PlannedExport) -> dict[str, Any]:
        self._next("create", self.creates)
        number = export.job.number + 1 if export.job else 1
        job = ExportJob(id=f"job_{number}", created_at=datetime(2026, 11, 21, 18, tzinfo=UTC), number=number)
        return export.with_job(job).to_json()

    def check(self, export: PlannedExport) -> dict[str, Any]:
        assert export.job is not None
        return self._next(f"check {export.job.id}", self.checks)

    def archive(self, event: ExportEvent) -> dict[str, Any]:
        self.events.append(event)
        return self._next("archive", self.archives)

    def record_failure(self, run_id: str, attempt: int, export: PlannedExport, error: CaughtError) -> dict[str, Any]:
        result = self._next("record", self.records)
        self.failures.append((export.export_id, error))
        return result

    def finish(self, run_id: str, attempt: int) -> dict[str, Any]:
        return self._next("finish", self.finishes)

    def _next(self, call: str, results: list[Step]) -> dict[str, Any]:
        self.calls.append(call)
        result = results.pop(0) if len(results) > 1 else results[0]
        if isinstance(result, Exception):
            raise result
        return dict(result)


@dataclass
class Executed:
    result: dict[str, Any]
    waits: list[float]
    states: list[str]


def execute(
    functions: FakeFunctions,
    *exports: PlannedExport,
    stopped: threading.Event | None = None,
    wait: Callable[[float], object] | None = None,
) -> Executed:
    waits: list[float] = []
    states: list[str] = []
    execution = Execution(
        run_id=RUN,
        attempt=1,
        functions=functions,
        jobs=2,
        stopped=stopped or threading.Event(),
        change=lambda _export_id, state, **_values: states.append(state),
        wait=wait or waits.append,
    )
    return Executed(execution.run(exports), waits, states)


def test_export_with_a_job_is_created_checked_and_archived() -> None:
    functions = FakeFunctions(checks=[{"status": "pending", "wait_seconds": 7}, {"status": "ready", "wait_seconds": 1}])

    executed = execute(functions, planned())

    assert functions.calls == ["create", "check job_1", "check job_1", "archive", "finish"]
    assert executed.waits == [7]
    assert executed.states == ["creating the job", "job pending", "job pending", "copying", "archived"]
    assert executed.result == {"complete": True}


def test_job_of_the_plan_is_not_created_again() -> None:
    functions = FakeFunctions()
    job = ExportJob(id="job_9", created_at=datetime(2026, 11, 21, 18, tzinfo=UTC), number=1)

    execute(functions, planned(job=job))

    assert functions.calls == ["check job_9", "archive", "finish"]


def test_export_without_a_job_is_archived_at_once_and_continued_with_its_progress() -> None:
    progress = {
        "part": 1,
        "rows": 10,
        "organizations": 2,
        "skipped": 0,
        "moved_at": "2026-11-21T18:00:00+00:00",
    }
    functions = FakeFunctions(
        archives=[
            {"status": "continue", "wait_seconds": 60, "progress": progress},
            {"status": "archived", "rows": 20, "bytes": 5, "verdict": "suspect"},
        ]
    )

    executed = execute(functions, PAGES)

    assert functions.calls == ["archive", "archive", "finish"]
    assert [event.progress and event.progress.to_json() for event in functions.events] == [None, progress]
    assert executed.waits == [60]
    assert executed.states == ["copying", "waiting for rate limits", "copying", "suspect"]


@pytest.mark.parametrize("gone", ["check", "archive"])
def test_gone_job_is_replaced(gone: str) -> None:
    functions = FakeFunctions()
    if gone == "check":
        functions.checks.insert(0, {"status": "gone", "wait_seconds": 1})
    else:
        functions.archives.insert(0, JobGoneError("gone"))

    execute(functions, planned())

    assert functions.failures == []
    assert functions.calls[0] == "create"
    assert functions.calls[-4:] == ["create", "check job_2", "archive", "finish"]


def test_fatal_error_is_recorded_and_the_other_exports_are_archived() -> None:
    functions = FakeFunctions(creates=[CredentialsRefusedError("rejected")])

    executed = execute(functions, planned(), PAGES)

    assert functions.failures == [("acme/users/ndjson/all", CaughtError("CredentialsRefusedError", "rejected"))]
    assert sorted(functions.calls) == ["archive", "create", "finish", "record"]
    assert sorted(executed.states)[:2] == ["archived", "copying"]


def test_exhausted_jobs_are_recorded() -> None:
    functions = FakeFunctions(
        archives=[JobGoneError("gone")], creates=[{}, {}, {}, JobsExhaustedError("3 jobs were created")]
    )

    execute(functions, planned())

    assert functions.failures == [("acme/users/ndjson/all", CaughtError("JobsExhaustedError", "3 jobs were created"))]


def test_refused_export_is_recorded_without_a_call() -> None:
    functions = FakeFunctions()

    execute(functions, planned(refused=UnresolvedExport(error="SecretError", message="no secret")))

    assert functions.calls == ["record", "finish"]
    assert functions.failures == [("acme/users/ndjson/all", CaughtError("SecretError", "no secret"))]


@pytest.mark.parametrize(
    ("error", "retries"),
    [(ProviderBusyError, 8), (AwsBusyError, 50), (CopyBrokenError, 4), (OutOfTimeError, 4), (KeyError, 2)],
)
def test_error_is_retried_as_often_as_the_state_machine_does(error: type[Exception], retries: int) -> None:
    functions = FakeFunctions(archives=[error("failed")])

    executed = execute(functions, PAGES)

    assert functions.calls == ["archive"] * (retries + 1) + ["record", "finish"]
    assert len(executed.waits) == retries
    ((_, recorded),) = functions.failures
    assert recorded.name == (error.__name__ if issubclass(error, MeiboError) else "UnexpectedError")


def test_errors_of_one_retrier_share_their_attempts_and_others_do_not() -> None:
    functions = FakeFunctions(
        archives=[
            CopyBrokenError("a"),
            SourceChangedError("b"),
            ProviderBusyError("c"),
            CopyBrokenError("d"),
            SourceChangedError("e"),
            CopyBrokenError("f"),
        ]
    )

    execute(functions, PAGES)

    assert functions.calls == ["archive"] * 6 + ["record", "finish"]
    assert functions.failures[0][1] == CaughtError("CopyBrokenError", "f")


def test_message_of_an_unexpected_error_is_withheld() -> None:
    functions = FakeFunctions(archives=[KeyError("user@example.com")])

    execute(functions, PAGES)

    ((_, recorded),) = functions.failures
    assert re.fullmatch(r"KeyError at test_workflow\.py:\d+; see the function's log .*", recorded.cause or "")


def test_failure_that_cannot_be_recorded_does_not_stop_the_run() -> None:
    functions = FakeFunctions(archives=[CredentialsRefusedError("rejected")], records=[AwsBusyError("busy")])

    executed = execute(functions, PAGES)

    assert executed.result == {"complete": True}
    assert functions.calls.count("record") == 51


def test_full_disk_stops_the_run() -> None:
    functions = FakeFunctions(archives=[OSError(errno.ENOSPC, "No space left on device", "archive/a")])

    with pytest.raises(OSError, match="No space left on device") as raised:
        execute(functions, *(PAGES for _ in range(20)))

    assert raised.value.filename == "archive/a"
    assert functions.calls.count("archive") <= 2
    assert "finish" not in functions.calls


def test_broken_connection_does_not_stop_the_run() -> None:
    functions = FakeFunctions(archives=[ConnectionResetError(errno.ECONNRESET, "reset")])

    execute(functions, PAGES)

    assert functions.calls == ["archive"] * 3 + ["record", "finish"]


def test_wait_ends_when_the_run_is_stopped() -> None:
    stopped = threading.Event()
    functions = FakeFunctions(archives=[ProviderBusyError("busy")])

    with pytest.raises(KeyboardInterrupt):
        execute(functions, PAGES, stopped=stopped, wait=lambda _seconds: stopped.set())

    assert functions.calls == ["archive"]


def test_exports_run_side_by_side() -> None:
    together = threading.Barrier(2, timeout=20)

    class Meeting(FakeFunctions):
        def archive(self, event: ExportEvent) -> dict[str, Any]:
            together.wait()
            return super().archive(event)

    functions = Meeting()

    execute(functions, PAGES, planned("organizations", has_job=False))

    assert functions.failures == []


# -- The status of attempts


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ([], "NEVER_STARTED"),
        ([plan_key(RUN, 1)], "ABORTED"),
        ([plan_key(RUN, 1), run_manifest_key(RUN, 1)], "SUCCEEDED"),
        ([plan_key(RUN, 2)], "NEVER_STARTED"),
    ],
)
def test_attempt_without_a_run_manifest_was_killed(keys: Sequence[str], status: str) -> None:
    storage = MemoryStorage()
    for key in keys:
        storage.put_json(key, {})

    assert LocalWorkflow(storage).status(RUN, 1) == status
