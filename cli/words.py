"""How numbers and ages are spelled on a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from meibo.archive.keys import run_moment

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def number(value: int | None) -> str:
    """Return a number with its thousands apart, or a dash where it is not known."""
    return "–" if value is None else f"{value:,}"


def age_seconds(run_id: str, now: datetime | None = None) -> int:
    """Return how long ago a run was scheduled."""
    return int(((now or datetime.now(UTC)) - run_moment(run_id)).total_seconds())


def age(seconds: int) -> str:
    """Return an age in its largest unit."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return "now"
