"""A dead letter is a message that SQS takes and that the queue can read again."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from meibo.members.change import read_change
from meibo.members.deadletters import LONGEST_BODY_BYTES, letter_of_members, letter_of_message
from meibo.members.delivery import Delivery
from meibo.members.outcomes import Outcome

NOW = datetime(2026, 11, 21, 18, tzinfo=UTC)
ORGANIZATION = "org_0000000000000001"
DELIVERY = Delivery("m-1", "receipt", "{not json", ORGANIZATION, NOW, 1)
CHANGE = {
    "version": 1,
    "change_id": "hr-1",
    "source": "acme",
    "organization_id": ORGANIZATION,
    "action": "remove",
    "members": ["auth0|1"],
}


def _rejected(*members: str, reason: str | None = "Auth0 refuses it (400)") -> list[Outcome]:
    return [Outcome(member, "rejected", NOW, "refused", reason) for member in members]


def test_message_that_cannot_be_read_is_kept_as_it_is() -> None:
    letter = letter_of_message(DELIVERY, "$: is not valid JSON")

    assert (letter.body, letter.group_id, letter.deduplication_id) == ("{not json", ORGANIZATION, "m-1")
    assert letter.reason == "$: is not valid JSON"


def test_letter_is_a_valid_change_of_the_rejected_members() -> None:
    # given: a change that was a dead letter before
    document = {**CHANGE, "members": ["auth0|1", "auth0|2", "auth0|3"], "confirm_removals": 3, "rejections": ["old"]}

    # when
    letter = letter_of_members(DELIVERY, document, _rejected("auth0|1", "auth0|3"))

    # then
    reading = read_change(letter.body, max_removals=0, group_id=ORGANIZATION)
    assert reading.change
    assert reading.change.members == ("auth0|1", "auth0|3")
    assert json.loads(letter.body)["rejections"] == [
        {"reason": "Auth0 refuses it (400)", "members": ["auth0|1", "auth0|3"]}
    ]


def test_letter_of_many_long_ids_leaves_out_which_id_has_which_reason() -> None:
    # given: as many bytes of ids as a message can have
    members = [f"samlp|{'長' * 70}|{number:04d}" for number in range(1000)]

    # when
    letter = letter_of_members(DELIVERY, {**CHANGE, "members": members}, _rejected(*members))

    # then
    assert len(letter.body.encode()) <= LONGEST_BODY_BYTES
    assert json.loads(letter.body)["rejections"] == [{"reason": "Auth0 refuses it (400)", "count": 1000}]
    assert json.loads(letter.body)["members"] == members


def test_letter_has_no_character_that_sqs_does_not_take() -> None:
    letter = letter_of_members(DELIVERY, CHANGE, _rejected("auth0|\ufffe\uffff"))

    assert "\ufffe" not in letter.body
    assert "\uffff" not in letter.body
    assert json.loads(letter.body)["members"] == ["auth0|\ufffe\uffff"]


def test_letter_always_has_a_reason() -> None:
    # SQS refuses an empty attribute.
    assert letter_of_members(DELIVERY, CHANGE, _rejected("auth0|1", reason=None)).reason == "rejected"
