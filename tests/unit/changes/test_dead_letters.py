"""A DLQ message is accepted by SQS and is a valid change that can be redriven."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.archive.outcomes import Outcome
from meibo.changes.messages import QueueMessage, RemoveChange, parse_change
from meibo.changes.queue import (
    MAX_MESSAGE_BYTES,
    MAX_REASON_BYTES,
    DeadLetter,
    dead_letter_of_members,
    dead_letter_of_message,
    encode_message,
)

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
NOT_ACCEPTED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NOW = datetime(2026, 11, 21, 18, tzinfo=UTC)
ORGANIZATION = "org_0000000000000001"
DELIVERY = QueueMessage("m-1", "receipt", "{not json", ORGANIZATION, NOW, 1)


def _change(*members: str, **more: Any) -> RemoveChange:
    # The change is not validated, so that its members and fields can have any length.
    return RemoveChange.model_construct(
        version=1,
        change_id="hr-1",
        source="acme",
        organization_id=ORGANIZATION,
        action="remove",
        members=members,
        **more,
    )


def _rejected(*members: str, reason: str | None = "Auth0 refuses it (400)") -> list[Outcome]:
    return [Outcome(member, "rejected", NOW, "refused", reason) for member in members]


def _size(dead_letter: DeadLetter) -> int:
    """Return the size as SQS counts it: the body, and the name, type and value of the attribute."""
    attribute = len("MeiboReason" + "String") + len(dead_letter.reason.encode()) if dead_letter.reason else 0
    return len(dead_letter.body.encode()) + attribute


def test_dead_letter_of_an_unreadable_message_is_the_message_as_received() -> None:
    dead_letter = dead_letter_of_message(DELIVERY, "$: is not valid JSON")

    assert (dead_letter.body, dead_letter.group_id, dead_letter.deduplication_id) == ("{not json", ORGANIZATION, "m-1")
    assert dead_letter.reason == "$: is not valid JSON"


def test_dead_letter_is_a_valid_change_of_the_rejected_members() -> None:
    # given: a change that was redriven
    change = _change("auth0|1", "auth0|2", "auth0|3", confirm_removals=3, rejections=["old"])

    dead_letter = dead_letter_of_members(DELIVERY, change, _rejected("auth0|1", "auth0|3"))

    part = parse_change(dead_letter.body, max_removals=0, group_id=ORGANIZATION)
    assert isinstance(part, RemoveChange)
    assert part.members == ("auth0|1", "auth0|3")
    assert json.loads(dead_letter.body)["rejections"] == [
        {"code": "refused", "reason": "Auth0 refuses it (400)", "members": ["auth0|1", "auth0|3"]}
    ]


def test_dead_letter_of_many_long_ids_omits_the_reason_of_each_id() -> None:
    # given: a change whose ids fill a message of the maximum size
    members = [f"samlp|{'長' * 70}|{number:04d}" for number in range(1000)]

    dead_letter = dead_letter_of_members(DELIVERY, _change(*members), _rejected(*members))

    assert _size(dead_letter) <= MAX_MESSAGE_BYTES
    assert json.loads(dead_letter.body)["rejections"] == [
        {"code": "refused", "reasons": ["Auth0 refuses it (400)"], "count": 1000}
    ]
    assert json.loads(dead_letter.body)["members"] == members


def test_dead_letter_contains_only_characters_that_sqs_accepts() -> None:
    dead_letter = dead_letter_of_members(DELIVERY, _change("auth0|1"), _rejected("auth0|\ufffe\uffff"))

    assert "\ufffe" not in dead_letter.body
    assert "\uffff" not in dead_letter.body
    assert json.loads(dead_letter.body)["members"] == ["auth0|\ufffe\uffff"]


def test_dead_letter_always_has_a_reason() -> None:
    # SQS rejects an empty attribute.
    assert dead_letter_of_members(DELIVERY, _change("auth0|1"), _rejected("auth0|1", reason=None)).reason == "rejected"


@pytest.mark.parametrize(
    ("reason", "form"),
    [
        ("Auth0 refuses it ({})", {"code", "reasons", "count"}),
        ("長" * 500 + " {}", {"code", "reasons", "count"}),
        ("長" * 3000 + " {}", {"code", "count"}),
    ],
)
def test_dead_letter_of_a_large_message_has_at_most_the_maximum_size(reason: str, form: set[str]) -> None:
    # given: 215 KB of ids, each with its own reason
    members = [f"samlp|{'x' * 204}|{number:04d}" for number in range(1000)]
    outcomes = [
        Outcome(member, "rejected", NOW, ("refused", "already_a_user")[number % 2], reason.format(number))
        for number, member in enumerate(members)
    ]

    dead_letter = dead_letter_of_members(DELIVERY, _change(*members), outcomes)

    assert _size(dead_letter) <= MAX_MESSAGE_BYTES
    document = json.loads(dead_letter.body)
    assert document["members"] == members
    assert [set(rejection) for rejection in document["rejections"]] == [form, form]
    assert {rejection["code"]: rejection["count"] for rejection in document["rejections"]} == {
        "refused": 500,
        "already_a_user": 500,
    }


@given(data=st.data())
def test_dead_letter_of_any_change_has_at_most_the_maximum_size(data: st.DataObject) -> None:
    # given: a message of the maximum size of the queue
    dead_letters = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=["|"]), min_size=1, max_size=40)
    some = data.draw(st.lists(dead_letters, min_size=1, max_size=20, unique=True))
    members = [f"auth0|{text}" for text in some]
    room = MAX_MESSAGE_BYTES - len(encode_message(_change(*members, requested_by="")).encode())
    change = _change(*members, requested_by="x" * (room - data.draw(st.integers(0, 3000))))
    message = encode_message(change)
    reasons = st.text(max_size=3000)
    outcomes = [
        Outcome(
            member, "rejected", NOW, data.draw(st.sampled_from(["refused", "roles_refused", None])), data.draw(reasons)
        )
        for member in members
    ]

    part = dead_letter_of_members(DELIVERY, change, outcomes)
    whole = dead_letter_of_message(replace(DELIVERY, body=message), data.draw(reasons))

    for dead_letter in (part, whole):
        assert _size(dead_letter) <= MAX_MESSAGE_BYTES
        assert len(dead_letter.reason.encode()) <= MAX_REASON_BYTES
        assert not NOT_ACCEPTED.search(dead_letter.body + dead_letter.reason)
    assert json.loads(part.body)["members"] == members
