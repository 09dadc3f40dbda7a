"""A few hundred membership changes through the queue, good ones and bad ones, and what became of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from meibo_local.aws import LocalAws

# An organization and a user of the right form that the simulated tenant does not have.
_NO_ORGANIZATION = "org_0000000000000404"
_NO_USER = "auth0|000000000000000000000404"
_DRAIN_SECONDS = 300.0


@dataclass(frozen=True)
class SampleChange:
    """One message, and the outcomes that it must have."""

    body: str
    group: str
    outcomes: Mapping[str, int]
    dead_letters: int = 0


@dataclass
class SampleChangesResult:
    """What was sent and what came of it."""

    sent: int
    drained: bool
    expected: Counter[str]
    found: Counter[str]
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        """Whether every id has the outcome that it must have, and the dead letters are those of the rejected."""
        return self.drained and self.expected == self.found

    def table(self) -> Table:
        """Return the summary."""
        table = Table(
            title=f"changes: {self.sent} sent, {'all' if self.drained else 'not all'} done",
            title_justify="left",
            box=None,
            pad_edge=False,
        )
        table.add_column("outcome")
        table.add_column("number", justify="right")
        table.add_column("checked")
        for name in ("applied", "rejected", "dry_run", "dead letters"):
            right = self.found[name] == self.expected[name]
            note = "[green]as expected[/]" if right else f"[red]{self.expected[name]} expected[/]"
            table.add_row(name.replace("_", " "), f"{self.found[name]:,}", note)
        return table


def send_sample_changes(aws: LocalAws, planned: Sequence[SampleChange]) -> SampleChangesResult:
    """Send the changes, let the function work the queue empty, and count the outcomes on record."""
    for one in planned:
        aws.changes.send(one.body, group=one.group)
    drained = aws.changes.source.drain(_DRAIN_SECONDS)
    found: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for key in aws.keys("changes/"):
        for line in map(json.loads, aws.read(key).decode().splitlines()):
            found[line["outcome"]] += 1
            if line["outcome"] == "rejected":
                reasons[line["code"]] += 1
    found["dead letters"] = aws.changes.dead_letter_count()
    expected: Counter[str] = Counter()
    for one in planned:
        expected.update(one.outcomes)
        expected["dead letters"] += one.dead_letters
    return SampleChangesResult(len(planned), drained, expected, found, reasons)


def sample_changes(
    source: str, organizations: Sequence[str], users: Sequence[str], roles: Sequence[str], *, count: int = 300
) -> list[SampleChange]:
    """Make up changes; one in ten is bad in one of the ways in which changes are bad."""
    return list(_planned(source, organizations, users, roles, count))


def _planned(
    source: str, organizations: Sequence[str], users: Sequence[str], roles: Sequence[str], count: int
) -> Iterator[SampleChange]:
    began = datetime.now(UTC)
    for number in range(count):
        organization = organizations[number % len(organizations)]
        start = number * 5 % len(users)
        size = min(len(users), 1 + number % 12)
        members = [users[(start + position) % len(users)] for position in range(size)]
        change: dict[str, Any] = {
            "version": 1,
            "change_id": f"rehearsal-{began:%Y%m%dT%H%M%SZ}-{number:03d}",
            "source": source,
            "organization_id": organization,
            "action": "remove" if number % 3 == 2 else "add",
            "members": members,
            "requested_by": "make run",
        }
        outcomes, dead = {"applied": size}, 0
        # Ten different numbers, so that removals and additions are bad in turn.
        kind = number // 10 % 6 if number % 10 == 9 else None
        if kind == 0:
            change["action"] = "add"
            change["members"] = [*members, _NO_USER]
            outcomes, dead = {"applied": size, "rejected": 1}, 1
        elif kind == 1:
            change["members"] = [one.partition("|")[2] for one in members]
            outcomes, dead = {"rejected": size}, 1
        elif kind == 2:
            change["organization_id"] = _NO_ORGANIZATION
            outcomes, dead = {"rejected": size}, 1
        elif kind == 3:
            change |= {"action": "remove", "confirm_removals": size + 1}
            outcomes, dead = {"rejected": size}, 1
        elif kind == 4:
            change["surprise"] = True
            outcomes, dead = {"rejected": size}, 1
        elif kind == 5:
            change["dry_run"] = True
            outcomes = {"dry_run": size}
        elif number % 7 == 0 and change["action"] == "add" and roles:
            change["roles"] = [roles[number % len(roles)]]
        yield SampleChange(json.dumps(change), change["organization_id"], outcomes, dead)
