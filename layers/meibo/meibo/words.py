"""How counts and sizes are spelled for people, on a page and on a terminal."""

from __future__ import annotations


def counted(value: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not one."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def size(value: int) -> str:
    """Return bytes in the unit that leaves at most four digits."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"
