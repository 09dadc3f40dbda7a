"""Under random faults, organizations have the members that the changes require, and every id has a single outcome.

The test sends random changes, duplicates of messages, and groups in any order. Requests to the provider return 429 or
5xx, time out, or are reset before or after they took effect. Writing a record, sending a DLQ message and setting the
visibility timeout fail, and the function is terminated between any two steps.
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
from tests.support.changes import ChangeQueueHarness, TerminatedError
from tests.support.memory_archive import MemoryStorage
from tests.support.wsgi import ReplacedResponse

ORGANIZATIONS, PEOPLE, MAX_REMOVALS = 2, 12, 4
UNKNOWN = [f"auth0|00000000000000000000ff{number:02x}" for number in range(3)]
WRONG = ["no-prefix", "auth0|", ""]
FAULTS = ("429", "429 with Retry-After", "500", "503", "reset", "reset after", "timeout", "timeout after", "html")


@dataclass(frozen=True)
class RandomChange:
    """The parameters of a random change."""

    organization: int
    action: str
    members: list[int]
    unknown: list[int]
    dry_run: bool
    confirm: str | None
    wrong: str | None
    copies: int


CHANGES = st.builds(
    RandomChange,
    organization=st.integers(0, ORGANIZATIONS - 1),
    action=st.sampled_from(["add", "remove"]),
    members=st.lists(st.integers(0, PEOPLE - 1), min_size=1, max_size=PEOPLE, unique=True),
    unknown=st.lists(st.integers(0, len(UNKNOWN) - 1), max_size=2, unique=True),
    dry_run=st.sampled_from([False, False, False, False, True]),
    confirm=st.sampled_from(["right", "right", None, "wrong"]),
    wrong=st.sampled_from([None] * 6 + WRONG),
    copies=st.sampled_from([1, 1, 1, 2]),
)


class RandomFaults:
    """Decides at random which calls fail and when the function is terminated."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # reproducible
        self.fault_rate = 0.0
        self.termination_rate = 0.0

    def fault(self) -> str | None:
        return self.random.choice(FAULTS) if self.random.random() < self.fault_rate else None

    def fail_or_terminate(self) -> None:
        if self.random.random() < self.termination_rate:
            raise TerminatedError
        if self.random.random() < self.fault_rate / 2:
            raise ConnectionError("aws")


class UnreliableStore(MemoryStorage):
    """A store whose writes sometimes fail or terminate the function, before or after they took effect."""

    def __init__(self, faults: RandomFaults) -> None:
        super().__init__()
        self.faults = faults

    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:
        self.faults.fail_or_terminate()
        written = super().put_bytes(key, body, content_type=content_type)
        self.faults.fail_or_terminate()
        return written

    def read(self, key: str) -> bytes | None:
        self.faults.fail_or_terminate()
        return super().read(key)

    def all_lines(self) -> list[Any]:
        """Return every line without faults."""
        return [json.loads(line) for body in self.objects.values() for line in body.splitlines()]


class UnreliableQueue:
    """The queue that the function calls. Some of the calls fail."""

    def __init__(self, harness: ChangeQueueHarness, faults: RandomFaults) -> None:
        self.harness = harness
        self.faults = faults

    def set_visibility_timeout(self, unprocessed: Sequence[QueueMessage], seconds: int) -> None:
        self.faults.fail_or_terminate()
        self.harness.queue.set_visibility_timeout(unprocessed, seconds)

    def send_dead_letter(self, dead_letter: DeadLetter) -> None:
        self.faults.fail_or_terminate()
        self.harness.queue.send_dead_letter(dead_letter)
        self.faults.fail_or_terminate()


