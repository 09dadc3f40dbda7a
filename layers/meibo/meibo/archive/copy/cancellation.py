"""Cancellation of a copy's threads, and the retry budget of each transfer."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, NoReturn

from meibo.errors import AwsBusyError, CopyBrokenError, OutOfTimeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from meibo.archive.copy.model import CopyOptions, Counts

PROGRESS_SHARE = 128
"""A retry budget is restored after this share of a part, so a server that sends single bytes is not retried forever."""


class CancelledError(Exception):
    """The copy was cancelled; raised in its threads only, never to the caller of ``copy``."""


class CancelToken:
    """Cancels all threads of a copy, on the first error or at the deadline.

    ``changed`` guards the state that the threads share; threads wait on it for a change of that state, for the end of
    a backoff, or for cancellation. ``deadline`` returns the seconds that the invocation has left.
    """

    def __init__(self, options: CopyOptions, deadline: Callable[[], float] | None) -> None:
        self.changed = threading.Condition()
        self._deadline = deadline
        self._reserve_seconds = options.reserve_seconds
        self._callbacks: list[Callable[[], None]] = []
        self._reason: BaseException | None = None

    @property
    def is_cancelled(self) -> bool:
        """True after the copy was cancelled."""
        return self._reason is not None

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Register a callback for the cancelling thread, such as the shutdown of another thread's socket."""
        self._callbacks.append(callback)

    def cancel(self, reason: BaseException) -> None:
        """Cancel the copy; the first reason is the error that the copy raises."""
        with self.changed:
            if self._reason is None:
                self._reason = reason
            self.changed.notify_all()
        for callback in self._callbacks:
            callback()

    def raise_reason(self) -> NoReturn:
        """Raise the error for which the copy was cancelled."""
        assert self._reason is not None  # noqa: S101  (called after cancellation only)
        raise self._reason

    def check(self) -> None:
        """Raise CancelledError if the copy is cancelled; cancel it if its time is over."""
        if not self.is_cancelled and self._seconds_left() == 0:
            self.cancel(OutOfTimeError("the invocation's time ends before the copy does"))
        if self.is_cancelled:
            raise CancelledError

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the shared state is true; raise CancelledError if the copy is cancelled."""
        with self.changed:
            while not condition():
                self.check()
                self.changed.wait(self._seconds_left())
        self.check()

    def sleep(self, seconds: float) -> None:
        """Sleep; raise CancelledError as soon as the copy is cancelled."""
        with self.changed:
            left = self._seconds_left()
            self.changed.wait_for(lambda: self.is_cancelled, seconds if left is None else min(seconds, left))
        self.check()

    def _seconds_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline() - self._reserve_seconds)


class RetryBudget:
    """Limits consecutive failures of a part's download or upload; progress restores the budget."""

    def __init__(self, side: str, options: CopyOptions, token: CancelToken, counts: Counts) -> None:
        self._side = side
        self._options = options
        self._token = token
        self._counts = counts
        self._failures = 0
        self._bytes = 0

    def progress(self, count: int) -> None:
        """Count bytes that were transferred since the last failure."""
        self._bytes += count
        if self._bytes >= self._options.part_bytes // PROGRESS_SHARE:
            self._failures = 0

    def spend(
        self,
        failure: str,
        *,
        wait: float | None = None,
        error: type[AwsBusyError | CopyBrokenError] = CopyBrokenError,
    ) -> None:
        """Wait before the next attempt, or raise ``error`` if the budget is spent.

        The first failure is retried immediately, unless the server sent Retry-After. The backoff doubles, with jitter.
        """
        self._counts.breaks += 1
        self._failures += 1
        self._bytes = 0
        self._token.check()
        if self._failures >= self._options.max_attempts:
            raise error(f"{self._side} failed {self._failures} times in a row, last with: {failure}")
        if self._failures > 1 or wait is not None:
            ceiling = min(self._options.backoff_seconds * 2**self._failures, self._options.max_backoff_seconds)
            jitter = random.uniform(ceiling / 2, ceiling)  # noqa: S311  (spreads load, not a secret)
            self._token.sleep(max(jitter, min(wait or 0.0, self._options.max_backoff_seconds)))
