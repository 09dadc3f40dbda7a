"""Print archived or received text on terminals, in pipes and for spreadsheets."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import Progress
from rich.status import Status
from rich.table import Table

# Control and format characters (terminal escapes, text direction, zero width), lone surrogates, line separators.
_UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA_STARTS: Final = tuple("=+-@\t\r\n＝＋－＠")

# The non-ASCII characters that the commands print.
_ASCII_SIGNS: Final = {"–": "-", "→": "->", "…": "...", "✓": "+", "✗": "x"}
_ENCODING_ERRORS: Final = "meibo-escape"

# Without a terminal, lines are not wrapped.
_UNLIMITED_WIDTH: Final = 10_000
_MIN_TEXT_WIDTH: Final = 20


def escape_control_characters(text: str) -> str:
    """Return the text with a JSON escape such as ``\\u001b`` for each character that could control a terminal.

    In a JSON document on one line, these escapes do not change the values.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _json_escape(character) if unicodedata.category(character) in _UNSAFE_CATEGORIES else character
        for character in text
    )


def printable(text: object) -> str:
    """Return Rich markup that prints archived or received text literally, with control characters escaped.

    Print it with ``Console(emoji=False)``: Rich cannot escape emoji codes such as ``:cat:``.
    """
    return escape(escape_control_characters(str(text)))


def prepare_streams() -> None:
    """Escape characters that the encoding of stdout or stderr cannot represent, instead of raising an exception."""
    codecs.register_error(_ENCODING_ERRORS, _escape_unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ENCODING_ERRORS)


def use_utf8_in_pipes() -> None:
    """Write UTF-8 to stdout regardless of the locale, unless stdout is a terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_ASCII_SIGNS.get(character) or _json_escape(character) for character in text), error.end


class TextConsole(Console):
    """A console that does not break lines. Without a terminal, tables have unlimited width too."""

    def __init__(self, *, stderr: bool = False, file: IO[str] | None = None) -> None:
        super().__init__(stderr=stderr, file=file, emoji=False, highlight=False, soft_wrap=True)
        if not self.is_terminal:
            self.width = _UNLIMITED_WIDTH

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError again, because ``report_errors`` handles it. Rich itself would exit."""
        raise  # noqa: PLE0704  # Rich calls this method while it handles the exception


def show_activity(text: str) -> Status:
    """Return a context manager that shows a spinner with ``text``, which is Rich markup, if stderr is a terminal."""
    return TextConsole(stderr=True).status(text)


@contextmanager
def progress_bar(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar with ``text`` (Rich markup) if stderr is a terminal. Yield the function that advances it."""
    console = TextConsole(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield partial(progress.advance, progress.add_task(text, total=total))


@dataclass(frozen=True)
class Column:
    """A column of a table. Only cells of a column that ``wraps`` are broken into lines.

    An ``optional`` column is omitted if the terminal is too narrow. A column that wraps is omitted if it is empty.
    """

    name: str
    number: bool = False
    optional: bool = False
    wraps: bool = False
    footer: str = ""
    min_width: int | None = None


Rows = Sequence[Sequence[str]]


def fitted_table(console: Console, columns: Sequence[Column], rows: Rows, *, title: str = "") -> Table | None:
    """Return a table that fits the console, or None if the required columns are too wide.

    If necessary, optional columns are omitted, beginning with the last. Cells are Rich markup; see ``printable``.
    """
    shown = [n for n, column in enumerate(columns) if not column.wraps or any(row[n] for row in rows)]
    unlimited = console.options.update(width=_UNLIMITED_WIDTH)
    while Measurement.get(console, unlimited, _table(columns, rows, shown, narrow=True)).maximum > console.width:
        optional = [index for index in shown if columns[index].optional]
        if not optional:
            return None
        shown.remove(optional[-1])
    return _table(columns, rows, shown, title=title)


def print_table(console: Console, columns: Sequence[Column], rows: Rows, *, title: str = "") -> None:
    """Print a table that fits the console. If no table fits, print each row as a record with one line per column."""
    table = fitted_table(console, columns, rows, title=title)
    if table is not None:
        with console.capture() if not console.is_terminal else nullcontext() as output:
            console.print(table, soft_wrap=False)
        if output is not None:
            console.file.write(re.sub(r" +$", "", output.get(), flags=re.MULTILINE))
        return
    if title:
        console.print(title)
    footer = [column.footer for column in columns]
    width = max(len(column.name) for column in columns)
    for row in [*rows, *([footer] if any(footer) else [])]:
        console.print()
        for column, cell in zip(columns, row, strict=True):
            if cell:
                console.print(f"[bold]{column.name:<{width}}[/]  {cell}")


def _table(
    columns: Sequence[Column], rows: Rows, shown: Sequence[int], *, title: str = "", narrow: bool = False
) -> Table:
    has_header = any(column.name for column in columns)
    has_footer = any(column.footer for column in columns)
    table = Table(
        title=title or None,
        title_justify="left",
        box=SIMPLE_HEAD if has_header else None,
        show_header=has_header,
        show_edge=False,
        pad_edge=False,
        show_footer=has_footer,
    )
    for column in (columns[index] for index in shown):
        table.add_column(
            column.name,
            column.footer,
            justify="right" if column.number else "left",
            no_wrap=not column.wraps,
            overflow="fold",
            min_width=_MIN_TEXT_WIDTH if column.wraps else column.min_width,
            max_width=_MIN_TEXT_WIDTH if column.wraps and narrow else None,
        )
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    return table


def json_text(document: Any, *, indent: int | None = None) -> str:
    """Return a document as JSON that is safe to print on a terminal. Its values do not change."""
    is_ascii = not sys.stdout.encoding.lower().startswith("utf")
    text = json.dumps(document, ensure_ascii=is_ascii, indent=indent, default=str)
    # Newlines within strings are escaped already, so only those of the indentation remain.
    return "\n".join(map(escape_control_characters, text.split("\n")))


def _json_escape(character: str) -> str:
    encoded = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{encoded[index : index + 4]}" for index in range(0, len(encoded), 4))


def spreadsheet_text(cell: str) -> str:
    """Return the original text of a cell that ``spreadsheet_writer`` wrote to a file."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA_STARTS) else cell


def spreadsheet_writer(file: IO[str], *, is_terminal: bool) -> Callable[[Iterable[object]], None]:
    """Return a function that writes a row of CSV, with an apostrophe before text that a spreadsheet would interpret as
    a formula.

    On a terminal, control characters are escaped too.
    """
    writer = csv.writer(file, lineterminator="\n")

    def cell(value: object) -> object:
        if not isinstance(value, str):
            return value
        text = escape_control_characters(value) if is_terminal else value
        return f"'{text}" if value.startswith(_FORMULA_STARTS) else text

    def write(values: Iterable[object]) -> None:
        writer.writerow(map(cell, values))

    return write
