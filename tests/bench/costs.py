"""Calculate the costs of runs, of storage and of verifications from measurements and list prices.

The prices are those of us-east-1 and x86 in November 2026, in USD.

``python -m tests.bench.costs`` prints the tables of storage classes and of the example in docs/operations.md.
"""

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
"""The memory of archive_export in the template, which corresponds to one vCPU."""

PART_BYTES = 5 * MIB
"""The default of ``CopyOptions.part_bytes``."""

SMALL_CALLS = 8
"""Invocations besides the copy, each with half a second and 512 MB: create, three checks, finish, retries."""

STORAGE: dict[str, tuple[float, float | None]] = {
    "STANDARD": (0.023, 0.0),
    "STANDARD_IA": (0.0125, 0.01),
    "GLACIER_IR": (0.004, 0.03),
    "GLACIER": (0.0036, None),
    "DEEP_ARCHIVE": (0.00099, None),
}
"""USD per GB-month, and USD per GB read (None if a restore is required). https://aws.amazon.com/s3/pricing/"""

INTELLIGENT_TIERS = [(30, 0.023), (60, 0.0125), (None, 0.004)]
"""Days in each tier of INTELLIGENT_TIERING, and USD per GB-month. A read is free and returns to the first tier."""

DAYS_PER_MONTH = 30

ALARM_MONTH, METRIC_MONTH = 0.10, 0.30
"""https://aws.amazon.com/cloudwatch/pricing/ (per metric of an alarm; a metric is charged per hour with values)"""

SECRET_MONTH = 0.40
"""https://aws.amazon.com/secrets-manager/pricing/"""

ADVANCED_PARAMETER_MONTH = 0.05
"""https://aws.amazon.com/systems-manager/pricing/"""

EXAMPLE_USERS, EXAMPLE_RUNS = 100_000, 365
EXAMPLE_BYTES_PER_USER = 120
"""NDJSON with gzip: the 2,999,065 bytes of 25,000 users in docs/terminal.svg."""

EXAMPLE_MIB_PER_SECOND = 51.0
"""The slower of the two formats in docs/performance.md, decoded and counted."""

EXAMPLE_METRICS = 14
"""The metrics in docs/operations.md, each with values in two hours per day: a run and a verification."""

USERS = [10_000, 100_000, 1_000_000, 10_000_000, 100_000_000]


@dataclass(frozen=True)
class Cost:
    """The size, duration and cost of a run with one export."""

    users: int
    bytes: int
    seconds: float
    usd: float


def transitions(polls: int) -> int:
    """Return the number of state transitions of an export whose job is pending for a number of checks."""
    definition = json.loads((ROOT / "statemachines/export.asl.json").read_text())
    states = next(
        state["ItemProcessor"]["States"] for state in definition["States"].values() if "ItemProcessor" in state
    )

    def shortest(begin: str, end: str) -> int:
        """Return the number of transitions of the shortest path from one state to another."""
        reached, latest, steps = {begin}, {begin}, 0
        while end not in latest:
            steps += 1
            following: set[str] = set()
            for name in latest:
                state = states[name]
                following |= {state.get("Next", ""), state.get("Default", "")}
                following |= {choice["Next"] for choice in state.get("Choices", [])}
            latest = following - reached - {""}
            reached |= latest
            if not latest:
                raise SystemExit(f"the workflow has changed: {begin} no longer leads to {end}")
        return steps

    stops = [
        "ChooseNextStep",
        "CheckExport",
        "JobStatus",
        *["WaitForJob", "JobStatus"] * polls,
        "ArchiveExport",
        "Archived",
    ]
    # Two more for the start of the execution and the first state.
    return 2 + sum(shortest(begin, end) for begin, end in pairwise(stops))


