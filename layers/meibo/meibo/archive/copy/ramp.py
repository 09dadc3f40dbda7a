"""How many lanes download at once: one at first, more while that makes the whole faster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_SECONDS = 0.1
"""Long enough for a new connection's handshake beside some bytes, short enough for a file of one second."""

GROWTH = 1.15
"""A step that gains less than this is taken back: each lane costs a connection, memory and CPU."""

STEP = 4
REST_SECONDS = 4.0
"""A network's rate changes; after this long another step is tried."""


class Ramp:
    """Decides the number of downloading lanes from the bytes that arrive."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self.limit = 1
        self._settled = 1
        self._rate = 0.0  # of the settled number of lanes
        self._received = 0
        self._since: float | None = None
        self._until = 0.0

    def arrived(self, count: int) -> bool:
        """Count bytes; return whether the limit rose."""
        now = self._clock()
        if self._since is None:
            self._open_window(now, WINDOW_SECONDS)
        self._received += count
        if now < self._until:
            return False
        assert self._since is not None  # noqa: S101  (told to mypy)
        rate = self._received / max(now - self._since, 1e-9)
        before = self.limit
        if self.limit == self._settled:  # the rate to beat is known now: try more
            self._rate = rate
            self.limit = min(self._settled * STEP, self._most)
            self._open_window(now, WINDOW_SECONDS)
        elif rate > self._rate * GROWTH:  # worth it: keep, and try more
            self._settled, self._rate = self.limit, rate
            self.limit = min(self._settled * STEP, self._most)
            self._open_window(now, WINDOW_SECONDS)
        else:
            self.limit = self._settled
            self._open_window(now, REST_SECONDS)
        return self.limit > before

    def _open_window(self, now: float, seconds: float) -> None:
        self._since, self._until, self._received = now, now + seconds, 0
