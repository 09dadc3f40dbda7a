"""Format counts, sizes and ages for a page or a terminal."""

from __future__ import annotations

import unicodedata
from typing import Final

from rich.markup import escape


def format_count(value: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not one."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def format_bytes(value: int) -> str:
    """Return bytes in the unit that leaves at most four digits."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
# Control and format characters (terminal escapes, text direction, zero width), lone surrogates, line separators.
_UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def escape_control_characters(text: str) -> str:
    """Return the text with each character that could control a terminal as a JSON escape such as ``\\u001b``.

    A JSON document on one line stays the same document.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _json_escape(character) if unicodedata.category(character) in _UNSAFE_CATEGORIES else character
        for character in text
    )


def printable(text: object) -> str:
    """Return Rich markup that prints archived or received text as it is, with control characters escaped.

    Print it with ``Console(emoji=False)``: Rich cannot escape emoji codes such as ``:cat:``.
    """
    return escape(escape_control_characters(str(text)))


def _json_escape(character: str) -> str:
    encoded = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{encoded[index : index + 4]}" for index in range(0, len(encoded), 4))


def format_number(value: int | None) -> str:
    """Return a number with its thousands apart, or a dash where it is not known."""
    return "–" if value is None else f"{value:,}"


def format_age(seconds: int) -> str:
    """Return an age in its largest unit."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return "now"
