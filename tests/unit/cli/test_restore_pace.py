"""Restored memberships reach the rate limit of the tenant. ``make bench-restore`` measures 100,000 memberships."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.membership_restores import MembershipRestore, Pace


@pytest.mark.parametrize("role_interval", [3, 10])
@pytest.mark.parametrize("run", [MembershipRestore.through_queue, MembershipRestore.without_queue])
def test_memberships_are_restored_at_the_rate_limit(
    tmp_path: Path, run: Callable[[MembershipRestore], Pace], role_interval: int
) -> None:
    restore = MembershipRestore(tmp_path, memberships=6000, organizations=20, role_interval=role_interval)

    pace = run(restore)

    assert pace.share >= 0.95
    assert pace.refused == 0
    restore.check()
