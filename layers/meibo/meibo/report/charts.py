"""Small line charts as inline SVG, with an alternative text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

_WIDTH: Final = 120
_HEIGHT: Final = 28
_EDGE: Final = 3


def line(values: Sequence[int], label: str) -> str:
    """Return a chart of the values, oldest first; ``label`` is its title and alternative text."""
    if not values:
        return ""
    low, high = min(values), max(values)
    spread = (high - low) or 1
    step = (_WIDTH - 2 * _EDGE) / max(len(values) - 1, 1)
    points = [
        (_EDGE + number * step, _HEIGHT / 2)
        if high == low
        else (_EDGE + number * step, _HEIGHT - _EDGE - (value - low) / spread * (_HEIGHT - 2 * _EDGE))
        for number, value in enumerate(values)
    ]
    if len(points) == 1:
        points = [(_WIDTH / 2, _HEIGHT / 2)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    last_x, last_y = points[-1]
    return (
        f'<svg class="chart" role="img" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        f' aria-label="{escape(label)}"><title>{escape(label)}</title>'
        f'<polyline points="{path}"/><circle cx="{last_x:.1f}" cy="{last_y:.1f}" r="2.5"/></svg>'
    )
