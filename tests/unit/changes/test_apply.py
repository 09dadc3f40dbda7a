"""Changes are applied in order with few requests, and each member has exactly one outcome."""

from __future__ import annotations

import math

import pytest

from tests.support.changes import ChangeQueueHarness

UNKNOWN = "auth0|0000000000000000000000ff"
UNKNOWN_2 = "auth0|0000000000000000000000fe"


@pytest.mark.parametrize("count", [1, 10, 11, 95, 100])
def test_each_request_contains_ten_ids(harness: ChangeQueueHarness, user_ids: list[str], count: int) -> None:
    harness.send(*user_ids[:count])

    harness.drain()

    assert harness.requests("POST") == [204] * math.ceil(count / 10)
    assert harness.members() == frozenset(user_ids[:count])


def test_ids_of_many_messages_share_requests(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    # given: alternating additions and removals, each in its own message
    for number in range(10):
        action = "add" if number % 2 == 0 else "remove"
        harness.send(user_ids[number], action=action, change_id=f"hr-{number}")

    harness.drain()

    assert harness.requests("POST") == [204]
    assert harness.requests("DELETE") == [204]


def test_last_message_of_a_user_determines_the_membership(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    harness.send(user_ids[0], user_ids[1])
    harness.send(user_ids[0], action="remove")
    harness.send(user_ids[2], user_ids[0], change_id="hr-2")
    harness.send(user_ids[1], user_ids[2], action="remove", change_id="hr-3")

    harness.drain()

    assert harness.members() == {user_ids[0]}
    assert [line["outcome"] for line in harness.lines()] == ["applied"] * 7


def test_invalid_ids_are_isolated_and_the_others_are_applied(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    message = harness.send(*user_ids[:3], UNKNOWN, *user_ids[3:8], UNKNOWN_2)

    harness.drain()

    assert harness.members() == frozenset(user_ids[:8])
    assert harness.outcomes(message) == {
        **dict.fromkeys(user_ids[:8], "applied"),
        UNKNOWN: "rejected",
        UNKNOWN_2: "rejected",
    }
    # A request with 10 ids is rejected, then its halves, until each invalid id is sent alone.
    assert len(harness.requests("POST")) <= 1 + 2 * 2 * math.ceil(math.log2(10))


def test_dead_letter_contains_only_the_rejected_ids_and_can_be_redriven(
    harness: ChangeQueueHarness, user_ids: list[str]
) -> None:
    harness.send(user_ids[0], UNKNOWN, requested_by="hr-sync")
    harness.drain()

    # when: the cause is fixed and the DLQ message is redriven unchanged
    (dead_letter,) = harness.dead_letters()
    harness.tenant.switches.unknown_member = "ignore"
    (first,) = harness.queue.dead_letters
    harness.queue.dead_letters.clear()
    again = harness.queue.send(first.body, first.group_id)
    harness.drain()

    assert dead_letter["members"] == [UNKNOWN]
    assert {key: dead_letter[key] for key in dead_letter.keys() - {"members", "rejections"}} == {
        key: value for key, value in harness.change(requested_by="hr-sync").items() if key != "members"
    }
    assert dead_letter["rejections"] == [
        {"code": "refused", "reason": dead_letter["rejections"][0]["reason"], "members": [UNKNOWN]}
    ]
    assert harness.outcomes(again) == {UNKNOWN: "applied"}
    assert harness.queue.dead_letters == []


def test_confirmation_in_a_dead_letter_is_its_number_of_ids(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    harness.max_removals = 1
    gone = "org_0000000000000404"
    change = {**harness.change(*user_ids[:3], action="remove", confirm_removals=3), "organization_id": gone}
    harness.put(change)

    harness.drain()

    (dead_letter,) = harness.dead_letters()
    assert dead_letter["confirm_removals"] == len(dead_letter["members"]) == 3


def test_unknown_id_that_auth0_ignores_counts_as_applied(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    harness.tenant.switches.unknown_member = "ignore"
    message = harness.send(user_ids[0], UNKNOWN)

    harness.drain()

    # then: Auth0 returns 204 to the request although it ignored the unknown id
    assert harness.requests("POST") == [204]
    assert harness.outcomes(message) == {user_ids[0]: "applied", UNKNOWN: "applied"}
    assert harness.members() == {user_ids[0]}


def test_missing_organization_is_looked_up_once(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    gone = "org_0000000000000404"
    message = harness.put({**harness.change(*user_ids[:35]), "organization_id": gone})

    harness.drain()

    assert harness.outcomes(message) == dict.fromkeys(user_ids[:35], "rejected")
    assert {line["code"] for line in harness.lines(message)} == {"unknown_organization"}
    assert harness.requests("POST") == [404]
    assert harness.requests("GET", gone) == [404]
