"""What the proofs tell at the end of a test run, also from other processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_TOLD = "proof"


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say a line in the summary of the test run."""
    return lambda line: record_property(_TOLD, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the proofs told."""
    lines = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        for name, value in getattr(report, "user_properties", ())
        if name == _TOLD
    ]
    if lines:
        terminalreporter.section("proofs")
        for line in lines:
            terminalreporter.line(line)
