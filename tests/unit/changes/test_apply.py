"""Changes are applied in order and in few requests, and each member has a single outcome."""

from __future__ import annotations

import math

import pytest

from tests.support.changes import ChangeQueueHarness

UNKNOWN = "auth0|0000000000000000000000ff"
UNKNOWN_2 = "auth0|0000000000000000000000fe"


@pytest.mark.parametrize("count", [1, 10, 11, 95, 100])
def test_each_request_contains_ten_ids(world: ChangeQueueHarness, people: list[str], count: int) -> None:
    # given
    world.send(*people[:count])

    # when
    world.drain()

    # then
    assert world.requests("POST") == [204] * math.ceil(count / 10)
    assert world.members() == frozenset(people[:count])


def test_ids_of_many_messages_share_requests(world: ChangeQueueHarness, people: list[str]) -> None:
    # given: alternating additions and removals, each in its own message
    for number in range(10):
        action = "add" if number % 2 == 0 else "remove"
        world.send(people[number], action=action, change_id=f"hr-{number}")

    # when
    world.drain()

    # then
    assert world.requests("POST") == [204]
    assert world.requests("DELETE") == [204]


def test_last_message_of_a_user_determines_the_membership(world: ChangeQueueHarness, people: list[str]) -> None:
    # given
    world.send(people[0], people[1])
    world.send(people[0], action="remove")
    world.send(people[2], people[0], change_id="hr-2")
    world.send(people[1], people[2], action="remove", change_id="hr-3")

    # when
    world.drain()

    # then
    assert world.members() == {people[0]}
    assert [line["outcome"] for line in world.lines()] == ["applied"] * 7


def test_invalid_ids_are_isolated_and_the_others_are_applied(world: ChangeQueueHarness, people: list[str]) -> None:
    # given
    message = world.send(*people[:3], UNKNOWN, *people[3:8], UNKNOWN_2)

    # when
    world.drain()

    # then
    assert world.members() == frozenset(people[:8])
    assert world.outcomes(message) == {
        **dict.fromkeys(people[:8], "applied"),
        UNKNOWN: "rejected",
        UNKNOWN_2: "rejected",
    }
    # 10 ids, then both halves, and so on until each invalid id is isolated
    assert len(world.requests("POST")) <= 1 + 2 * 2 * math.ceil(math.log2(10))


def test_dead_letter_contains_only_the_rejected_ids_and_can_be_redriven(
    world: ChangeQueueHarness, people: list[str]
) -> None:
    # given
    world.send(people[0], UNKNOWN, requested_by="hr-sync")
    world.drain()

    # when: the cause is fixed and the DLQ message is redriven unchanged
    (dead_letter,) = world.letters()
    world.tenant.switches.unknown_member = "ignore"
    (first,) = world.queue.letters
    world.queue.letters.clear()
    again = world.queue.send(first.body, first.group_id)
    world.drain()

    # then
    assert dead_letter["members"] == [UNKNOWN]
    assert {key: dead_letter[key] for key in dead_letter.keys() - {"members", "rejections"}} == {
        key: value for key, value in world.change(requested_by="hr-sync").items() if key != "members"
    }
    assert dead_letter["rejections"] == [
        {"code": "refused", "reason": dead_letter["rejections"][0]["reason"], "members": [UNKNOWN]}
    ]
    assert world.outcomes(again) == {UNKNOWN: "applied"}
    assert world.queue.letters == []


def test_confirmation_in_a_dead_letter_is_its_number_of_ids(world: ChangeQueueHarness, people: list[str]) -> None:
    # given
    world.max_removals = 1
    gone = "org_0000000000000404"
    change = {**world.change(*people[:3], action="remove", confirm_removals=3), "organization_id": gone}
    world.put(change)

    # when
    world.drain()

    # then
    (dead_letter,) = world.letters()
    assert dead_letter["confirm_removals"] == len(dead_letter["members"]) == 3


def test_unknown_id_that_auth0_ignores_counts_as_applied(world: ChangeQueueHarness, people: list[str]) -> None:
    # given
    world.tenant.switches.unknown_member = "ignore"
    message = world.send(people[0], UNKNOWN)

    # when
    world.drain()

    # then: a single request, whose response does not show that no member was added
    assert world.requests("POST") == [204]
    assert world.outcomes(message) == {people[0]: "applied", UNKNOWN: "applied"}
    assert world.members() == {people[0]}


def test_missing_organization_is_looked_up_once(world: ChangeQueueHarness, people: list[str]) -> None:
    # given
    gone = "org_0000000000000404"
    message = world.put({**world.change(*people[:35]), "organization_id": gone})

    # when
    world.drain()

    # then
    assert world.outcomes(message) == dict.fromkeys(people[:35], "rejected")
    assert {line["code"] for line in world.lines(message)} == {"unknown_organization"}
    assert world.requests("POST") == [404]
    assert world.requests("GET", gone) == [404]
