"""Checks of a source before a run: credentials, connection, permissions, ids, and the expected duration.

``Provider.checks`` returns the checks of a source; ``meibo check`` runs them. A check only reads from the provider.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Final, TypeVar

from meibo.formatting import format_count, format_duration

T = TypeVar("T")

# Names of checks that all providers have.
CREDENTIALS: Final = "credentials"
CONNECTION: Final = "DNS and TLS"
EXPECTED_RUN: Final = "expected run"


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of a successful check.

    With ``warning`` a run would succeed, but ``detail`` states what to change. ``requests`` and ``seconds`` are the
    number of requests that a run sends to the source, and their duration.
    """

    detail: str = ""
    warning: bool = False
    requests: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Check:
    """A check of a source.

    ``run`` raises a MeiboError whose message states what to change. It is not called if a check in ``requires`` failed.
    """

    name: str
    run: Callable[[], CheckResult]
    requires: tuple[str, ...] = ()


@dataclass
class Latency:
    """The duration of the requests of the checks, from which the duration of a run is estimated."""

    _seconds: list[float] = field(default_factory=list)

    def measure(self, request: Callable[[], T]) -> T:
        """Send a request and record its duration."""
        start = time.perf_counter()
        try:
            return request()
        finally:
            self._seconds.append(time.perf_counter() - start)

    @property
    def seconds(self) -> float:
        """The median duration, which excludes the few requests that waited for a rate limit."""
        return median(self._seconds) if self._seconds else 0.0


def expected_run(requests: int, seconds: float, remark: str = "", *, at_least: bool = False) -> CheckResult:
    """Return the result of the check of the expected duration of a run."""
    duration = format_duration(round_duration(seconds))
    detail = f"{'at least ' if at_least else ''}{format_count(requests, 'request')}, about {duration}{remark}"
    return CheckResult(detail=detail, requests=requests, seconds=seconds)


def round_duration(seconds: float) -> int:
    """Return a duration of at least a second, rounded up to minutes from two minutes."""
    return max(1, -int(-seconds // 1)) if seconds < 120 else -int(-seconds // 60) * 60
