"""Checks of a source before a run: credentials, connection, permissions, ids, and the expected duration.

``Provider.checks`` returns the checks of a source, and ``meibo check`` runs them. Checks only read data.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Final, TypeVar

from meibo.formatting import format_count, format_duration

T = TypeVar("T")

# The names of checks that all providers have.
CREDENTIALS: Final = "credentials"
CONNECTION: Final = "DNS and TLS"
EXPECTED_RUN: Final = "expected run"


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of a successful check.

    If ``warning`` is true, ``detail`` recommends a change, but a run would succeed without it. ``requests`` is the
    estimated number of requests that a run sends to the source, and ``seconds`` is their estimated duration.
    """

    detail: str = ""
    warning: bool = False
    requests: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Check:
    """A check of a source.

    If the check fails, ``run`` raises a MeiboError whose message describes the correction. ``run`` is not called if one
    of the checks in ``requires`` failed.
    """

    name: str
    run: Callable[[], CheckResult]
    requires: tuple[str, ...] = ()


@dataclass
class Latency:
    """The durations of requests, which are used to estimate the duration of a run."""

    _seconds: list[float] = field(default_factory=list)

    def measure(self, request: Callable[[], T]) -> T:
        """Send a request, record its duration, and return its result."""
        start = time.perf_counter()
        try:
            return request()
        finally:
            self._seconds.append(time.perf_counter() - start)

    @property
    def seconds(self) -> float:
        """The median duration in seconds, or 0 if no request was sent.

        The median is used because it is not affected by a few waits for rate limits.
        """
        return median(self._seconds) if self._seconds else 0.0


def expected_run(requests: int, seconds: float, remark: str = "", *, at_least: bool = False) -> CheckResult:
    """Return the result of the check ``EXPECTED_RUN``."""
    duration = format_duration(round_duration(seconds))
    detail = f"{'at least ' if at_least else ''}{format_count(requests, 'request')}, about {duration}{remark}"
    return CheckResult(detail=detail, requests=requests, seconds=seconds)


def round_duration(seconds: float) -> int:
    """Return a duration, rounded up to seconds if it is less than two minutes, otherwise to minutes."""
    return max(1, -int(-seconds // 1)) if seconds < 120 else -int(-seconds // 60) * 60
