"""The whole system for a single test, and retries without waits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from meibo.archive.copy import CopyOptions
from meibo_simulators import SimulatedDomain, SimulatedTenant
from tests.support.stack import System, running_system


@pytest.fixture
def system() -> Iterator[System]:
    tenant = SimulatedTenant("acme", users=300)
    # Jobs are completed at once, so that tests do not wait for polls.
    tenant.switches.polls_until_completed = 0
    domain = SimulatedDomain("example", users=230)
    with running_system(tenant, domain) as running:
        yield running


@pytest.fixture
def no_retry_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the waits between retries of the workflow and the copy, without changing the number of retries."""
    monkeypatch.setattr(
        "meibo.exports.archive.CopyOptions", partial(CopyOptions, backoff_seconds=0.001, max_backoff_seconds=0.001)
    )
    monkeypatch.setattr(
        "moto.stepfunctions.parser.asl.component.common.retry.retrier_decl.time.sleep", lambda _seconds: None
    )
