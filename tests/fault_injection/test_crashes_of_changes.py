"""Kill the function before and after each external call of a batch of membership changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.fault_injection.change_batch import ChangeBatch
from tests.fault_injection.kill_points import CallCounter, Killer, kill_at_every_point
from tests.fault_injection.system import start_system

pytestmark = [
    pytest.mark.timeout(1200),
    # A killed invocation does not close its connections.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def changes() -> Iterator[ChangeBatch]:
    with start_system(users=60, organizations=2, cybozu_users=1) as system:
        system.configure_exports([{"dataset": "users"}], [])
        yield ChangeBatch(system)


def test_no_change_is_lost_when_the_function_is_killed_at_any_call(
    changes: ChangeBatch, report_line: Callable[[str], None]
) -> None:
    # given: the calls of an undisturbed batch
    changes.reset()
    changes.system.observer = counter = CallCounter()
    changes.deliver()
    changes.check()
    assert counter.services().keys() == {"HTTP", "s3", "secretsmanager", "sqs", "ssm"}

    def attempt(killer: Killer) -> None:
        changes.reset()
        changes.system.observer = killer
        changes.deliver()
        changes.check()

    kill_at_every_point("a batch of changes", counter, attempt, report_line)