def cost(users: int, bytes_per_user: float, mib_per_second: float, polls: int = 3) -> Cost:
    """Return the cost of a run with one export of this number of users."""
    size = int(users * bytes_per_user)
    seconds = 1.0 + size / MIB / mib_per_second
    parts = max(1, -(-size // PART_BYTES))
    usd = (
        seconds * MEMORY_GB * LAMBDA_GB_SECOND
        + SMALL_CALLS * (LAMBDA_REQUEST + 0.5 * 0.5 * LAMBDA_GB_SECOND)
        + (transitions(polls) + 4) * TRANSITION
        + (parts + 6) * PUT_REQUEST
    )
    return Cost(users, size, seconds, usd)


def verified_storage(storage_class: str, days: int) -> float | None:
    """Return USD per GB-month for exports that are stored and read once in this number of days."""
    if storage_class == "INTELLIGENT_TIERING":
        total, left = 0.0, days
        for length, usd in INTELLIGENT_TIERS:
            spent = left if length is None else min(length, left)
            total += spent * usd
            left -= spent
        return total / days
    storage, read = STORAGE[storage_class]
    return None if read is None else storage + read * DAYS_PER_MONTH / days


def storage_table(rotation_days: int, cold_rotation_days: int) -> list[str]:
    """Return a Markdown table of the storage classes with their costs at both rotations."""

    def usd(value: float | None) -> str:
        return "–" if value is None else f"{value:.4f}"

    rotations = (rotation_days, cold_rotation_days)
    header = ["storage class", "stored", "read once", *(f"read every {days} days" for days in rotations)]
    rows = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name, (storage, read) in STORAGE.items():
        both = [usd(verified_storage(name, days)) for days in rotations]
        rows.append(f"| `{name}` | {usd(storage)} | {usd(read)} | {' | '.join(both)} |")
    both = [usd(verified_storage("INTELLIGENT_TIERING", days)) for days in rotations]
    prices = [usd(price) for _, price in INTELLIGENT_TIERS]
    rows.append(f"| `INTELLIGENT_TIERING` | {prices[0]} to {prices[-1]} | {usd(0)} | {' | '.join(both)} |")
    return rows


def example_table(alarms: list[int]) -> list[str]:
    """Return a Markdown table of a year of daily runs with one export of users.

    ``alarms`` contains the number of metrics of each alarm.
    """
    run = cost(EXAMPLE_USERS, EXAMPLE_BYTES_PER_USER, EXAMPLE_MIB_PER_SECOND)
    gigabytes = run.bytes * EXAMPLE_RUNS / 1e9
    # A verification reads the two newest runs and, on average over the year, a thirtieth of half of the others.
    verified = cost(EXAMPLE_USERS * (2 + EXAMPLE_RUNS // 2 // 30), EXAMPLE_BYTES_PER_USER, EXAMPLE_MIB_PER_SECOND)
    items = {
        f"Lambda, Step Functions and S3 requests of {EXAMPLE_RUNS} runs": run.usd * EXAMPLE_RUNS,
        f"Lambda and S3 requests of {EXAMPLE_RUNS} verifications": verified.usd * EXAMPLE_RUNS,
        f"S3 Standard storage, which grows to {gigabytes:.1f} GB": gigabytes / 2 * STORAGE["STANDARD"][0] * 12,
        f"{len(alarms)} CloudWatch alarms with {sum(alarms)} metrics": sum(alarms) * ALARM_MONTH * 12,
        f"{EXAMPLE_METRICS} CloudWatch metrics": EXAMPLE_METRICS * METRIC_MONTH * 2 / 24 * 12,
        "1 secret and 1 advanced parameter": (SECRET_MONTH + ADVANCED_PARAMETER_MONTH) * 12,
    }
    rows = [f"| {name} | {usd:.2f} |" for name, usd in items.items()]
    return ["| item | USD per year |", "|---|---|", *rows, f"| **total** | **{sum(items.values()):.2f}** |"]


def alarms_in_template() -> list[int]:
    """Return the number of metrics of each alarm in the template."""
    # The environment of ``make bench`` does not contain the SAM translator.
    from meibo_local.template import read_template  # noqa: PLC0415

    alarms = [
        resource["Properties"]
        for resource in read_template()["Resources"].values()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    ]
    return [sum("MetricStat" in metric for metric in alarm.get("Metrics", ())) or 1 for alarm in alarms]


if __name__ == "__main__":
    print("\n".join([*storage_table(30, 360), "", *example_table(alarms_in_template())]))
