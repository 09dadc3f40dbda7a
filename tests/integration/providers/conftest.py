from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from meibo_simulators import SimulatedDomain, SimulatedTenant, Simulators
from tests.support.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Start at the machine's time, because certificates are validated with it."""
    return FakeClock(time.time())


@pytest.fixture
def simulators(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulators]:
    tenant = SimulatedTenant("acme", users=400, organizations=230, members=30)
    domain = SimulatedDomain("example", users=730, organizations=25, groups=8)
    with Simulators([tenant], [domain], clock=clock.now) as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def tenant(simulators: Simulators) -> SimulatedTenant:
    return simulators.auth0["acme"]


@pytest.fixture
def domain(simulators: Simulators) -> SimulatedDomain:
    return simulators.cybozu["example"]
