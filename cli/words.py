"""How numbers and times are spelled for people."""

from __future__ import annotations

from datetime import UTC, datetime

from meibo.archive.keys import run_moment

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def number(value: int | None) -> str:
    """Return a number with its thousands apart, or a dash where it is not known."""
    return "–" if value is None else f"{value:,}"


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


def age_seconds(run_id: str, now: datetime | None = None) -> int:
    """Return how long ago a run was scheduled."""
    return int(((now or datetime.now(UTC)) - run_moment(run_id)).total_seconds())


def age(seconds: int) -> str:
    """Return an age in its largest unit."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return "now"
