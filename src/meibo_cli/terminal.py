"""Escape archived or received text for terminals and for spreadsheets."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Callable, Iterable
from typing import IO, Any, Final

from rich.markup import escape

# Control and format characters (terminal escapes, text direction, zero width), lone surrogates, line separators.
_UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA_STARTS: Final = tuple("=+-@\t\r\n＝＋－＠")


def escape_control_characters(text: str) -> str:
    """Return the text with a JSON escape such as ``\\u001b`` for each character that could control a terminal.

    The values of a JSON document on one line do not change.
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


def json_text(document: Any, *, indent: int | None = None) -> str:
    """Return a document as JSON that is safe on a terminal. A program reads the same values."""
    text = json.dumps(document, ensure_ascii=False, indent=indent, default=str)
    # Newlines within strings are escaped already, so only those of the indentation remain.
    return "\n".join(map(escape_control_characters, text.split("\n")))


def _json_escape(character: str) -> str:
    encoded = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{encoded[index : index + 4]}" for index in range(0, len(encoded), 4))


def spreadsheet_text(cell: str) -> str:
    """Return the text of a cell that ``spreadsheet_writer`` wrote to a file."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA_STARTS) else cell


def spreadsheet_writer(file: IO[str], *, is_terminal: bool) -> Callable[[Iterable[object]], None]:
    """Return a function that writes a row of CSV, with an apostrophe before text that a spreadsheet would run.

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
