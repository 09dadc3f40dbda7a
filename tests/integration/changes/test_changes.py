"""A change from the queue to the tenant, to its outcome and away from the queue."""

from __future__ import annotations

import json

from .conftest import Queue


def test_members_are_added_and_each_has_its_outcome(queue: Queue) -> None:
    # given
    people = queue.people[:23]
    message = queue.send(*people)

    # when
    queue.drain()

    # then
    assert queue.members() == frozenset(people)
    assert queue.outcomes(message) == dict.fromkeys(people, "applied")
    assert queue.writes() == [("POST", 204)] * 3
    assert queue.aws.changes.dead_letters() == []


def test_unknown_id_is_rejected_alone_and_becomes_a_dead_letter(queue: Queue) -> None:
    # given
    good, bad = queue.people[:9], "auth0|0000000000000000000000ff"
    message = queue.send(*good[:4], bad, *good[4:])

    # when
    queue.drain()

    # then
    assert queue.members() == frozenset(good)
    assert queue.outcomes(message) == {**dict.fromkeys(good, "applied"), bad: "rejected"}
    (letter,) = queue.aws.changes.dead_changes()
    (rejection,) = letter.pop("rejections")
    assert letter == queue.change(bad)
    assert rejection["members"] == [bad]
    assert "400" in rejection["reason"]


def test_bad_message_goes_to_the_dead_letters_at_once(queue: Queue) -> None:
    # given
    message = queue.aws.changes.send({**queue.change("no-prefix"), "surprise": 1})
    broken = queue.aws.changes.send("{not json")

    # when
    queue.drain()

    # then
    bodies = [letter["Body"] for letter in queue.aws.changes.dead_letters()]
    reasons = {letter["MessageAttributes"]["MeiboReason"]["StringValue"] for letter in queue.aws.changes.dead_letters()}
    assert sorted(bodies) == sorted([json.dumps({**queue.change("no-prefix"), "surprise": 1}), "{not json"])
    assert any("$.members[0]" in reason and "$.surprise" in reason for reason in reasons)
    assert queue.outcomes(message) == {"no-prefix": "rejected"}
    assert queue.outcomes(broken) == {None: "rejected"}
    assert queue.writes() == []
