"""How many lanes download at once: one at first, more while that makes the whole faster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_SECONDS = 0.1
"""New connections shake hands in it, so a step is not judged by it."""

WINDOW_SECONDS = 0.1
SLOW_SECONDS = 2.0
"""A step is judged when each lane had a part, for lanes that began together receive together and send together; on a
network that is too slow for that, after this long."""

REST_SECONDS = 1.0
MAX_REST_SECONDS = 8.0
"""A network's rate changes: a step that was taken back is tried again, each time after twice as long."""

STEP = 4
GROWTH = 1.1
"""A step that gains less is taken back: where the CPU is the limit, 16 threads and buffers only cost more of it."""


class Ramp:
    """Decides the number of downloading lanes from the bytes that arrive."""

    def __init__(self, most: int, part_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._part_bytes = part_bytes
        self._clock = clock
        self.limit = 1
        self._before = 1  # the limit before the last step
        self._rate = 0.0  # at that limit
        self._rest = REST_SECONDS
        self._received = 0
        self._since: float | None = None
        self._from = 0.0
        self._until = 0.0

    def arrived(self, count: int) -> bool:
        """Count bytes; return whether the limit rose."""
        now = self._clock()
        if self._since is None:
            self._watch(now, 0.0)
        if now < self._from:
            return False
        self._received += count
        each_had_one = self._received >= self.limit * self._part_bytes
        if now < self._until or not (each_had_one or now >= self._from + SLOW_SECONDS):
            return False
        rate = self._received / max(now - self._from, 1e-9)
        before = self.limit
        stepped = self.limit > self._before
        if stepped and rate < self._rate * GROWTH:
            self.limit = self._before
            self._watch(now, self._rest)
            self._rest = min(self._rest * 2, MAX_REST_SECONDS)
        else:
            if stepped:
                self._rest = REST_SECONDS
            self._before, self._rate = self.limit, rate
            self.limit = min(self.limit * STEP, self._most)
            self._watch(now, WARM_SECONDS)
        return self.limit > before

    def _watch(self, now: float, warm: float) -> None:
        """Count from a moment on, for a window."""
        self._since, self._received = now, 0
        self._from = now + warm
        self._until = self._from + WINDOW_SECONDS
