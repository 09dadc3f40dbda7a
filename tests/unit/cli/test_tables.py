"""Tables do not break a name or a number, regardless of the width of the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest

from meibo_cli.terminal import Column, TextConsole, print_table

EXPORT = "acme/users/ndjson/con_0000000000000001"
RUN = "20261121T180000Z"
REASON = "70 % fewer users than in the last export"
COLUMNS = (
    Column("run"),
    Column("export", footer="total"),
    Column("rows", number=True, footer="1,234,567"),
    Column("reason", wraps=True),
    Column("age", number=True, optional=True),
    Column("size", number=True, optional=True),
)
ROWS = [(RUN, EXPORT, "1,234,567", REASON, "3 d", "120 MB"), (RUN, "b", "1", "", "10 d", "1 B")]


def printed(
    columns: tuple[Column, ...], rows: Sequence[tuple[str, ...]], width: int, *, is_terminal: bool = True
) -> str:
    screen = io.StringIO()
    console = TextConsole(file=screen)
    if is_terminal:
        console.width = width
    print_table(console, columns, rows, title="exports")
    return screen.getvalue()


@pytest.mark.parametrize("width", [*range(20, 160, 5)])
def test_names_and_numbers_are_never_broken(width: int) -> None:
    text = printed(COLUMNS, ROWS, width)

    assert text.count(EXPORT) == 1
    assert text.count("1,234,567") == 2
    assert all(word in text for word in REASON.split())
    if "─" in text:
        assert all(len(line) <= width for line in text.splitlines())


def test_optional_columns_are_left_out_from_the_last() -> None:
    columns = tuple(column for column in COLUMNS if not column.wraps)
    rows = [(*row[:3], *row[4:]) for row in ROWS]

    assert [name for name in ("age", "size") if name in printed(columns, rows, 120)] == ["age", "size"]
    assert [name for name in ("age", "size") if name in printed(columns, rows, 76)] == ["age"]
    assert [name for name in ("age", "size") if name in printed(columns, rows, 70)] == []


def test_row_that_does_not_fit_becomes_a_record() -> None:
    assert printed(COLUMNS, ROWS[:1], 40).splitlines() == [
        "exports",
        "",
        f"run     {RUN}",
        f"export  {EXPORT}",
        "rows    1,234,567",
        f"reason  {REASON}",
        "age     3 d",
        "size    120 MB",
        "",
        "export  total",
        "rows    1,234,567",
    ]


def test_numbers_are_aligned_right() -> None:
    rows = [
        line for line in printed((Column("n", number=True),), [("1,234,567",), ("1",)], 80).splitlines() if "1" in line
    ]

    assert [line.rstrip() for line in rows] == ["1,234,567", "        1"]


def test_column_that_wraps_is_left_out_if_its_cells_are_empty() -> None:
    assert "reason" not in printed(COLUMNS, ROWS[1:], 160)


def test_pipe_receives_a_line_per_row() -> None:
    name = "x" * 500

    assert f"{name} " in printed(
        (Column("name"), Column("reason", wraps=True)), [(name, "y " * 500)], 0, is_terminal=False
    )
