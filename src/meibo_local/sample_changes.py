"""Valid and invalid membership changes with their expected outcomes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from meibo_local.aws import LocalAws

# Well-formed ids that the simulated tenant does not have.
_MISSING_ORGANIZATION = "org_0000000000000404"
_MISSING_USER = "auth0|000000000000000000000404"
_DRAIN_SECONDS = 300.0


@dataclass(frozen=True)
class SampleChange:
    """A message with its expected outcomes."""

    body: str
    group: str
    outcomes: Mapping[str, int]
    dead_letters: int = 0


@dataclass
class SampleChangesResult:
    """The expected and actual numbers of outcomes, and the reasons for rejections."""

    sent: int
    drained: bool
    expected: Counter[str]
    actual: Counter[str]
    reasons: Counter[str]

    @property
    def ok(self) -> bool:
        """True if all messages were processed with the expected outcomes."""
        return self.drained and self.expected == self.actual

    def table(self) -> Table:
        """Return the results as a table."""
        processed = "all" if self.drained else "not all"
        table = Table(
            title=f"changes: {self.sent} sent, {processed} processed", title_justify="left", box=None, pad_edge=False
        )
        table.add_column("outcome")
        table.add_column("number", justify="right")
        table.add_column("checked")
        for name in ("applied", "rejected", "dry_run", "DLQ messages"):
            actual, expected = self.actual[name], self.expected[name]
            note = "[green]as expected[/]" if actual == expected else f"[red]{expected} expected[/]"
            table.add_row(name.replace("_", " "), f"{actual:,}", note)
        return table


def send_sample_changes(aws: LocalAws, changes: Sequence[SampleChange]) -> SampleChangesResult:
    """Send the changes, process the queue until it is empty, and count the outcome records."""
    expected: Counter[str] = Counter()
    for change in changes:
        aws.changes.send(change.body, group=change.group)
        expected.update({**change.outcomes, "DLQ messages": change.dead_letters})
    drained = aws.changes.source.drain(_DRAIN_SECONDS)
    records = [json.loads(line) for key in aws.keys("changes/") for line in aws.read(key).decode().splitlines()]
    actual = Counter(record["outcome"] for record in records)
    actual["DLQ messages"] = aws.changes.dead_letter_count()
    reasons = Counter(record["code"] for record in records if record["outcome"] == "rejected")
    return SampleChangesResult(len(changes), drained, expected, actual, reasons)


def sample_changes(
    source: str, organizations: Sequence[str], users: Sequence[str], roles: Sequence[str], *, count: int = 300
) -> list[SampleChange]:
    """Return ``count`` changes. One in ten is invalid or a dry run."""
    return list(_changes(source, organizations, users, roles, count))


def _changes(
    source: str, organizations: Sequence[str], users: Sequence[str], roles: Sequence[str], count: int
) -> Iterator[SampleChange]:
    started = datetime.now(UTC)
    for number in range(count):
        first = number * 5 % len(users)
        size = min(len(users), 1 + number % 12)
        members = [users[(first + position) % len(users)] for position in range(size)]
        change: dict[str, Any] = {
            "version": 1,
            "change_id": f"rehearsal-{started:%Y%m%dT%H%M%SZ}-{number:03d}",
            "source": source,
            "organization_id": organizations[number % len(organizations)],
            "action": "remove" if number % 3 == 2 else "add",
            "members": members,
            "requested_by": "make run",
        }
        outcomes, dead_letters = {"applied": size}, 0
        if number % 10 == 9:
            modification, outcomes = _special_case(number // 10 % 6, members)
            change |= modification
            dead_letters = int("rejected" in outcomes)
        elif number % 7 == 0 and change["action"] == "add" and roles:
            change["roles"] = [roles[number % len(roles)]]
        yield SampleChange(json.dumps(change), change["organization_id"], outcomes, dead_letters)


def _special_case(number: int, members: list[str]) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the properties of an invalid change or a dry run, and its outcomes."""
    size = len(members)
    rejected = {"rejected": size}
    cases: list[tuple[dict[str, Any], dict[str, int]]] = [
        ({"action": "add", "members": [*members, _MISSING_USER]}, {"applied": size, "rejected": 1}),
        ({"members": [member.partition("|")[2] for member in members]}, rejected),
        ({"organization_id": _MISSING_ORGANIZATION}, rejected),
        ({"action": "remove", "confirm_removals": size + 1}, rejected),
        ({"surprise": True}, rejected),
        ({"dry_run": True}, {"dry_run": size}),
    ]
    return cases[number]
