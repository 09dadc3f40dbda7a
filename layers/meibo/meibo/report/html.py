"""Build sections, tables and charts as HTML. All strings are escaped except cells and arguments named ``html``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

# The size and the margin of a chart in pixels.
_WIDTH: Final = 120
_HEIGHT: Final = 28
_EDGE: Final = 3


@dataclass(frozen=True)
class Column:
    """A column of a table. ``kind`` is the CSS class of its cells, for example ``number``, or empty."""

    name: str
    kind: str = ""


def section(title: str, name: str, html: str) -> str:
    """Return a section with a heading. Its id is derived from ``name``."""
    identity = "".join(character if character.isalnum() else "-" for character in name)
    return f'<section aria-labelledby="{identity}"><h2 id="{identity}">{escape(title)}</h2>{html}</section>'


def table(caption: str, label: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return a table. The cells are HTML. The first cell of each row is the header of the row."""
    head = "".join(f'<th scope="col"{_class(column)}>{escape(column.name)}</th>' for column in columns)
    body = "\n".join(f"<tr>{_row(columns, row)}</tr>" for row in rows)
    # A scrollable region must be accessible by keyboard.
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(label)}"><table class="cards">'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _row(columns: Sequence[Column], cells: Sequence[str]) -> str:
    header, *others = cells
    named = zip(columns[1:], others, strict=True)
    return f'<th scope="row">{header}</th>' + "".join(
        f'<td{_class(column)} data-name="{escape(column.name)}">{html}</td>' for column, html in named
    )


def _class(column: Column) -> str:
    return f' class="{column.kind}"' if column.kind else ""


def note(text: str) -> str:
    """Return a paragraph in a soft color."""
    return f'<p class="soft">{escape(text)}</p>'


def line_chart(values: Sequence[int], label: str) -> str:
    """Return a small line chart as inline SVG. The values are oldest first. ``label`` is the alternative text."""
    if not values:
        return ""
    low, high = min(values), max(values)
    spread = (high - low) or 1
    step = (_WIDTH - 2 * _EDGE) / max(len(values) - 1, 1)
    points = [
        (_EDGE + number * step, _HEIGHT / 2)
        if high == low
        else (
            _EDGE + number * step,
            _HEIGHT - _EDGE - (value - low) / spread * (_HEIGHT - 2 * _EDGE),
        )
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
