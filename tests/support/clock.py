"""Clocks that tests control, so that waiting takes no time and the results are reproducible."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Sequence


class FakeClock:
    """A clock that advances only when ``advance`` or ``sleep`` is called. ``slept`` lists the durations of sleeps."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.time = start
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.advance(seconds)

    def deadline(self, seconds: float) -> FakeDeadline:
        """Return a function that returns the remaining time of an invocation that ends after ``seconds``."""
        return FakeDeadline(self, self.time + seconds)


class FakeDeadline:
    """The remaining seconds of an invocation on a fake clock."""

    def __init__(self, clock: FakeClock, end: float) -> None:
        self._clock = clock
        self._end = end

    def __call__(self) -> float:
        return self._end - self._clock.time


class VirtualTime:
    """A clock for the worker threads that ``run`` starts.

    One worker runs at a time. When it sleeps, the clock advances to the time when the next worker wakes up.
    """

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.time = start
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._order = itertools.count()
        self._workers: set[int] = set()

    def now(self) -> float:
        return self.time

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        if threading.get_ident() not in self._workers:
            self.time += seconds
            return
        event = threading.Event()
        heapq.heappush(self._waiting, (self.time + seconds, next(self._order), event))
        self._wake_next()
        event.wait()

    def run(self, workers: Sequence[Callable[[], None]]) -> None:
        """Run the workers until all of them end. Raise the first error of a worker."""
        errors: list[BaseException] = []

        def body(worker: Callable[[], None], turn: threading.Event) -> None:
            turn.wait()
            self._workers.add(threading.get_ident())
            try:
                worker()
            except BaseException as error:  # noqa: BLE001  # raised again in the waiting thread
                errors.append(error)
            finally:
                self._workers.discard(threading.get_ident())
                self._wake_next()

        threads = []
        for worker in workers:
            turn = threading.Event()
            heapq.heappush(self._waiting, (self.time, next(self._order), turn))
            threads.append(threading.Thread(target=body, args=(worker, turn), daemon=True))
        for thread in threads:
            thread.start()
        self._wake_next()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _wake_next(self) -> None:
        if self._waiting:
            moment, _, event = heapq.heappop(self._waiting)
            self.time = max(self.time, moment)
            event.set()
