"""The clock of the simulators; tests and benchmarks replace it with their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A function that returns the seconds since the epoch. With a fake clock, tests need not wait for rate limits."""

    def __call__(self) -> float: ...  # pragma: no cover - a signature


SYSTEM_CLOCK: Clock = time.time


def timestamp(seconds: float) -> str:
    """Return a time in Auth0's format: ``2023-01-25T17:48:15.325Z``."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
