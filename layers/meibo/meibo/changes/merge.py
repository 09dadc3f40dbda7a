"""How the changes of one organization become few requests without changing what they mean.

Changes of different users commute, changes of one user do not. So each user's changes keep their order, and what
belongs to others is gathered: n ids with the same action cost ⌈n/10⌉ requests however they are spread over
messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from meibo.changes.messages import Change
from meibo.providers.auth0.membership import MAX_MEMBERS


@dataclass
class Step:
    """One action on users of one organization: ``members`` maps each id to the changes (by index) that ask for it.

    ``alone`` steps belong to one change and are done id by id: invitations, and the look-ups of a dry run.
    """

    source: str
    action: Literal["add", "remove", "invite"]
    alone: bool = False
    members: dict[str, list[int]] = field(default_factory=dict)

    def requests(self) -> Iterator[list[str]]:
        """Yield the ids in portions that fit into one request."""
        ids = iter(self.members)
        while portion := list(islice(ids, 1 if self.alone else MAX_MEMBERS)):
            yield portion


def merge(changes: Sequence[tuple[int, Change, Sequence[str]]]) -> list[Step]:
    """Return the steps for (index, change, the members that are still to be done), which come in order."""
    steps: list[Step] = []
    # The last step that touches a user of a source.
    last: dict[tuple[str, str], int] = {}
    for index, change, members in changes:
        if change.dry_run or change.action == "invite":
            step = Step(change.source, change.action, alone=True, members={member: [index] for member in members})
            steps.append(step)
            continue
        for member in members:
            user = (change.source, member)
            number = _place(steps, change, after=last.get(user))
            steps[number].members.setdefault(member, []).append(index)
            last[user] = number
    return [step for step in steps if step.members]


def _place(steps: list[Step], change: Change, after: int | None) -> int:
    """Return the first step that may take a user of the change, which comes after his step ``after``."""
    for number in range(after or 0, len(steps)):
        step = steps[number]
        if not step.alone and (step.source, step.action) == (change.source, change.action):
            return number
    steps.append(Step(change.source, change.action))
    return len(steps) - 1
