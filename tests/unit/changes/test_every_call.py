"""A scenario with every kind of change has the same result if any of its calls fails."""

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
from tests.support.wsgi import ReplacedResponse

T = TypeVar("T")
UNKNOWN = "auth0|0000000000000000000000ff"
NEW = "new.person@example.com"
FAULTS: dict[str, Callable[[], ReplacedResponse | None]] = {
    "429": lambda: ReplacedResponse(429, {"Retry-After": "2"}),
    "429 for an hour": lambda: ReplacedResponse(429, {"Retry-After": "3600"}),
    "500": lambda: ReplacedResponse(500, body=b"<html></html>"),
    "503": lambda: ReplacedResponse(503),
    "401": lambda: ReplacedResponse(401),
    "403": lambda: ReplacedResponse(403, body=b'{"errorCode": "insufficient_scope", "message": "read:users"}'),
    "reset": lambda: None,
    "reset after it took effect": lambda: None,
    "timeout": lambda: None,
}


class RequestFault:
    """Returns a fault for the nth request to the provider."""

    def __init__(self, fault: str, number: int) -> None:
        self.fault = fault
        self.number = number
        self.calls = -1

    def before(self, _request: requests.PreparedRequest) -> ReplacedResponse | None:
        self.calls += 1
        if self.calls != self.number:
            return None
        if self.fault == "reset":
            raise requests.ConnectionError
        if self.fault == "timeout":
            raise requests.ReadTimeout
        return FAULTS[self.fault]()

    def after(self, _request: requests.PreparedRequest) -> None:
        if self.calls == self.number and self.fault == "reset after it took effect":
            raise requests.ConnectionError


class CallFault:
    """Makes the nth call to the store or the queue fail or terminate the function, before or after it takes effect."""

    def __init__(self, number: int, *, after_effect: bool, terminates: bool) -> None:
        self.number, self.after_effect, self.terminates = number, after_effect, terminates
        self.calls = -1
        self.is_off = False

    def around(self, work: Callable[[], T]) -> T:
        self.calls += not self.is_off
        is_faulty = self.calls == self.number and not self.is_off
        if is_faulty and not self.after_effect:
            raise TerminatedError if self.terminates else ConnectionError("aws")
        result = work()
        if is_faulty:
            raise TerminatedError if self.terminates else ConnectionError("aws")
        return result


class FaultyStore(MemoryStorage):
    def __init__(self, fault: CallFault) -> None:
        super().__init__()
        self.fault = fault

    def put_bytes(self, key: str, body: bytes, *, content_type: str) -> bool:
        return self.fault.around(lambda: super(FaultyStore, self).put_bytes(key, body, content_type=content_type))

    def read(self, key: str) -> bytes | None:
        return self.fault.around(lambda: super(FaultyStore, self).read(key))


class FaultyQueue:
    def __init__(self, queue: ChangeQueue, fault: CallFault) -> None:
        self.queue, self.fault = queue, fault

    def set_visibility_timeout(self, unprocessed: Sequence[QueueMessage], seconds: int) -> None:
        self.fault.around(lambda: self.queue.set_visibility_timeout(unprocessed, seconds))

    def send_dead_letter(self, dead_letter: DeadLetter) -> None:
        self.fault.around(lambda: self.queue.send_dead_letter(dead_letter))


class Scenario:
    """Additions and removals in two organizations, with roles, an unknown id, an invitation and an invalid message."""

    def __init__(self, fault: CallFault | None = None) -> None:
        self.fault = fault = fault or CallFault(-2, after_effect=False, terminates=False)
        tenant = SimulatedTenant("acme", users=40, organizations=2, members=0)
        self.harness = harness = ChangeQueueHarness(tenant, concurrency=1, storage=FaultyStore(fault))
        harness.function_queue = FaultyQueue(harness.queue, fault)
        harness.tenant.switches.unknown_member = "refuse"
        user_ids = [user["user_id"] for user in harness.tenant.expected_users()]
        role = next(iter(harness.tenant.roles.by_id))
        self.members = [frozenset(user_ids[2:12]), frozenset(user_ids[20:23])]
        applied, rejected = "applied", "rejected"
        self.outcomes = {
            harness.send(*user_ids[:12], UNKNOWN): {**dict.fromkeys(user_ids[:12], applied), UNKNOWN: rejected},
            harness.send(*user_ids[:2], action="remove"): dict.fromkeys(user_ids[:2], applied),
            harness.send(*user_ids[20:23], roles=[role], organization=1): dict.fromkeys(user_ids[20:23], applied),
            harness.send("x", organization=1): {"x": rejected},
            harness.send(NEW, action="invite", invitation={"client_id": "portal", "inviter": "人事部"}): {NEW: applied},
        }

    def end(self) -> None:
        """Process the queue until it is empty, also after the function was terminated, and check the result."""
        harness = self.harness
        source = harness.source()
        for _ in range(40):
            try:
                source.poll()
            except TerminatedError:
                source = harness.source()
            harness.clock.sleep(1800)
        self.fault.is_off = True
        assert harness.queue.size() == 0
        assert [harness.members(0), harness.members(1)] == self.members
        assert {message: harness.outcomes(message) for message in self.outcomes} == self.outcomes
        assert {tuple(dead_letter["members"]) for dead_letter in harness.dead_letters()} == {(UNKNOWN,), ("x",)}
        assert harness.tenant.invitations.created == 1


def _calls() -> int:
    scenario = Scenario()
    count = 0

    def counting(_request: requests.PreparedRequest) -> None:
        nonlocal count
        count += 1

    scenario.harness.adapter.before = counting
    scenario.end()
    return count


def test_scenario_contains_every_kind_of_call() -> None:
    assert _calls() >= 12


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_any_provider_request_does_not_change_the_result(fault: str) -> None:
    for number in range(_calls()):
        scenario = Scenario()
        request_fault = RequestFault(fault, number)
        scenario.harness.adapter.before, scenario.harness.adapter.after = request_fault.before, request_fault.after

        scenario.end()
        assert request_fault.calls >= number


@pytest.mark.parametrize("terminates", [False, True])
@pytest.mark.parametrize("after_effect", [False, True])
def test_failure_or_termination_at_any_step_does_not_change_the_result(terminates: bool, after_effect: bool) -> None:
    for number in range(100):
        fault = CallFault(number, after_effect=after_effect, terminates=terminates)
        scenario = Scenario(fault)

        scenario.end()
        if fault.calls < number:
            break
    assert 5 < number < 99


def test_reason_of_a_dead_letter_has_a_maximum_size() -> None:
    scenario = Scenario()
    message = {**scenario.harness.change("x"), **{f"unknown_field_{number}": 1 for number in range(500)}}
    scenario.harness.put(message)

    scenario.harness.drain()

    assert all(
        len(dead_letter.reason.encode()) <= MAX_REASON_BYTES for dead_letter in scenario.harness.queue.dead_letters
    )
