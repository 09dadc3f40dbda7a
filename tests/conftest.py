"""Settings that all tests share."""

from __future__ import annotations

import pytest
from _pytest.nodeid import NodeId
from hypothesis import HealthCheck, settings

# CI machines are shared and sometimes slow, so a slow example is not a failure. No other check is relaxed.
settings.register_profile("meibo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("meibo")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Append the xdist_group of each test to its id, by which pytest-xdist sends a group to the same worker.

    pytest-xdist 3.8 does this with an attribute that pytest 9.2 has removed.
    """
    if not config.getoption("loadgroup", default=False):
        return
    for item in items:
        group = item.get_closest_marker("xdist_group")
        if group is not None:
            item._id = NodeId.parse(f"{item.nodeid}@{group.args[0]}")
