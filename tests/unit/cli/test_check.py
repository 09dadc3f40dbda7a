"""The expected duration of a run, from the durations of its sources."""

from __future__ import annotations

import pytest

from meibo.providers.checks import expected_run, round_duration
from meibo_cli.commands.check import Outcome, duration


def outcomes(**seconds: float) -> list[Outcome]:
    return [Outcome(name, "expected run", "ok", "", seconds=value) for name, value in seconds.items()]


@pytest.mark.parametrize(
    ("seconds", "parallel", "expected"),
    [
        ({}, 4, 0),
        ({"acme": 90}, 4, 90),
        ({"acme": 90, "example": 10}, 4, 90),
        ({"acme": 90, "example": 90, "other": 90}, 2, 135),
    ],
)
def test_duration_is_that_of_the_longest_source_or_of_all_in_parallel(
    seconds: dict[str, float], parallel: int, expected: float
) -> None:
    assert duration(outcomes(**seconds), parallel) == expected


@pytest.mark.parametrize(
    ("seconds", "rounded"), [(0, 1), (0.2, 1), (61.5, 62), (119, 119), (121, 180), (12_120, 12_120)]
)
def test_durations_are_rounded_up(seconds: float, rounded: int) -> None:
    assert round_duration(seconds) == rounded


def test_estimate_states_requests_and_duration() -> None:
    assert expected_run(10_100, 12_120).detail == "10,100 requests, about 3 h 22 min"
    assert expected_run(1, 0.1, ", and more", at_least=True).detail == "at least 1 request, about 1 s, and more"
