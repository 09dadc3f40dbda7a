"""Sections, tables and cells as HTML. Texts are escaped; arguments named ``html`` are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Column:
    """A column of a table. ``kind`` is the class of its cells: empty, or ``number`` for right-aligned numbers."""

    name: str
    kind: str = ""


def section(title: str, name: str, html: str) -> str:
    """Return a section with a heading; ``name`` becomes its id."""
    identity = "".join(character if character.isalnum() else "-" for character in name)
    return f'<section aria-labelledby="{identity}"><h2 id="{identity}">{escape(title)}</h2>{html}</section>'


def table(caption: str, label: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the cells of a row are the HTML of its header and of its other columns."""
    head = "".join(f'<th scope="col"{_class(column)}>{escape(column.name)}</th>' for column in columns)
    body = "\n".join(f"<tr>{_row(columns, row)}</tr>" for row in rows)
    # A region that scrolls must be reachable by keyboard.
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
