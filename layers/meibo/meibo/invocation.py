"""What a function knows of its invocation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def time_left(context: Any) -> Callable[[], float]:
    """Return what tells the seconds until the invocation's time-out, from the context that Lambda gives."""
    return lambda: context.get_remaining_time_in_millis() / 1000
