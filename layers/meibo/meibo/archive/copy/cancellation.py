"""Cancellation of the threads of a copy, and retry budgets."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, NoReturn

from meibo.errors import AwsBusyError, CopyBrokenError, OutOfTimeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from meibo.archive.copy.model import CopyOptions, Counts

PROGRESS_SHARE = 128
"""A retry budget is restored after 1/128 of a part. This limits the retries of a server that sends single bytes."""


class CancelledError(Exception):
    """The copy is canceled. Raised in the threads of the copy, never by ``copy`` itself."""


class CancelToken:
    """Cancels all threads of a copy, on the first error or when the invocation runs out of time.

    ``changed`` guards the state that the threads share. Threads wait on it for a change of that state, for the end of
    a backoff, or for cancellation. ``time_left`` returns the seconds that the invocation has left.
    """

    def __init__(self, options: CopyOptions, time_left: Callable[[], float] | None) -> None:
        self.changed = threading.Condition()
        self._time_left = time_left
        self._reserve_seconds = options.reserve_seconds
        self._callbacks: list[Callable[[], None]] = []
        self._reason: BaseException | None = None

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Register a callback for the cancellation, for example the shutdown of a socket."""
        self._callbacks.append(callback)

    def cancel(self, reason: BaseException) -> None:
        """Cancel the copy; the first reason is the error that the copy raises."""
        with self.changed:
            self._reason = self._reason or reason
            self.changed.notify_all()
        for callback in self._callbacks:
            callback()

    def raise_reason(self) -> NoReturn:
        """Raise the error that canceled the copy."""
        assert self._reason is not None  # noqa: S101  (called after cancellation only)
        raise self._reason

    def check(self) -> None:
        """Raise CancelledError if the copy is canceled; cancel it if its time is over."""
        if self._reason is None and self._seconds_left() == 0:
            self.cancel(OutOfTimeError("the copy needs more time than the invocation has left; it will be retried"))
        if self._reason is not None:
            raise CancelledError

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the shared state is true; raise CancelledError if the copy is canceled."""
        with self.changed:
            while not condition():
                self.check()
                self.changed.wait(self._seconds_left())
        self.check()

    def sleep(self, seconds: float) -> None:
        """Sleep; raise CancelledError as soon as the copy is canceled."""
        with self.changed:
            left = self._seconds_left()
            seconds = seconds if left is None else min(seconds, left)
            self.changed.wait_for(lambda: self._reason is not None, seconds)
        self.check()

    def _seconds_left(self) -> float | None:
        return None if self._time_left is None else max(0.0, self._time_left() - self._reserve_seconds)


class RetryBudget:
    """Limits the consecutive failures of an operation, such as the upload of a part. Progress restores the budget."""

    def __init__(self, operation: str, options: CopyOptions, token: CancelToken, counts: Counts) -> None:
        self._operation = operation
        self._options = options
        self._token = token
        self._counts = counts
        self._failures = 0
        self._bytes = 0

    def restore(self) -> None:
        """Restore the budget after a success."""
        self._failures = 0

    def progress(self, count: int) -> None:
        """Count transferred bytes, and restore the budget if they are enough."""
        self._bytes += count
        if self._bytes >= self._options.part_bytes // PROGRESS_SHARE:
            self.restore()

    def spend(
        self,
        failure: str,
        *,
        retry_after: float | None = None,
        error: type[AwsBusyError | CopyBrokenError] = CopyBrokenError,
    ) -> None:
        """Wait before the next attempt, or raise ``error`` if the budget is spent.

        The first failure is retried immediately, unless the server is busy (``retry_after``, in seconds). The backoff
        doubles with each failure and has jitter.
        """
        self._counts.breaks += 1
        self._failures += 1
        self._bytes = 0
        self._token.check()
        if self._failures >= self._options.max_attempts:
            raise error(f"{self._operation} failed {self._failures} times in a row, last with: {failure}")
        if self._failures > 1 or retry_after is not None:
            ceiling = min(self._options.backoff_seconds * 2**self._failures, self._options.max_backoff_seconds)
            jitter = random.uniform(ceiling / 2, ceiling)  # noqa: S311  (spreads load, not a secret)
            self._token.sleep(max(jitter, min(retry_after or 0.0, self._options.max_backoff_seconds)))
