"""A clock that tests move."""

from __future__ import annotations


class FakeClock:
    """Sleeping moves it and takes no time; ``slept`` remembers how long each sleep was."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.time = start
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.time += seconds

    def deadline(self, seconds: float) -> FakeDeadline:
        """Return what tells the seconds left of an invocation that ends in so many."""
        return FakeDeadline(self, self.time + seconds)


class FakeDeadline:
    """An invocation's time-out on a fake clock."""

    def __init__(self, clock: FakeClock, end: float) -> None:
        self._clock = clock
        self._end = end

    def __call__(self) -> float:
        return self._end - self._clock.time
