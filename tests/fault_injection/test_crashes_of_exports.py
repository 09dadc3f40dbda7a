"""Kill a function before and after each external call of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import pytest

from meibo_simulators import FIRST_CONNECTION
from tests.fault_injection.kill_points import CallCounter, CallSite, Killer, kill_at_every_point
from tests.fault_injection.system import VerifiedExport, WholeSystem, start_system

pytestmark = [
    pytest.mark.timeout(1200),
    # A killed invocation does not close its connections.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:No application metrics to publish"),
]

# The errors that AWS reports for an invocation without a response.
SANDBOX_ERRORS = ("Sandbox.Timedout", "Runtime.ExitError", "Lambda.Unknown")
# The manifest lacks these fields if the function was killed after it wrote the object and before it wrote the manifest.
KNOWN_ONLY_WHILE_COPYING = {"pages", "duplicates_dropped", "skipped"}

Exports = tuple[list[dict[str, Any]], list[dict[str, Any]]]
PLANS: dict[str, Exports] = {
    "a job": ([{"dataset": "users", "connection_id": FIRST_CONNECTION}], []),
    "parts": ([{"dataset": "members"}], []),
    "a stream": ([], [{"dataset": "users", "format": "csv"}]),
    "pages": ([], [{"dataset": "users", "format": "ndjson"}]),
    # The other datasets of a domain: lists as pages and as files, and memberships.
    "lists": ([], [{"dataset": "organizations"}, {"dataset": "groups", "format": "ndjson"}]),
    "memberships": ([], [{"dataset": "user_services"}, {"dataset": "members", "format": "ndjson"}]),
}
# The services that every run calls. A service that is missing here would not be tested.
SERVICES = {"HTTP", "events", "s3", "secretsmanager", "ssm", "stepfunctions"}
# Functions whose code does not depend on the provider or the dataset, except that CreateExports creates jobs.
GENERAL_FUNCTIONS = ("CreateExports", "FinishRun")


@pytest.fixture(scope="module")
def system() -> Iterator[WholeSystem]:
    with start_system(users=120, organizations=2, cybozu_users=110, cybozu_organizations=2, cybozu_groups=2) as running:
        running.tenant.switches.polls_until_completed = 1
        running.service.cold = True
        yield running


@dataclass
class UndisturbedRuns:
    """The calls and the archived exports of a run of each plan."""

    system: WholeSystem
    runs: dict[str, tuple[CallCounter, dict[str, VerifiedExport]]] = field(default_factory=dict)

    def run(self, plan: str) -> tuple[CallCounter, dict[str, VerifiedExport]]:
        """Run the plan once and return the calls and the exports."""
        system = self.system
        if plan not in self.runs:
            system.reset()
            system.configure_exports(*PLANS[plan])
            system.observer = counter = CallCounter(system.stored)
            run_id = system.run()
            assert system.run_manifest(run_id)["complete"] is True
            assert system.aws.unfinished_uploads() == 0
            assert counter.services().keys() == SERVICES
            self.runs[plan] = counter, system.archived()
        return self.runs[plan]

    def tested(self, plan: str) -> set[CallSite]:
        """Return the calls of GENERAL_FUNCTIONS in the runs of earlier plans."""
        earlier = list(PLANS)[: list(PLANS).index(plan)]
        sites = (site for other in earlier for site in self.run(other)[0].sites)
        return {site for site in sites if site.function in GENERAL_FUNCTIONS}


@pytest.fixture(scope="module")
def undisturbed(system: WholeSystem) -> UndisturbedRuns:
    return UndisturbedRuns(system)


def _assert_same_content(
    exports: dict[str, VerifiedExport], expected: dict[str, VerifiedExport], system: WholeSystem
) -> None:
    assert exports.keys() == expected.keys()
    for export_id, archived in exports.items():
        content = dict(expected[export_id].content)
        if archived.manifest["archived"]["read_back"]:
            content = {name: value for name, value in content.items() if name not in KNOWN_ONLY_WHILE_COPYING}
        assert archived.content == content, f"the manifest of {export_id} has other content"
        assert archived.manifest["sanity"] == expected[export_id].manifest["sanity"]
        job = archived.manifest["job"]
        if job is None:
            assert archived.body == expected[export_id].body
        else:
            assert archived.manifest["object"]["sha256"] == system.tenant.expected_file(job["id"]).sha256


def _assert_no_upload_of_a_live_invocation(system: WholeSystem, killer: Killer) -> None:
    # A lifecycle rule of the bucket aborts the uploads of a killed function. The functions abort all other uploads.
    assert system.aws.unfinished_uploads() <= killer.uploads


@pytest.mark.parametrize("plan", PLANS)
def test_run_is_complete_when_a_function_is_killed_at_any_call(
    system: WholeSystem, undisturbed: UndisturbedRuns, plan: str, report_line: Callable[[str], None]
) -> None:
    # given: the calls of an undisturbed run
    counter, expected = undisturbed.run(plan)
    tested = undisturbed.tested(plan)
    system.configure_exports(*PLANS[plan])
    sandbox_error = cycle(SANDBOX_ERRORS)

    def attempt(killer: Killer) -> None:
        system.reset()
        system.service.sandbox_error = next(sandbox_error)
        system.observer = killer
        run_id = system.run()
        status = system.wait(run_id, 1)
        assert status == "SUCCEEDED", f"the execution ended as {status} after {system.service.sandbox_error}"
        manifest = system.run_manifest(run_id)
        assert manifest["complete"] is True, manifest["missing"]
        _assert_same_content(system.archived(), expected, system)
        assert {export["export_id"] for export in manifest["exports"]} == set(expected)
        _assert_no_upload_of_a_live_invocation(system, killer)

    kill_at_every_point(f"a run of {plan}", counter, attempt, report_line, tested=tested)


def test_repair_is_complete_when_a_function_is_killed_at_any_call(
    system: WholeSystem, report_line: Callable[[str], None]
) -> None:
    # given: a run without one of two exports, because of a wrong password
    exports: Exports = ([{"dataset": "organizations"}], [{"dataset": "users", "format": "csv"}])
    wrong: dict[str, Any] = {"meibo/example": {"login": "Administrator", "password": "wrong"}}
    system.reset()
    system.configure_exports(*exports, **wrong)
    run_id = system.run()
    assert system.run_manifest(run_id)["complete"] is False
    assert system.aws.unfinished_uploads() == 0
    system.configure_exports(*exports)
    incomplete = system.snapshot()

    def repaired() -> None:
        # An operator repeats a repair that failed.
        for _ in range(2):
            outcome = system.aws.invoke({"run_id": run_id, "repair": True})
            if not outcome.failed:
                break
        assert outcome.payload["attempt"] == 2, outcome.payload
        assert system.wait(run_id, 2) == "SUCCEEDED"
        assert system.run_manifest(run_id, 2)["complete"] is True

    system.observer = counter = CallCounter()
    repaired()
    expected = system.archived()

    def attempt(killer: Killer) -> None:
        system.reset()
        system.restore(incomplete)
        system.service.sandbox_error = next(sandbox_error)
        system.observer = killer
        repaired()
        _assert_same_content(system.archived(), expected, system)
        _assert_no_upload_of_a_live_invocation(system, killer)

    sandbox_error = cycle(SANDBOX_ERRORS)
    kill_at_every_point("a repair", counter, attempt, report_line)
