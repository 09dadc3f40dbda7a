"""A scenario of all kinds of changes ends with the same result if any of its calls fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
import requests

from meibo.changes.messages import QueueMessage
from meibo.changes.queue import MAX_REASON_BYTES, ChangeQueue, DeadLetter
from meibo_simulators import SimulatedTenant
from tests.support.changes import ChangeQueueHarness, TerminatedError
from tests.support.memory_archive import MemoryStorage
from tests.support.wsgi import Instead

T = TypeVar("T")
UNKNOWN = "auth0|0000000000000000000000ff"
NEW = "new.person@example.com"
FAULTS: dict[str, Callable[[], Instead | None]] = {
    "429": lambda: Instead(429, {"Retry-After": "2"}),
    "429 for an hour": lambda: Instead(429, {"Retry-After": "3600"}),
    "500": lambda: Instead(500, body=b"<html></html>"),
    "503": lambda: Instead(503),
    "401": lambda: Instead(401),
    "403": lambda: Instead(403, body=b'{"errorCode": "insufficient_scope", "message": "read:users"}'),
    "reset": lambda: None,
    "reset after it took effect": lambda: None,
    "time-out": lambda: None,
}


class BreakOne:
    """Returns a fault for the n-th request to the provider."""

    def __init__(self, fault: str, number: int) -> None:
        self.fault = fault
        self.number = number
        self.seen = -1

    def before(self, _request: requests.PreparedRequest) -> Instead | None:
        self.seen += 1
        if self.seen != self.number:
            return None
        if self.fault == "reset":
            raise requests.ConnectionError
        if self.fault == "time-out":
            raise requests.ReadTimeout
        return FAULTS[self.fault]()

    def after(self, _request: requests.PreparedRequest) -> None:
        if self.seen == self.number and self.fault == "reset after it took effect":
            raise requests.ConnectionError


class Strike:
    """Makes the n-th call of the store or queue fail, or terminates the function, before or after the call."""

    def __init__(self, number: int, *, late: bool, deadly: bool) -> None:
        self.number, self.late, self.deadly = number, late, deadly
        self.seen = -1
        self.over = False

    def around(self, work: Callable[[], T]) -> T:
        self.seen += not self.over
        struck = self.seen == self.number and not self.over
        if struck and not self.late:
            raise TerminatedError if self.deadly else ConnectionError("aws")
        result = work()
        if struck:
            raise TerminatedError if self.deadly else ConnectionError("aws")
        return result


class StruckStore(MemoryStorage):
    def __init__(self, strike: Strike) -> None:
        super().__init__()
        self.strike = strike

    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:
        return self.strike.around(lambda: super(StruckStore, self).put_bytes(key, body, content_type=content_type))

    def read(self, key: str) -> bytes | None:
        return self.strike.around(lambda: super(StruckStore, self).read(key))


class StruckQueue:
    def __init__(self, queue: ChangeQueue, strike: Strike) -> None:
        self.queue, self.strike = queue, strike

    def set_visibility_timeout(self, unprocessed: Sequence[QueueMessage], seconds: int) -> None:
        self.strike.around(lambda: self.queue.set_visibility_timeout(unprocessed, seconds))

    def send_dead_letter(self, dead_letter: DeadLetter) -> None:
        self.strike.around(lambda: self.queue.send_dead_letter(dead_letter))


class Scenario:
    """Additions and removals in two organizations, with roles, an unknown id, an invitation and an invalid message."""

    def __init__(self, strike: Strike | None = None) -> None:
        self.strike = strike = strike or Strike(-2, late=False, deadly=False)
        tenant = SimulatedTenant("acme", users=40, organizations=2, members=0)
        self.world = world = ChangeQueueHarness(tenant, concurrency=1, storage=StruckStore(strike))
        world.function_queue = StruckQueue(world.queue, strike)
        world.tenant.switches.unknown_member = "refuse"
        people = [user["user_id"] for user in world.tenant.expected_users()]
        role = next(iter(world.tenant.organizations.roles))
        self.members = [frozenset(people[2:12]), frozenset(people[20:23])]
        applied, rejected = "applied", "rejected"
        self.outcomes = {
            world.send(*people[:12], UNKNOWN): {**dict.fromkeys(people[:12], applied), UNKNOWN: rejected},
            world.send(*people[:2], action="remove"): dict.fromkeys(people[:2], applied),
            world.send(*people[20:23], roles=[role], organization=1): dict.fromkeys(people[20:23], applied),
            world.send("x", organization=1): {"x": rejected},
            world.send(NEW, action="invite", invitation={"client_id": "portal", "inviter": "人事部"}): {NEW: applied},
        }

    def end(self) -> None:
        """Process the queue until it is empty, despite terminated functions, and compare the result."""
        world = self.world
        source = world.source()
        for _ in range(40):
            try:
                source.poll()
            except TerminatedError:
                source = world.source()
            world.clock.sleep(1800)
        self.strike.over = True
        assert world.queue.size() == 0
        assert [world.members(0), world.members(1)] == self.members
        assert {message: world.outcomes(message) for message in self.outcomes} == self.outcomes
        assert {tuple(dead_letter["members"]) for dead_letter in world.letters()} == {(UNKNOWN,), ("x",)}
        assert world.tenant.invitations.created == 1


def _calls() -> int:
    scenario = Scenario()
    count = 0

    def counting(_request: requests.PreparedRequest) -> None:
        nonlocal count
        count += 1

    scenario.world.adapter.before = counting
    scenario.end()
    return count


def test_scenario_contains_every_kind_of_call() -> None:
    assert _calls() >= 12


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_any_provider_request_does_not_change_the_result(fault: str) -> None:
    for number in range(_calls()):
        # given
        scenario = Scenario()
        breaks = BreakOne(fault, number)
        scenario.world.adapter.before, scenario.world.adapter.after = breaks.before, breaks.after

        # then
        scenario.end()
        assert breaks.seen >= number


@pytest.mark.parametrize("deadly", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_failure_or_termination_at_any_step_does_not_change_the_result(deadly: bool, late: bool) -> None:
    for number in range(100):
        # given
        strike = Strike(number, late=late, deadly=deadly)
        scenario = Scenario(strike)

        # then
        scenario.end()
        if strike.seen < number:
            break
    assert 5 < number < 99


def test_reason_of_a_dead_letter_has_a_maximum_size() -> None:
    # given
    scenario = Scenario()
    message = {**scenario.world.change("x"), **{f"unknown_field_{number}": 1 for number in range(500)}}
    scenario.world.put(message)

    # when
    scenario.world.drain()

    # then
    assert all(len(dead_letter.reason.encode()) <= MAX_REASON_BYTES for dead_letter in scenario.world.queue.letters)
