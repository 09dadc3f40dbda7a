"""Whatever happens on the way, organizations end as the changes say and every id has one outcome.

Random changes, duplicates of messages, groups in any order, and at every call of the provider 429, 5xx, resets before
and after the request took effect, and time-outs. Writing a record, sending a dead letter and hiding a message fail too,
and the function dies between any two steps.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meibo.changes.messages import QueueMessage
from meibo.changes.queue import DeadLetter
from meibo_simulators import SimulatedTenant
from tests.support.changes import ChangeQueueHarness
from tests.support.memory_archive import MemoryStorage
from tests.support.wsgi import Instead

ORGANIZATIONS, PEOPLE, MAX_REMOVALS = 2, 12, 4
UNKNOWN = [f"auth0|00000000000000000000ff{number:02x}" for number in range(3)]
WRONG = ["no-prefix", "auth0|", ""]
FAULTS = ("429", "429 with Retry-After", "500", "503", "reset", "reset after", "time-out", "time-out after", "html")


@dataclass(frozen=True)
class Asked:
    """What a random change says, in numbers."""

    organization: int
    action: str
    members: list[int]
    unknown: list[int]
    dry_run: bool
    confirm: str | None
    wrong: str | None
    copies: int


CHANGES = st.builds(
    Asked,
    organization=st.integers(0, ORGANIZATIONS - 1),
    action=st.sampled_from(["add", "remove"]),
    members=st.lists(st.integers(0, PEOPLE - 1), min_size=1, max_size=PEOPLE, unique=True),
    unknown=st.lists(st.integers(0, len(UNKNOWN) - 1), max_size=2, unique=True),
    dry_run=st.sampled_from([False, False, False, False, True]),
    confirm=st.sampled_from(["right", "right", None, "wrong"]),
    wrong=st.sampled_from([None] * 6 + WRONG),
    copies=st.sampled_from([1, 1, 1, 2]),
)


class DiedError(BaseException):
    """The function's process ended here."""


class Chance:
    """Decides at every call whether it fails; ``share`` 0 lets everything through."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # dice that fall the same again
        self.share = 0.0
        self.deadly = 0.0

    def fault(self) -> str | None:
        return self.random.choice(FAULTS) if self.random.random() < self.share else None

    def strike(self) -> None:
        if self.random.random() < self.deadly:
            raise DiedError
        if self.random.random() < self.share / 2:
            raise ConnectionError("aws")


class UnreliableStore(MemoryStorage):
    """A store whose writes fail or kill sometimes, before or after they took effect."""

    def __init__(self, chance: Chance) -> None:
        super().__init__()
        self.chance = chance

    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:
        self.chance.strike()
        written = super().put_bytes(key, body, content_type=content_type)
        self.chance.strike()
        return written

    def read(self, key: str) -> bytes | None:
        self.chance.strike()
        return super().read(key)

    def all_lines(self) -> list[Any]:
        """Return every line, for the test itself."""
        return [json.loads(line) for body in self.objects.values() for line in body.splitlines()]


class UnreliableQueue:
    """The function's side of the queue, whose calls fail sometimes."""

    def __init__(self, world: ChangeQueueHarness, chance: Chance) -> None:
        self.world = world
        self.chance = chance

    def set_visibility_timeout(self, unprocessed: Sequence[QueueMessage], seconds: int) -> None:
        self.chance.strike()
        self.world.queue.set_visibility_timeout(unprocessed, seconds)

    def send_dead_letter(self, letter: DeadLetter) -> None:
        self.chance.strike()
        self.world.queue.send_dead_letter(letter)
        self.chance.strike()


