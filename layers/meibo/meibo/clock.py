"""The clock, and the remaining time of an invocation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

# Returns the seconds until the timeout of the invocation.
TimeLeft = Callable[[], float]


class Clock(Protocol):
    """A clock that returns the seconds since 1970."""

    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def time_left(context: Any) -> TimeLeft:
    """Return a function that returns the remaining time of the invocation with this Lambda context, in seconds."""
    return lambda: context.get_remaining_time_in_millis() / 1000
