"""How fast a provider may be asked, and how long to wait when it is busy.

A pacer learns a bucket's state from ``x-ratelimit-remaining`` and ``-reset`` and holds the next request back
*before* the provider has to answer 429. Time comes from a clock that tests replace.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from random import SystemRandom
from typing import Final, Protocol

from meibo.errors import ProviderBusyError

# Auth0 refills its buckets every second or every minute
# (https://auth0.com/docs/troubleshoot/customer-support/operational-policies/rate-limit-policy/rate-limit-use-cases),
# so a reset farther away than this is a wrong clock or a wrong header, and one request finds out.
MAX_TRUSTED_RESET_SECONDS: Final = 90.0
FIRST_BACKOFF_SECONDS: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 32.0
# Waiting inside a function is paid for, waiting in the workflow is not; after this long the workflow waits.
PATIENCE_SECONDS: Final = 300.0
# What an invocation needs after the last request to hand back its result.
RESERVE_SECONDS: Final = 5.0
# The Date header has whole seconds; more than this below the best estimate means that a clock was set.
CLOCK_STEP_SECONDS: Final = 3.0

_CHANCE: Final = SystemRandom()

Deadline = Callable[[], float]


class Clock(Protocol):
    """Tells the time in seconds since 1970 and lets it pass."""

    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass
class _Bucket:
    held_until: float = 0.0


class RateLimiter:
    """Keeps one provider's requests inside the limits that its answers tell.

    One per client; threads may share it. ``provider`` names the host in messages. ``headroom`` is how many
    requests are left to others who share the limit: where so many clients with that headroom run side by side,
    none takes the last request from another that has just seen it.
    """

    def __init__(
        self,
        provider: str,
        clock: Clock,
        *,
        deadline: Deadline | None = None,
        headroom: int = 0,
        jitter: Callable[[], float] = _CHANCE.random,
    ) -> None:
        self.provider = provider
        self.deadline = deadline
        self.waited = 0.0
        self._clock = clock
        self._headroom = headroom
        self._jitter = jitter
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()
        self._offset: float | None = None

    def seconds_left(self) -> float | None:
        """Return how long requests may still take, or None without a deadline."""
        return None if self.deadline is None else self.deadline() - RESERVE_SECONDS

    def provider_now(self) -> float:
        """Return the provider's time as far as its Date headers told it, never ahead of it."""
        return self._clock.now() + (self._offset or 0.0)

    def wait_for_turn(self, bucket: str) -> None:
        """Sleep until the bucket has room; raises ProviderBusyError when that is after the deadline."""
        while True:
            with self._lock:
                state = self._buckets.get(bucket)
                wait = state.held_until - self._clock.now() if state else 0.0
            if wait <= 0:
                self._check_time_left(0.0)
                return
            self.pause(wait)

    def learn(self, bucket: str, headers: Mapping[str, str]) -> None:
        """Take in the rate-limit and Date headers of an answer."""
        self._learn_time(headers)
        remaining = _number(headers.get("x-ratelimit-remaining"))
        reset = _number(headers.get("x-ratelimit-reset"))
        if remaining is None or reset is None:
            return
        # Of a bucket that holds no more than that, all but one request would be left to others.
        limit = _number(headers.get("x-ratelimit-limit"))
        headroom = self._headroom if limit is None else max(0.0, min(self._headroom, limit - 1))
        if remaining > headroom:
            return
        wait = min(reset - self.provider_now(), MAX_TRUSTED_RESET_SECONDS)
        if wait > 0:
            # At the reset one request comes back; a second more for each that is missing beyond it.
            self._hold(bucket, wait + headroom - remaining)

    def busy_wait(self, headers: Mapping[str, str], attempt: int) -> float:
        """Return the seconds to wait after a 429 or 5xx, or after no answer at all (no headers).

        ``Retry-After`` counts first, as seconds or as a date; then ``x-ratelimit-reset``, unless it has
        passed; else the wait grows with each attempt. A part of it is chance, so that clients do not return together.
        """
        backoff = self._backoff(attempt)
        told = self._retry_after(headers)
        if told is not None and told > 0:
            return told + backoff / 4
        reset = _number(headers.get("x-ratelimit-reset"))
        if reset is not None:
            wait = reset - self.provider_now()
            if wait > 0:
                return min(wait, MAX_TRUSTED_RESET_SECONDS) + backoff / 4
        return backoff

    def hold(self, bucket: str, seconds: float) -> None:
        """Hold back every request of a bucket, for example after a 429."""
        self._hold(bucket, seconds)

    def pause(self, seconds: float) -> None:
        """Sleep; raises ProviderBusyError instead when the deadline comes first."""
        self._check_time_left(seconds)
        self.waited += seconds
        self._clock.sleep(seconds)

    def _hold(self, bucket: str, seconds: float) -> None:
        if seconds <= 0:
            return
        with self._lock:
            state = self._buckets.setdefault(bucket, _Bucket())
            state.held_until = max(state.held_until, self._clock.now() + seconds)

    def _check_time_left(self, wait: float) -> None:
        left = self.seconds_left()
        if left is not None and wait >= left:
            raise ProviderBusyError(
                f"{self.provider} must be given {wait:.0f} s before the next request and this invocation has "
                f"{max(left, 0.0):.0f} s left; it goes on later",
                retry_after=wait,
            )

    def _backoff(self, attempt: int) -> float:
        longest = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(attempt, 10))
        return longest * (0.5 + 0.5 * self._jitter())

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        text = headers.get("retry-after", "").strip()
        if not text:
            return None
        seconds = _number(text)
        if seconds is not None:
            return seconds
        moment = _date(text)
        return None if moment is None else moment - self.provider_now()

    def _learn_time(self, headers: Mapping[str, str]) -> None:
        moment = _date(headers.get("date", ""))
        if moment is None:
            return
        # The provider cut its time to whole seconds and the answer took time to come, so each difference is
        # at most the true one: the largest is the best, and never makes us early.
        seen = moment - self._clock.now()
        with self._lock:
            if self._offset is None or seen > self._offset or seen < self._offset - CLOCK_STEP_SECONDS:
                self._offset = seen


class ConcurrencyLimiter:
    """Lets so many requests be under way at once, and fewer after each 429.

    Where the limit is on requests that run together, waiting alone helps nobody: all would return together.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._inside = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._inside < self._width)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def narrow(self) -> None:
        """Let fewer be under way from now on: as many as now, after the refused request has left."""
        with self._changed:
            self._width = max(1, min(self._width - 1, self._inside))


def _number(text: str | None) -> float | None:
    if text is None or len(text) > 20:
        return None
    with contextlib.suppress(ValueError):
        number = float(text)
        # Also keeps out "inf" and "nan", which float() reads.
        if abs(number) < 1e12:
            return number
    return None


def _date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()
