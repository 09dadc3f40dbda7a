"""Format counts, sizes, ages and durations for a page or a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def format_count(value: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def format_choices(values: Sequence[str]) -> str:
    """Return values as a list with commas, and ``or`` before the last value."""
    return " or ".join(filter(None, (", ".join(values[:-1]), values[-1])))


def format_bytes(value: int) -> str:
    """Return a number of bytes in the largest unit that is not larger than it."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def format_number(value: int | None) -> str:
    """Return a number with thousands separators, or a dash if it is not known."""
    return "–" if value is None else f"{value:,}"


def format_age(seconds: int) -> str:
    """Return an age in its largest unit."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return "now"


def format_duration(seconds: int, units: tuple[str, str, str] = ("{count} h", "{count} min", "{count} s")) -> str:
    """Return a duration in hours, minutes and seconds, without the units that are 0."""
    counts = (seconds // 3600, seconds // 60 % 60, seconds % 60)
    parts = [unit.format(count=count) for count, unit in zip(counts, units, strict=True) if count]
    return " ".join(parts) or units[-1].format(count=0)
