"""Every call that a verification of the archive makes to the outside, and the function gone before or after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fault_injection.kill_points import Counted, Killer, Point, summary, tried
from tests.fault_injection.system import WholeSystem, world

pytestmark = [
    pytest.mark.timeout(1200),
    # What vanishes closes nothing.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:No application metrics to publish"),
]

# The schedule invokes asynchronously, and Lambda repeats that twice (the template's MaximumRetryAttempts).
DELIVERIES = 3


@pytest.fixture(scope="module")
def everything() -> Iterator[WholeSystem]:
    """Serve an archive of two runs, in one of which lies what no manifest names."""
    with world(users=30, organizations=1, cybozu_users=5) as running:
        running.configure([{"dataset": "organizations"}], [{"dataset": "users", "format": "csv"}])
        run_ids = [running.run() for _ in range(2)]
        (folder,) = {
            key.rpartition("/")[0] for key in running.aws.keys("archive/provider=cybozu/") if run_ids[0] in key
        }
        running.aws.write(f"{folder}/stray.csv", b"1,2\n")
        running.service.cold = True
        yield running


def _records(everything: WholeSystem) -> list[dict[str, Any]]:
    records = [everything.aws.read_json(key) for key in everything.aws.keys("verifications/")]
    return [{name: value for name, value in record.items() if name != "at"} for record in records]


def _verify(everything: WholeSystem) -> int:
    """Let the schedule invoke the function as often as Lambda repeats it; return how often it took."""
    for delivery in range(1, DELIVERIES + 1):
        if not everything.invoke("VerifyArchive").failed:
            return delivery
    raise AssertionError("the verification never ended")


def _forget_records(everything: WholeSystem) -> None:
    everything.forget("verifications/")
    everything.watch = None


def test_a_verification_ends_wherever_the_function_vanishes(
    everything: WholeSystem, tell: Callable[[str], None]
) -> None:
    # given: a verification that nothing disturbs, and every call that it makes
    archive = everything.versions("archive/") + everything.versions("runs/")
    everything.watch = counted = Counted()
    _verify(everything)
    (expected,) = _records(everything)
    assert (expected["runs"], expected["exports"], expected["damaged"], expected["unchecked"]) == (2, 4, 1, 0)
    assert counted.services().keys() == {"s3"}

    def attempt(point: Point, killer: Killer) -> None:
        _forget_records(everything)
        everything.watch = killer
        # when
        deliveries = _verify(everything)
        # then: what was told is right each time, nothing was written over, and the archive is what it was
        assert deliveries == 2
        records = _records(everything)
        assert 1 <= len(records) <= deliveries
        assert all(record == expected for record in records)
        assert everything.overwritten() == []
        assert everything.versions("archive/") + everything.versions("runs/") == archive

    failures = tried(counted.points(), attempt)

    tell(summary("a verification", counted, failures))
    assert not failures, "\n".join(failures)