class Changes(RuleBasedStateMachine):
    """The queue, the function and the tenant, beside a model of the organizations."""

    @initialize(seed=st.integers(0, 2**32), unknown=st.sampled_from(["refuse", "ignore"]))
    def begin(self, seed: int, unknown: str) -> None:
        self.chance = Chance(seed)
        tenant = SimulatedTenant("acme", users=PEOPLE, organizations=ORGANIZATIONS, members=0)
        tenant.switches.unknown_member = "refuse" if unknown == "refuse" else "ignore"
        tenant.switches.rate_tier = "essentials"
        self.storage = UnreliableStore(self.chance)
        self.world = ChangeQueueHarness(tenant, seconds=0.1, max_removals=MAX_REMOVALS, storage=self.storage)
        self.world.function_queue = UnreliableQueue(self.world, self.chance)
        self.world.adapter.before, self.world.adapter.after = self.before, self.after
        self.late: str | None = None
        self.source = self.world.source()
        self.people = [user["user_id"] for user in tenant.expected_users()]
        self.model: list[set[str]] = [set() for _ in range(ORGANIZATIONS)]
        #: message id -> what each member's outcome must be
        self.expected: dict[str, dict[str, str]] = {}

    # -- the provider's faults

    def before(self, request: requests.PreparedRequest) -> Instead | None:
        self.late = None
        fault = self.chance.fault()
        now = self.world.clock.now()
        if fault in ("500", "503", "html"):
            return Instead({"500": 500, "503": 503, "html": 502}[fault], body=b"<html></html>")
        if fault == "429":
            return Instead(429, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(now) + 2)})
        if fault == "429 with Retry-After":
            return Instead(429, {"Retry-After": str(self.chance.random.choice((1, 1200, 1200)))})
        if fault == "reset":
            raise requests.ConnectionError
        if fault == "time-out":
            self.world.clock.sleep(30)
            raise requests.ReadTimeout
        self.late = fault
        return None

    def after(self, request: requests.PreparedRequest) -> None:
        if self.late == "reset after":
            raise requests.ConnectionError
        if self.late == "time-out after":
            self.world.clock.sleep(30)
            raise requests.ReadTimeout

    # -- what happens

    @rule(changes=st.lists(CHANGES, min_size=1, max_size=8))
    def send(self, changes: list[Asked]) -> None:
        for change in changes:
            self._send(change)

    def _send(self, asked: Asked) -> None:
        named = [self.people[number] for number in asked.members] + [UNKNOWN[number] for number in asked.unknown]
        self.chance.random.shuffle(named)
        named += [] if asked.wrong is None else [asked.wrong]
        more: dict[str, Any] = {"dry_run": True} if asked.dry_run else {}
        removing = asked.action == "remove"
        if asked.confirm and removing:
            more["confirm_removals"] = len(named) + (asked.confirm == "wrong")
        unconfirmed = asked.confirm is None and len(named) > MAX_REMOVALS
        invalid = asked.wrong is not None or (removing and (asked.confirm == "wrong" or unconfirmed))
        for copy in range(asked.copies):
            unique = f"{len(self.expected)}-{copy}"
            message = self.world.send(
                *named, action=asked.action, organization=asked.organization, unique=unique, **more
            )
            if invalid:
                self.expected[message] = dict.fromkeys(named, "rejected")
                continue
            bad = set(UNKNOWN) if self._refused(asked.action, dry_run=asked.dry_run) else set()
            good = "dry_run" if asked.dry_run else "applied"
            self.expected[message] = {member: "rejected" if member in bad else good for member in named}
            if not asked.dry_run:
                members, here = self.model[asked.organization], set(named) - set(UNKNOWN)
                self.model[asked.organization] = members - here if removing else members | here

    def _refused(self, action: str, *, dry_run: bool) -> bool:
        return action == "add" and (dry_run or self.world.tenant.switches.unknown_member == "refuse")

    @rule(share=st.sampled_from([0.0, 0.1, 0.5]), deadly=st.sampled_from([0.0, 0.0, 0.05, 0.2]))
    def weather(self, share: float, deadly: float) -> None:
        self.chance.share, self.chance.deadly = share, deadly

    @rule(seconds=st.sampled_from([1, 30, 300, 1800]))
    def wait(self, seconds: int) -> None:
        self.world.clock.sleep(seconds)

    @rule()
    def restart(self) -> None:
        """Take a fresh execution environment."""
        self.source = self.world.source()

    @rule()
    def reorder_groups(self) -> None:
        """Let other organizations come first; within one the order stays."""
        groups: dict[str, list[Any]] = {}
        for message in self.world.queue.messages:
            groups.setdefault(message.group, []).append(message)
        names = list(groups)
        self.chance.random.shuffle(names)
        self.world.queue.messages = [message for name in names for message in groups[name]]

    @precondition(lambda self: self.world.queue.size())
    @rule()
    def deliver(self) -> None:
        try:
            self.source.poll()
        except DiedError:
            self.source = self.world.source()

    @precondition(lambda self: self.world.queue.size())
    @rule()
    def drain(self) -> None:
        self.chance.share = self.chance.deadly = 0.0
        self.world.drain()
        self._check()

    # -- what must be so

    @invariant()
    def no_member_has_two_outcomes(self) -> None:
        if not hasattr(self, "world"):
            return
        lines = Counter((line["message_id"], line["member"]) for line in self.storage.all_lines())
        assert [one for one, times in lines.items() if times > 1] == []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.chance.share = self.chance.deadly = 0.0
            self.world.drain()
            self._check()

    def _check(self) -> None:
        for organization, model in enumerate(self.model):
            assert self.world.members(organization) == model
        for message, expected in self.expected.items():
            outcomes = {member or "": outcome for member, outcome in self.world.outcomes(message).items()}
            # An empty id names nobody, so its rejection stands under the message's other ids.
            assert outcomes == {member: outcome for member, outcome in expected.items() if member}
        assert not self.world.queue.expired
        for letter in self.world.letters():
            assert set(letter["members"]) & {*UNKNOWN, *WRONG} or letter["action"] == "remove"


# A failure takes its time to be made small.
TestChanges = pytest.mark.timeout(900)(Changes.TestCase)
TestChanges.settings = settings(
    max_examples=80,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
