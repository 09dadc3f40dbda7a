from __future__ import annotations

import pytest

from meibo_simulators import SimulatedTenant
from tests.support.changes import ChangeQueueHarness


@pytest.fixture
def harness() -> ChangeQueueHarness:
    return ChangeQueueHarness(SimulatedTenant("acme", users=200, organizations=5, members=0))


@pytest.fixture
def user_ids(harness: ChangeQueueHarness) -> list[str]:
    return [user["user_id"] for user in harness.tenant.expected_users()]
