"""A summary of the fault-injection tests at the end of the test run, including those of other processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_PROPERTY = "proof"


@pytest.fixture
def report_line(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Add a line to the summary of the test run."""
    return lambda line: record_property(_PROPERTY, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the summary."""
    lines = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        for name, value in getattr(report, "user_properties", ())
        if name == _PROPERTY
    ]
    if lines:
        terminalreporter.section("fault injection")
        for line in lines:
            terminalreporter.line(line)
