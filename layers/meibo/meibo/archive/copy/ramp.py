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
"""A network's rate changes; after this long the next step is tried again."""

STEP = 4
GROWTH = 1.1
LOSS = 0.85
"""A step that gains nothing is kept, for a lane too many costs little and one too few much; one that harms is not."""


class Ramp:
    """Decides the number of downloading lanes from the bytes that arrive."""

    def __init__(self, most: int, part_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._part_bytes = part_bytes
        self._clock = clock
        self.limit = 1
        self._before = 1  # the limit before the last step
        self._rate = 0.0  # at that limit
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
        if stepped and rate < self._rate * LOSS:
            self.limit = self._before
            self._watch(now, REST_SECONDS)
        elif stepped and rate < self._rate * GROWTH:
            self._before = self.limit
            self._watch(now, REST_SECONDS)
        else:
            self._before, self._rate = self.limit, rate
            self.limit = min(self.limit * STEP, self._most)
            self._watch(now, WARM_SECONDS)
        return self.limit > before

    def _watch(self, now: float, warm: float) -> None:
        """Count from a moment on, for a window."""
        self._since, self._received = now, 0
        self._from = now + warm
        self._until = self._from + WINDOW_SECONDS
