from __future__ import annotations

import pytest

from local.simulators import Auth0Tenant
from tests.changes import World


@pytest.fixture
def world() -> World:
    return World(Auth0Tenant("acme", users=200, organizations=5, members=0))


@pytest.fixture
def people(world: World) -> list[str]:
    return [user["user_id"] for user in world.tenant.expected_users()]
