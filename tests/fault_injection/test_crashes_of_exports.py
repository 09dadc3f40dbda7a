"""Every call that a run makes to the outside, and the function gone before or after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import pytest

from meibo_simulators import FIRST_CONNECTION
from tests.fault_injection.kill_points import Counted, Killer, Point, summary, tried
from tests.fault_injection.system import Archived, WholeSystem, world

pytestmark = [
    pytest.mark.timeout(1200),
    # What vanishes closes nothing.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:No application metrics to publish"),
]

# How AWS speaks of an invocation that ended without an answer.
LAST_WORDS = ("Sandbox.Timedout", "Runtime.ExitError", "Lambda.Unknown")
# What a manifest cannot tell of an object whose reader vanished between the object and its manifest.
KNOWN_TO_THE_READER = {"pages", "duplicates_dropped", "skipped"}

Exports = tuple[list[dict[str, Any]], list[dict[str, Any]]]
PLANS: dict[str, Exports] = {
    "a job": ([{"dataset": "users", "connection_id": FIRST_CONNECTION}], []),
    "parts": ([{"dataset": "members"}], []),
    "a stream": ([], [{"dataset": "users", "format": "csv"}]),
    "pages": ([], [{"dataset": "users", "format": "ndjson"}]),
    # The other datasets of a domain: lists by pages and as files, and who belongs to what.
    "lists": ([], [{"dataset": "organizations"}, {"dataset": "groups", "format": "ndjson"}]),
    "belongings": ([], [{"dataset": "user_services"}, {"dataset": "members", "format": "ndjson"}]),
}
# What every run speaks to; a kind of call that was not seen would be a kind that was not tried.
SERVICES = {"HTTP", "events", "s3", "secretsmanager", "ssm", "stepfunctions"}


@pytest.fixture(scope="module")
def everything() -> Iterator[WholeSystem]:
    with world(users=120, organizations=2, cybozu_users=110, cybozu_organizations=2, cybozu_groups=2) as running:
        running.tenant.switches.polls_until_completed = 1
        running.service.cold = True
        yield running


def _like(found: dict[str, Archived], expected: dict[str, Archived], everything: WholeSystem) -> None:
    assert found.keys() == expected.keys()
    for export_id, archived in found.items():
        content = dict(expected[export_id].content)
        if archived.manifest["archived"]["read_back"]:
            content = {name: told for name, told in content.items() if name not in KNOWN_TO_THE_READER}
        assert archived.content == content, f"the manifest of {export_id} tells something else"
        assert archived.manifest["sanity"] == expected[export_id].manifest["sanity"]
        job = archived.manifest["job"]
        if job is None:
            assert archived.body == expected[export_id].body
        else:
            assert archived.manifest["object"]["sha256"] == everything.tenant.expected_file(job["id"]).sha256


def _no_upload_is_left_but_that_of_the_dead(everything: WholeSystem, killer: Killer) -> None:
    # A lifecycle rule of the bucket ends what a vanished function began; who lives clears up after himself.
    assert everything.aws.unfinished_uploads() <= killer.uploads


@pytest.mark.parametrize("plan", PLANS)
def test_a_run_is_complete_wherever_a_function_vanishes(
    everything: WholeSystem, plan: str, tell: Callable[[str], None]
) -> None:
    # given: a run that nothing disturbs, and every call that it makes
    everything.empty()
    everything.configure(*PLANS[plan])
    everything.watch = counted = Counted()
    run_id = everything.run()
    expected = everything.archived()
    assert everything.run_manifest(run_id)["complete"] is True
    assert everything.aws.unfinished_uploads() == 0
    assert counted.services().keys() == SERVICES
    last_words = cycle(LAST_WORDS)

    def attempt(point: Point, killer: Killer) -> None:
        everything.empty()
        everything.service.last_words = next(last_words)
        everything.watch = killer
        # when
        run_id = everything.run()
        # then
        status = everything.wait(run_id, 1)
        assert status == "SUCCEEDED", f"the execution ended as {status} after {everything.service.last_words}"
        manifest = everything.run_manifest(run_id)
        assert manifest["complete"] is True, manifest["missing"]
        _like(everything.archived(), expected, everything)
        assert {one["export_id"] for one in manifest["exports"]} == set(expected)
        _no_upload_is_left_but_that_of_the_dead(everything, killer)

    failures = tried(counted.points(), attempt)

    tell(summary(f"a run of {plan}", counted, failures))
    assert not failures, "\n".join(failures)


def test_a_repair_is_complete_wherever_a_function_vanishes(
    everything: WholeSystem, tell: Callable[[str], None]
) -> None:
    # given: runs that lack one of two exports, because a password is wrong
    exports: Exports = ([{"dataset": "organizations"}], [{"dataset": "users", "format": "csv"}])
    wrong: dict[str, Any] = {"meibo/example": {"login": "Administrator", "password": "wrong"}}

    def incomplete() -> str:
        everything.empty()
        everything.configure(*exports, **wrong)
        run_id = everything.run()
        assert everything.run_manifest(run_id)["complete"] is False
        assert everything.aws.unfinished_uploads() == 0
        everything.configure(*exports)
        return run_id

    def repaired(run_id: str) -> None:
        # Who repairs by hand does it again until he is told that it runs, or that nothing is missing.
        for _ in range(2):
            outcome = everything.aws.invoke({"run_id": run_id, "repair": True})
            if not outcome.failed:
                break
        assert outcome.payload["attempt"] == 2, outcome.payload
        assert everything.wait(run_id, 2) == "SUCCEEDED"
        assert everything.run_manifest(run_id, 2)["complete"] is True

    run_id = incomplete()
    everything.watch = counted = Counted()
    repaired(run_id)
    expected = everything.archived()

    def attempt(point: Point, killer: Killer) -> None:
        run_id = incomplete()
        everything.service.last_words = next(last_words)
        everything.watch = killer
        # when
        repaired(run_id)
        # then
        _like(everything.archived(), expected, everything)
        _no_upload_is_left_but_that_of_the_dead(everything, killer)

    last_words = cycle(LAST_WORDS)
    failures = tried(counted.points(), attempt)

    tell(summary("a repair", counted, failures))
    assert not failures, "\n".join(failures)
