"""When a copy has to end, and how long it keeps trying until then."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from meibo.errors import AwsBusyError, CopyBrokenError, OutOfTimeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from meibo.archive.copy.model import CopyOptions, Counts


class StoppedError(Exception):
    """Another lane failed, so this one ends; never leaves the package."""


class Stop:
    """Tells every lane to end, and wakes those that wait or that sit in a socket call."""

    def __init__(self, options: CopyOptions, deadline: Callable[[], float] | None) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._deadline = deadline
        self._reserve = options.reserve_seconds
        self._interrupts: list[Callable[[], None]] = []
        self.reason: BaseException | None = None

    def on_set(self, interrupt: Callable[[], None]) -> None:
        """Call this, from another thread, when the copy has to end."""
        with self._lock:
            self._interrupts.append(interrupt)
        if self._event.is_set():
            interrupt()

    def set(self, reason: BaseException) -> None:
        """End the copy; the first reason is the one that is told."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
            interrupts = list(self._interrupts)
        self._event.set()
        for interrupt in interrupts:
            interrupt()

    @property
    def is_set(self) -> bool:
        """Whether the copy has to end."""
        return self._event.is_set()

    def raise_reason(self) -> None:
        """Raise what ended the copy, if it ended."""
        if self.reason is not None:
            raise self.reason

    def seconds_left(self) -> float | None:
        """Seconds of work that are left, less the reserve; None means no end."""
        return None if self._deadline is None else max(0.0, self._deadline() - self._reserve)

    def check_time(self) -> None:
        """End the copy if its time is over."""
        if self.seconds_left() == 0:
            self.set(OutOfTimeError("the invocation's time ends before the copy does"))

    def check(self) -> None:
        """Raise if the copy has to end."""
        self.check_time()
        if self._event.is_set():
            raise StoppedError

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than the copy lives."""
        left = self.seconds_left()
        self._event.wait(seconds if left is None else min(seconds, left))
        self.check()


PIECES_OF_A_PART = 128
"""Less progress than such a piece is none: a side that gives a byte and breaks again would be tried for hours."""


class Patience:
    """Counts breaks in a row on one side of one lane; progress between them starts the count again."""

    def __init__(self, side: str, options: CopyOptions, stop: Stop, counts: Counts) -> None:
        self._side = side
        self._options = options
        self._stop = stop
        self._counts = counts
        self._breaks = 0
        self._enough = options.part_bytes // PIECES_OF_A_PART
        self._bytes = 0

    def progress(self, count: int) -> None:
        """So many bytes came through."""
        self._bytes += count
        if self._bytes >= self._enough:
            self._breaks = 0

    def broke(
        self, why: str, *, wait: float | None = None, error: type[AwsBusyError | CopyBrokenError] = CopyBrokenError
    ) -> None:
        """Wait before the next try (full jitter, doubling), or raise ``error`` if there were too many in a row."""
        self._counts.breaks += 1
        self._breaks += 1
        self._bytes = 0
        self._stop.check()
        if self._breaks >= self._options.tries:
            raise error(f"{self._side} broke {self._breaks} times in a row, last with: {why}")
        if self._breaks > 1 or wait:
            ceiling = min(self._options.backoff_seconds * 2**self._breaks, self._options.max_backoff_seconds)
            jitter = random.uniform(ceiling / 2, ceiling)  # noqa: S311  (spreads load, keeps no secret)
            self._stop.wait(max(jitter, min(wait or 0.0, self._options.max_backoff_seconds)))
