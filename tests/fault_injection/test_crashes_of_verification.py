"""Kill the function before and after each external call of a verification."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fault_injection.kill_points import CallCounter, Killer, kill_at_every_point
from tests.fault_injection.system import WholeSystem, start_system

pytestmark = [
    pytest.mark.timeout(1200),
    # A killed invocation does not close its connections.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:No application metrics to publish"),
]

# The schedule invokes the function asynchronously. Lambda retries twice (MaximumRetryAttempts in the template).
DELIVERIES = 3


@pytest.fixture(scope="module")
def system() -> Iterator[WholeSystem]:
    """An archive of two runs, one with an object that no manifest names."""
    with start_system(users=30, organizations=1, cybozu_users=5) as running:
        running.configure_exports([{"dataset": "organizations"}], [{"dataset": "users", "format": "csv"}])
        run_ids = [running.run() for _ in range(2)]
        (folder,) = {
            key.rpartition("/")[0] for key in running.aws.keys("archive/provider=cybozu/") if run_ids[0] in key
        }
        running.aws.write(f"{folder}/stray.csv", b"1,2\n")
        running.service.cold = True
        yield running


def _records(system: WholeSystem) -> list[dict[str, Any]]:
    records = [system.aws.read_json(key) for key in system.aws.keys("verifications/")]
    return [{name: value for name, value in record.items() if name != "at"} for record in records]


def _verify(system: WholeSystem) -> int:
    """Invoke the function with Lambda's retries, and return the number of deliveries."""
    for delivery in range(1, DELIVERIES + 1):
        if not system.invoke("VerifyArchive").failed:
            return delivery
    raise AssertionError(f"expected a successful verification, found {DELIVERIES} failed deliveries")


def _remove_records(system: WholeSystem) -> None:
    system.remove("verifications/")
    system.observer = None


def test_verification_ends_when_the_function_is_killed_at_any_call(
    system: WholeSystem, report_line: Callable[[str], None]
) -> None:
    # given: the calls of an undisturbed verification
    archive = system.versions("archive/") + system.versions("runs/")
    system.observer = counter = CallCounter()
    _verify(system)
    (expected,) = _records(system)
    assert (expected["runs"], expected["exports"], expected["damaged"], expected["unchecked"]) == (2, 4, 1, 0)
    assert counter.services().keys() == {"s3"}

    def attempt(killer: Killer) -> None:
        _remove_records(system)
        system.observer = killer
        deliveries = _verify(system)
        # then: every record is correct, no key was overwritten, and the archive is unchanged
        assert deliveries == 2
        records = _records(system)
        assert 1 <= len(records) <= deliveries
        assert all(record == expected for record in records)
        assert system.overwritten() == []
        assert system.versions("archive/") + system.versions("runs/") == archive

    kill_at_every_point("a verification", counter, attempt, report_line)
