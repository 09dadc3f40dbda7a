"""Seconds and USD of one run, from what was measured and from list prices (us-east-1, x86, 2026-11)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise

from tests.bench.contenders import ROOT

MIB = 1024 * 1024

LAMBDA_GB_SECOND = 0.0000166667
"""https://aws.amazon.com/lambda/pricing/"""

LAMBDA_REQUEST = 0.20 / 1_000_000
TRANSITION = 0.025 / 1000
"""https://aws.amazon.com/step-functions/pricing/ (standard workflows)"""

PUT_REQUEST = 0.005 / 1000
"""https://aws.amazon.com/s3/pricing/ (S3 Standard; uploads are free of transfer charges)"""

MEMORY_GB = 1769 / 1024
"""The template's default for archive_export: one whole vCPU."""

PART_BYTES = 8 * MIB
SMALL_CALLS = 8
"""Invocations beside the copy, of half a second and 512 MB each: create, three checks, finish, retries."""

USERS = [10_000, 100_000, 1_000_000, 10_000_000, 100_000_000]


@dataclass(frozen=True)
class Cost:
    """One run of one export."""

    users: int
    bytes: int
    seconds: float
    usd: float


def transitions(polls: int) -> int:
    """Count the state transitions of one export whose job was pending for some polls, along the real workflow."""
    definition = json.loads((ROOT / "statemachines/export.asl.json").read_text())
    states = next(
        state["ItemProcessor"]["States"] for state in definition["States"].values() if "ItemProcessor" in state
    )

    def shortest(begin: str, end: str) -> int:
        """Count the transitions from one state to another on the shortest way."""
        reached, edge, steps = {begin}, {begin}, 0
        while end not in edge:
            steps += 1
            ways: set[str] = set()
            for name in edge:
                state = states[name]
                ways |= {state.get("Next", ""), state.get("Default", "")}
                ways |= {choice["Next"] for choice in state.get("Choices", [])}
            edge = ways - reached - {""}
            reached |= edge
            if not edge:
                raise SystemExit(f"the workflow has changed: {begin} no longer leads to {end}")
        return steps

    stops = ["WhatNext", "CheckExport", "JobStatus", *["WaitForJob", "JobStatus"] * polls, "ArchiveExport", "Archived"]
    return 2 + sum(shortest(begin, end) for begin, end in pairwise(stops))  # with the start and the first state


def cost(users: int, bytes_a_user: float, mib_a_second: float, polls: int = 3) -> Cost:
    """Compute a run of one export of that many users."""
    size = int(users * bytes_a_user)
    seconds = 1.0 + size / MIB / mib_a_second
    parts = max(1, -(-size // PART_BYTES))
    usd = (
        seconds * MEMORY_GB * LAMBDA_GB_SECOND
        + SMALL_CALLS * (LAMBDA_REQUEST + 0.5 * 0.5 * LAMBDA_GB_SECOND)
        + (transitions(polls) + 4) * TRANSITION
        + (parts + 6) * PUT_REQUEST
    )
    return Cost(users, size, seconds, usd)
