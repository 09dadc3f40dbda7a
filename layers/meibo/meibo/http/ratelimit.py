"""Limit the rate and the concurrency of requests to a provider.

The rate limiter reads the state of each limit from ``x-ratelimit-remaining`` and ``x-ratelimit-reset``, and delays the
next request *before* the provider returns 429. A provider can have several limits, which are called buckets.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from random import SystemRandom
from typing import Final

from meibo.clock import Clock, TimeLeft
from meibo.errors import ProviderBusyError

# Auth0 refills its buckets every second or every minute
# (https://auth0.com/docs/troubleshoot/customer-support/operational-policies/rate-limit-policy/rate-limit-use-cases),
# so a later reset is the result of a wrong clock or header.
MAX_TRUSTED_RESET_SECONDS: Final = 90.0
MIN_BACKOFF_SECONDS: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 32.0
# Lambda bills the time that a function waits, but Step Functions does not. After this time, the function raises an
# error, and the workflow waits.
MAX_RETRY_SECONDS: Final = 300.0
# Time that an invocation needs after its last request to return its result.
MIN_REMAINING_SECONDS: Final = 5.0
# The Date header has a resolution of one second. If the offset falls by more than this value, a clock was adjusted.
MIN_CLOCK_STEP_SECONDS: Final = 3.0

_RANDOM: Final = SystemRandom()


class RateLimiter:
    """Delays requests so that they do not exceed the limits that the responses of the provider report.

    The threads of a client share one rate limiter. ``provider`` names the provider in messages. ``headroom`` is the
    number of requests in each bucket that are reserved for other clients of the same tenant. If ``headroom`` is at
    least the number of these clients, all clients together do not exceed the limit.
    """

    def __init__(
        self,
        provider: str,
        clock: Clock,
        *,
        time_left: TimeLeft | None = None,
        headroom: int = 0,
        jitter: Callable[[], float] = _RANDOM.random,
    ) -> None:
        self.provider = provider
        self.time_left = time_left
        self._clock = clock
        self._headroom = headroom
        self._jitter = jitter
        # The time at which the next request of each bucket may be sent.
        self._next_request_at: dict[str, float] = {}
        self._limits: dict[str, float] = {}
        self._lock = threading.Lock()
        self._offset: float | None = None

    def seconds_left(self) -> float | None:
        """Return the seconds that remain for requests, or None if the time is unlimited."""
        return None if self.time_left is None else self.time_left() - MIN_REMAINING_SECONDS

    def limit(self, bucket: str) -> float | None:
        """Return the size of a bucket, or None if no response has reported it."""
        return self._limits.get(bucket)

    def provider_now(self) -> float:
        """Return the provider's time, estimated from its Date headers, or the local time if there was no header."""
        return self._clock.now() + (self._offset or 0.0)

    def wait_for_turn(self, bucket: str) -> None:
        """Sleep until a request of the bucket may be sent.

        Raises ProviderBusyError at once if the remaining time of the invocation is not longer than the wait.
        """
        while True:
            with self._lock:
                wait = max(0.0, self._next_request_at.get(bucket, 0.0) - self._clock.now())
            left = self.seconds_left()
            if left is not None and wait >= left:
                if not wait:
                    raise ProviderBusyError(
                        f"the invocation has no time left for another request to {self.provider}; the request is sent"
                        " in a later invocation",
                        retry_after=wait,
                    )
                raise ProviderBusyError(
                    f"{self.provider} is rate-limited for {wait:.0f} s but only {max(left, 0.0):.0f} s remain; the"
                    " request is sent in a later invocation",
                    retry_after=wait,
                )
            if not wait:
                return
            self._clock.sleep(wait)

    def read_headers(self, bucket: str, headers: Mapping[str, str]) -> None:
        """Read the rate-limit and Date headers of a response."""
        self._read_date(headers)
        remaining = _number(headers.get("x-ratelimit-remaining"))
        reset = _number(headers.get("x-ratelimit-reset"))
        limit = _number(headers.get("x-ratelimit-limit"))
        if limit is not None:
            self._limits[bucket] = limit
        if remaining is None or reset is None:
            return
        # A client can use at least one request in each bucket, even if the headroom exceeds the limit.
        headroom = self._headroom if limit is None else max(0.0, min(self._headroom, limit - 1))
        if remaining > headroom:
            return
        wait = min(reset - self.provider_now(), MAX_TRUSTED_RESET_SECONDS)
        if wait > 0:
            # Assume one request at the reset and one more per second. The provider may allow more.
            self.hold(bucket, wait + headroom - remaining)

    def retry_delay(self, headers: Mapping[str, str], attempt: int) -> float:
        """Return the seconds to wait before a retry. ``headers`` is empty if there was no response.

        The delay is based on ``Retry-After`` (seconds or a date) or ``x-ratelimit-reset`` if they are in the future.
        Otherwise, it is an exponential backoff. Jitter prevents clients from retrying at the same time.
        """
        limit = min(MAX_BACKOFF_SECONDS, MIN_BACKOFF_SECONDS * 2.0 ** min(attempt, 10))
        backoff = limit * (0.5 + 0.5 * self._jitter())
        retry_after = self._retry_after(headers)
        if retry_after is not None and retry_after > 0:
            return retry_after + backoff / 4
        reset = _number(headers.get("x-ratelimit-reset"))
        if reset is not None:
            wait = reset - self.provider_now()
            if wait > 0:
                return min(wait, MAX_TRUSTED_RESET_SECONDS) + backoff / 4
        return backoff

    def hold(self, bucket: str, seconds: float) -> None:
        """Delay every request of a bucket, for example after a 429."""
        with self._lock:
            self._next_request_at[bucket] = max(self._next_request_at.get(bucket, 0.0), self._clock.now() + seconds)

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        text = headers.get("retry-after", "").strip()
        seconds, moment = _number(text), _date(text)
        return moment - self.provider_now() if seconds is None and moment is not None else seconds

    def _read_date(self, headers: Mapping[str, str]) -> None:
        moment = _date(headers.get("date", ""))
        if moment is None:
            return
        # The header is rounded down and the transmission takes time, so no difference exceeds the true offset. The
        # largest difference is the best estimate.
        offset = moment - self._clock.now()
        with self._lock:
            if self._offset is None or offset > self._offset or offset < self._offset - MIN_CLOCK_STEP_SECONDS:
                self._offset = offset


class ConcurrencyLimiter:
    """Limits simultaneous requests, and lowers the limit after each 429.

    If the provider limits simultaneous requests, a delay is not sufficient: after the delay, the same number of
    requests would be sent simultaneously.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._active = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._active < self._limit)
            self._active += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._active -= 1
            self._changed.notify_all()

    def lower_limit(self) -> None:
        """Lower the limit after a request was rejected and is no longer active.

        The limit is lowered by at least one, to at most the number of active requests. It is never below 1.
        """
        with self._changed:
            self._limit = max(1, min(self._limit - 1, self._active))


def _number(text: str | None) -> float | None:
    if text is None or len(text) > 20:
        return None
    with contextlib.suppress(ValueError):
        number = float(text)
        # Also excludes "inf" and "nan", which float() accepts.
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
