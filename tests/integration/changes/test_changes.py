"""Changes from the queue to the tenant and to their outcomes, with the real function and queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meibo_local.sample_changes import sample_changes, send_sample_changes
from tests.integration.changes.conftest import ChangesSystem


def test_each_added_member_has_an_outcome(queue: ChangesSystem) -> None:
    user_ids = queue.user_ids[:23]
    message = queue.send(*user_ids)

    queue.drain()

    assert queue.members() == frozenset(user_ids)
    assert queue.outcomes(message) == dict.fromkeys(user_ids, "applied")
    assert queue.writes() == [("POST", 204)] * 3
    assert queue.aws.changes.take_dead_letters() == []


def test_only_the_unknown_id_is_rejected_and_becomes_a_dead_letter(queue: ChangesSystem) -> None:
    members, unknown_id = queue.user_ids[:9], "auth0|0000000000000000000000ff"
    message = queue.send(*members[:4], unknown_id, *members[4:])

    queue.drain()

    assert queue.members() == frozenset(members)
    assert queue.outcomes(message) == {**dict.fromkeys(members, "applied"), unknown_id: "rejected"}
    (dead_letter,) = (json.loads(message["Body"]) for message in queue.aws.changes.take_dead_letters())
    (rejection,) = dead_letter.pop("rejections")
    assert dead_letter == queue.change(unknown_id)
    assert rejection["members"] == [unknown_id]
    assert "400" in rejection["reason"]


def test_invalid_message_is_sent_to_the_dead_letter_queue_without_retries(queue: ChangesSystem) -> None:
    message = queue.aws.changes.send({**queue.change("no-prefix"), "surprise": 1})
    broken = queue.aws.changes.send("{not json")

    queue.drain()

    dead_letters = queue.aws.changes.take_dead_letters()
    bodies = [dead_letter["Body"] for dead_letter in dead_letters]
    reasons = {dead_letter["MessageAttributes"]["MeiboReason"]["StringValue"] for dead_letter in dead_letters}
    assert sorted(bodies) == sorted([json.dumps({**queue.change("no-prefix"), "surprise": 1}), "{not json"])
    assert any("$.members[0]" in reason and "$.surprise" in reason for reason in reasons)
    assert queue.outcomes(message) == {"no-prefix": "rejected"}
    assert queue.outcomes(broken) == {None: "rejected"}
    assert queue.writes() == []


def test_changes_of_make_run_have_the_expected_outcomes(queue: ChangesSystem) -> None:
    planned = sample_changes("acme", queue.organizations, queue.user_ids, queue.roles, count=70)

    rehearsal = send_sample_changes(queue.aws, planned)

    assert rehearsal.drained
    assert rehearsal.actual == rehearsal.expected
    assert rehearsal.actual["rejected"] > 0
    assert rehearsal.actual["DLQ messages"] > 0


@pytest.mark.parametrize(("switch", "outcome", "dead_letters"), [("refuse", "rejected", 1), ("ignore", "applied", 0)])
def test_unknown_role_is_rejected_if_the_tenant_rejects_it(
    queue: ChangesSystem, switch: Any, outcome: str, dead_letters: int
) -> None:
    queue.tenant.switches.unknown_role = switch
    message = queue.send(*queue.user_ids[:2], roles=["rol_0000000000000404"])

    queue.drain()

    assert queue.outcomes(message) == dict.fromkeys(queue.user_ids[:2], outcome)
    assert queue.members() == frozenset(queue.user_ids[:2])
    assert len(queue.aws.changes.take_dead_letters()) == dead_letters


@pytest.mark.parametrize("status", [200, 201])
def test_person_is_invited_once_without_an_email(queue: ChangesSystem, status: Any) -> None:
    # given: the same change twice, as two messages
    queue.tenant.switches.invitation_status = status
    terms = {"client_id": "portal", "inviter": "人事部", "ttl_sec": 3600}
    change = queue.change("new.person@example.com", action="invite", roles=queue.roles[:1], invitation=terms)
    messages = [queue.aws.changes.send({**change, "change_id": f"hr-{number}"}) for number in range(2)]

    queue.drain()

    assert [queue.outcomes(message) for message in messages] == [{"new.person@example.com": "applied"}] * 2
    assert len({line["invitation_id"] for line in queue.lines()}) == 1
    (invitation,) = queue.tenant.invitations.all[queue.organization].values()
    assert invitation["roles"] == queue.roles[:1]
    assert queue.tenant.invitations.emails == 0
