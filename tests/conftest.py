"""Settings that all tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from _pytest.nodeid import NodeId
from hypothesis import HealthCheck, settings
from werkzeug.routing import Rule

# CI machines are shared and sometimes slow, so a slow example is not a failure. No other check is relaxed.
settings.register_profile("meibo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("meibo")

_compile_builder = Rule._compile_builder


def _compile_builder_on_use(rule: Rule, append_unknown: bool = True) -> Callable[..., Any]:
    """Compile the function that builds a route's URL when it is called.

    werkzeug compiles two such functions per route, which is most of the time in which a simulator starts.
    """

    def build(*arguments: Any) -> Any:
        return _compile_builder(rule, append_unknown)(*arguments)

    return build


Rule._compile_builder = _compile_builder_on_use  # type: ignore[method-assign, assignment]  # the bound method of the stubs


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
