"""Format counts, sizes, ages and durations."""

from __future__ import annotations

from collections.abc import Sequence


def format_count(value: int, noun: str) -> str:
    """Return a number with a noun, which is in the plural unless the number is 1."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def format_choices(values: Sequence[str]) -> str:
    """Return values as a list with commas, and ``or`` before the last value."""
    return " or ".join(filter(None, (", ".join(values[:-1]), values[-1])))


def format_bytes(value: int) -> str:
    """Return a number of bytes in a suitable unit, for example ``1.5 MB``."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def format_number(value: int | None) -> str:
    """Return a number with thousands separators, or a dash if it is None."""
    return "–" if value is None else f"{value:,}"


def format_age(seconds: int) -> str:
    """Return an age in days, hours or minutes, or ``now`` if it is less than a minute."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return "now"


def format_duration(seconds: int, units: tuple[str, str, str] = ("{count} h", "{count} min", "{count} s")) -> str:
    """Return a duration in hours, minutes and seconds, for example ``1 h 5 s``.

    Units with the value 0 are omitted, but a duration of 0 is ``0 s``. ``units`` contains the format of each unit.
    """
    counts = (seconds // 3600, seconds // 60 % 60, seconds % 60)
    parts = [unit.format(count=count) for count, unit in zip(counts, units, strict=True) if count]
    return " ".join(parts) or units[-1].format(count=0)
