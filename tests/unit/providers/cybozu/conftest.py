from __future__ import annotations

from collections.abc import Callable

import pytest

from meibo.providers.cybozu.client import CybozuClient, CybozuCredentials
from tests.support.clock import FakeClock
from tests.support.transport import Transport

MakeClient = Callable[..., CybozuClient]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cybozu() -> Transport:
    return Transport()


@pytest.fixture
def make_client(cybozu: Transport, clock: FakeClock) -> MakeClient:
    def make(credentials: CybozuCredentials | None = None, *, seconds: float | None = None) -> CybozuClient:
        return CybozuClient(
            "https://example.cybozu.com",
            credentials or CybozuCredentials("Administrator", "cybozu"),
            session=cybozu.session(),
            clock=clock,
            time_left=None if seconds is None else clock.deadline(seconds),
        )

    return make


@pytest.fixture
def client(make_client: MakeClient) -> CybozuClient:
    return make_client()