class Changes(RuleBasedStateMachine):
    """The queue, the function and the tenant, and a model of the organizations."""

    @initialize(seed=st.integers(0, 2**32), unknown=st.sampled_from(["refuse", "ignore"]))
    def begin(self, seed: int, unknown: str) -> None:
        self.faults = RandomFaults(seed)
        tenant = SimulatedTenant("acme", users=PEOPLE, organizations=ORGANIZATIONS, members=0)
        tenant.switches.unknown_member = "refuse" if unknown == "refuse" else "ignore"
        tenant.switches.rate_tier = "essentials"
        self.storage = UnreliableStore(self.faults)
        self.harness = ChangeQueueHarness(tenant, seconds=0.1, max_removals=MAX_REMOVALS, storage=self.storage)
        self.harness.function_queue = UnreliableQueue(self.harness, self.faults)
        self.harness.adapter.before, self.harness.adapter.after = self.before, self.after
        self.late: str | None = None
        self.source = self.harness.source()
        self.user_ids = [user["user_id"] for user in tenant.expected_users()]
        self.model: list[set[str]] = [set() for _ in range(ORGANIZATIONS)]
        #: The expected outcome of each member, by message id.
        self.expected: dict[str, dict[str, str]] = {}

    # -- faults of the provider

    def before(self, request: requests.PreparedRequest) -> ReplacedResponse | None:
        self.late = None
        fault = self.faults.fault()
        now = self.harness.clock.now()
        if fault in ("500", "503", "html"):
            return ReplacedResponse({"500": 500, "503": 503, "html": 502}[fault], body=b"<html></html>")
        if fault == "429":
            return ReplacedResponse(429, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(now) + 2)})
        if fault == "429 with Retry-After":
            return ReplacedResponse(429, {"Retry-After": str(self.faults.random.choice((1, 1200, 1200)))})
        if fault == "reset":
            raise requests.ConnectionError
        if fault == "timeout":
            self.harness.clock.sleep(30)
            raise requests.ReadTimeout
        self.late = fault
        return None

    def after(self, request: requests.PreparedRequest) -> None:
        if self.late == "reset after":
            raise requests.ConnectionError
        if self.late == "timeout after":
            self.harness.clock.sleep(30)
            raise requests.ReadTimeout

    # -- rules

    @rule(changes=st.lists(CHANGES, min_size=1, max_size=8))
    def send(self, changes: list[RandomChange]) -> None:
        for change in changes:
            self._send(change)

    def _send(self, change: RandomChange) -> None:
        named = [self.user_ids[number] for number in change.members] + [UNKNOWN[number] for number in change.unknown]
        self.faults.random.shuffle(named)
        named += [] if change.wrong is None else [change.wrong]
        more: dict[str, Any] = {"dry_run": True} if change.dry_run else {}
        removing = change.action == "remove"
        if change.confirm and removing:
            more["confirm_removals"] = len(named) + (change.confirm == "wrong")
        unconfirmed = change.confirm is None and len(named) > MAX_REMOVALS
        invalid = change.wrong is not None or (removing and (change.confirm == "wrong" or unconfirmed))
        for copy in range(change.copies):
            unique = f"{len(self.expected)}-{copy}"
            message = self.harness.send(
                *named, action=change.action, organization=change.organization, unique=unique, **more
            )
            if invalid:
                self.expected[message] = dict.fromkeys(named, "rejected")
                continue
            rejected_ids = set(UNKNOWN) if self._refused(change.action, dry_run=change.dry_run) else set()
            outcome = "dry_run" if change.dry_run else "applied"
            self.expected[message] = {member: "rejected" if member in rejected_ids else outcome for member in named}
            if not change.dry_run:
                members, valid_ids = self.model[change.organization], set(named) - set(UNKNOWN)
                self.model[change.organization] = members - valid_ids if removing else members | valid_ids

    def _refused(self, action: str, *, dry_run: bool) -> bool:
        return action == "add" and (dry_run or self.harness.tenant.switches.unknown_member == "refuse")

    @rule(
        fault_rate=st.sampled_from([0.0, 0.1, 0.5]),
        termination_rate=st.sampled_from([0.0, 0.0, 0.05, 0.2]),
    )
    def set_rates(self, fault_rate: float, termination_rate: float) -> None:
        self.faults.fault_rate, self.faults.termination_rate = fault_rate, termination_rate

    @rule(seconds=st.sampled_from([1, 30, 300, 1800]))
    def wait(self, seconds: int) -> None:
        self.harness.clock.sleep(seconds)

    @rule()
    def restart(self) -> None:
        """Start a new execution environment."""
        self.source = self.harness.source()

    @rule()
    def reorder_groups(self) -> None:
        """Shuffle the organizations; the order within each organization is unchanged."""
        groups: dict[str, list[Any]] = {}
        for message in self.harness.queue.messages:
            groups.setdefault(message.group, []).append(message)
        names = list(groups)
        self.faults.random.shuffle(names)
        self.harness.queue.messages = [message for name in names for message in groups[name]]

    @precondition(lambda self: self.harness.queue.size())
    @rule()
    def deliver(self) -> None:
        try:
            self.source.poll()
        except TerminatedError:
            self.source = self.harness.source()

    @precondition(lambda self: self.harness.queue.size())
    @rule()
    def drain(self) -> None:
        self.faults.fault_rate = self.faults.termination_rate = 0.0
        self.harness.drain()
        self._check()

    # -- invariants

    @invariant()
    def no_member_has_two_outcomes(self) -> None:
        if not hasattr(self, "harness"):
            return
        lines = Counter((line["message_id"], line["member"]) for line in self.storage.all_lines())
        assert [member for member, times in lines.items() if times > 1] == []

    def teardown(self) -> None:
        if hasattr(self, "harness"):
            self.faults.fault_rate = self.faults.termination_rate = 0.0
            self.harness.drain()
            self._check()

    def _check(self) -> None:
        for organization, model in enumerate(self.model):
            assert self.harness.members(organization) == model
        for message, expected in self.expected.items():
            outcomes = {member or "": outcome for member, outcome in self.harness.outcomes(message).items()}
            # An empty id is not a member, so only the other ids of the message have outcomes.
            assert outcomes == {member: outcome for member, outcome in expected.items() if member}
        assert not self.harness.queue.expired
        for dead_letter in self.harness.dead_letters():
            assert set(dead_letter["members"]) & {*UNKNOWN, *WRONG} or dead_letter["action"] == "remove"


# Shrinking a failure takes minutes.
TestChanges = pytest.mark.timeout(900)(Changes.TestCase)
TestChanges.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
