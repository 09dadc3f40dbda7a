"""The time that simulators live by; tests and benchmarks put their own in its place."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Seconds since the epoch. A fake one lets hours of rate limits pass in a test's milliseconds."""

    def __call__(self) -> float: ...  # pragma: no cover - a signature


SYSTEM_CLOCK: Clock = time.time


def timestamp(seconds: float) -> str:
    """Return a time as Auth0 prints it: ``2023-01-25T17:48:15.325Z``."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
