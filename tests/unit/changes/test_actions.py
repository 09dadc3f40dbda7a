"""Roles, invitations and dry runs, and logs without user data."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from meibo_simulators.faults import reset, respond
from tests.support.changes import ChangeQueueHarness
from tests.support.wsgi import ReplacedResponse

TERMS = {"client_id": "portal", "inviter": "人事部"}
NEW = "new.person@example.com"
INVITATIONS = "POST /api/v2/organizations/*/invitations"


def test_roles_are_assigned_after_the_membership(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    roles = list(harness.tenant.roles.by_id)[:2]
    message = harness.send(*user_ids[:12], roles=roles)

    harness.drain()

    assert harness.outcomes(message) == dict.fromkeys(user_ids[:12], "applied")
    assert harness.requests("POST") == [204, 204]
    assert harness.requests("POST", "roles") == [204] * 12
    assert harness.tenant.organizations.member_roles(harness.organizations[0], user_ids[11]) == roles


def test_missing_role_is_requested_once(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    message = harness.send(*user_ids[:12], roles=["rol_0000000000000404"])

    harness.drain()

    # then: all users are members without the role, and the DLQ message contains all of them
    assert harness.members() == frozenset(user_ids[:12])
    assert harness.outcomes(message) == dict.fromkeys(user_ids[:12], "rejected")
    assert {line["code"] for line in harness.lines(message)} == {"roles_refused"}
    assert all(
        line["reason"].startswith("the user is now a member, but the roles were not assigned: ")
        for line in harness.lines(message)
    )
    assert all("rol_0000000000000404" in line["reason"] for line in harness.lines(message))
    assert harness.requests("POST", "roles") == [404]
    (dead_letter,) = harness.dead_letters()
    assert dead_letter["members"] == user_ids[:12]


def test_rejected_roles_name_the_organization_of_the_member(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    # given: the same unknown role in two organizations of a batch
    messages = [
        harness.send(*user_ids[number * 3 : number * 3 + 3], roles=["rol_0000000000000404"], organization=number)
        for number in range(2)
    ]

    harness.source().poll()

    for number, message in enumerate(messages):
        assert {line["reason"].count(harness.organizations[number]) for line in harness.lines(message)} == {1}
    assert harness.requests("POST", "roles") == [404, 404]


def test_only_the_member_with_too_many_roles_is_rejected(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    organization = harness.organizations[0]
    many = [f"rol_{number:016d}" for number in range(50)]
    for role in many:
        harness.tenant.roles.by_id[role] = {"id": role, "name": role, "description": role}
    harness.tenant.organizations.add_members(organization, [user_ids[0]])
    harness.tenant.organizations.set_member_roles(organization, user_ids[0], many)
    role = next(iter(harness.tenant.roles.by_id))
    message = harness.send(*user_ids[:2], roles=[role])

    harness.drain()

    assert harness.outcomes(message) == {user_ids[0]: "rejected", user_ids[1]: "applied"}
    (line,) = (line for line in harness.lines(message) if line["outcome"] == "rejected")
    assert "409" in line["reason"]


@pytest.mark.parametrize("status", [200, 201])
def test_invitation_has_the_requested_terms(harness: ChangeQueueHarness, status: Any) -> None:
    harness.tenant.switches.invitation_status = status
    role = next(iter(harness.tenant.roles.by_id))
    message = harness.send(NEW, action="invite", roles=[role], invitation={**TERMS, "ttl_sec": 3600})

    harness.drain()

    ((identity, invitation),) = harness.tenant.invitations.all[harness.organizations[0]].items()
    assert harness.outcomes(message) == {NEW: "applied"}
    assert [line["invitation_id"] for line in harness.lines(message)] == [identity]
    assert invitation["roles"] == [role]
    assert invitation["invitee"] == {"email": NEW}
    # An e-mail is sent only if the change requests it.
    assert harness.tenant.invitations.emails == 0


def test_email_is_sent_on_request(harness: ChangeQueueHarness) -> None:
    harness.send(NEW, action="invite", invitation={**TERMS, "send_email": True})

    harness.drain()

    assert harness.tenant.invitations.emails == 1


def test_existing_user_is_not_invited(harness: ChangeQueueHarness) -> None:
    user = next(iter(harness.tenant.expected_users()))
    message = harness.send(user["email"], action="invite", invitation=TERMS)

    harness.drain()

    assert harness.outcomes(message) == {user["email"]: "rejected"}
    (line,) = harness.lines(message)
    assert line["code"] == "already_a_user"
    assert line["reason"] == (f"the person is already a user of the tenant: send a change that adds {user['user_id']}")
    assert harness.tenant.invitations.created == 0


@pytest.mark.parametrize("user_id", ["auth0|\ud83d", "auth0|\x1b[2J", "no-provider", "auth0|" + "x" * 300])
def test_invalid_user_id_in_the_tenant_does_not_block_the_organization(
    harness: ChangeQueueHarness, user_id: str
) -> None:
    # given: a user id that a change cannot contain
    harness.adapter.before = lambda request: (
        ReplacedResponse(200, body=json.dumps([{"user_id": user_id}]).encode())
        if "users-by-email" in str(request.url)
        else None
    )
    message = harness.send(NEW, action="invite", invitation=TERMS)

    harness.source().poll()

    assert harness.outcomes(message) == {NEW: "rejected"}
    (line,) = harness.lines(message)
    assert line["code"] == "already_a_user"
    assert line["reason"] == "the person is already a user of the tenant: send a change that adds this user"
    assert len(harness.dead_letters()) == 1


def test_invitation_with_a_lost_response_is_not_created_again(harness: ChangeQueueHarness) -> None:
    harness.tenant.faults.add(INVITATIONS, reset(after_processing=True))
    message = harness.send(NEW, action="invite", invitation={**TERMS, "send_email": True})

    harness.drain()

    assert harness.outcomes(message) == {NEW: "applied"}
    assert harness.tenant.invitations.created == 1
    assert harness.tenant.invitations.emails == 1


def _connection(harness: ChangeQueueHarness) -> str:
    """Return an enabled connection of the first organization."""
    organizations, connections = harness.tenant.organizations, harness.tenant.directory.connections
    return next(
        connection
        for connection in organizations.connections(harness.organizations[0])
        if connections[connection].strategy not in ("email", "sms")
    )


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        ({"roles": 1}, {}, "different roles"),
        ({}, {"roles": 1}, "different roles"),
        ({"roles": 1}, {"roles": 2}, "different roles"),
        ({"connection_id": True}, {}, "a different connection"),
        ({}, {"connection_id": True}, "a different connection"),
        ({"ttl_sec": 3600}, {}, "a lifetime of 3600 s"),
        ({}, {"ttl_sec": 3600}, "a lifetime of 604800 s"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_open_invitation_with_other_terms_rejects_the_change(
    harness: ChangeQueueHarness, before: dict[str, Any], after: dict[str, Any], difference: str, dry_run: bool
) -> None:
    def send(terms: dict[str, Any], **more: Any) -> str:
        connection = {"connection_id": _connection(harness)} if "connection_id" in terms else {}
        ttl = {"ttl_sec": terms["ttl_sec"]} if "ttl_sec" in terms else {}
        roles: dict[str, Any] = (
            {"roles": list(harness.tenant.roles.by_id)[: terms["roles"]]} if "roles" in terms else {}
        )
        return harness.send(NEW, action="invite", invitation={**TERMS, **connection, **ttl}, **roles, **more)

    send(before)
    harness.drain()
    open_invitations = harness.tenant.invitations.all[harness.organizations[0]]
    (identity,) = open_invitations

    message = send(after, change_id="hr-2", dry_run=dry_run)
    harness.drain()

    (line,) = harness.lines(message)
    assert (line["outcome"], line["code"]) == ("rejected", "invitation_differs")
    assert line["reason"].startswith(f"invitation {identity} is open with ")
    assert difference in line["reason"]
    assert line["reason"].endswith(
        ": revoke it in Auth0, or send a change with the roles, connection and lifetime of this invitation"
    )
    assert list(open_invitations) == [identity]
    assert len(harness.dead_letters()) == (0 if dry_run else 1)

    # when: the open invitation is revoked and the change is sent again
    open_invitations.clear()
    again = send(after, change_id="hr-3")
    harness.drain()

    assert harness.outcomes(again) == {NEW: "applied"}


def test_invitation_with_the_same_terms_is_found_among_others(harness: ChangeQueueHarness) -> None:
    # given: two invitations of the same person, which Auth0 accepts; the order of roles is insignificant
    roles = list(harness.tenant.roles.by_id)[:2]
    first = harness.send(NEW, action="invite", roles=roles, invitation=TERMS)
    harness.drain()
    invitations = harness.tenant.invitations.all[harness.organizations[0]]
    ((identity, invitation),) = list(invitations.items())
    invitations["uinv_0000000000000099"] = {**invitation, "id": "uinv_0000000000000099", "roles": []}

    again = harness.send(NEW.upper(), action="invite", roles=roles[::-1], invitation=TERMS, change_id="hr-2")
    harness.drain()

    assert [line["invitation_id"] for line in harness.lines(first) + harness.lines(again)] == [identity, identity]
    assert harness.tenant.invitations.created == 1


def test_expired_invitation_is_not_open(harness: ChangeQueueHarness) -> None:
    harness.send(NEW, action="invite", invitation={**TERMS, "ttl_sec": 3600})
    harness.drain()
    harness.clock.sleep(3601)

    message = harness.send(NEW, action="invite", invitation={**TERMS, "ttl_sec": 3600}, change_id="hr-2")
    harness.drain()

    # then: expired invitations are ignored, although Auth0 lists them
    assert harness.outcomes(message) == {NEW: "applied"}
    assert harness.tenant.invitations.created == 2


def test_unknown_application_rejects_the_invitation(harness: ChangeQueueHarness) -> None:
    message = harness.send(NEW, "b@example.com", action="invite", invitation={**TERMS, "client_id": "nothing"})

    harness.drain()

    assert harness.outcomes(message) == {NEW: "rejected", "b@example.com": "rejected"}
    (dead_letter,) = harness.dead_letters()
    assert dead_letter["invitation"]["client_id"] == "nothing"


@pytest.mark.parametrize("unknown", ["refuse", "ignore"])
def test_dry_run_reports_unknown_ids_and_writes_nothing(
    harness: ChangeQueueHarness, user_ids: list[str], unknown: str
) -> None:
    harness.tenant.switches.unknown_member = "refuse" if unknown == "refuse" else "ignore"
    unknown_user = "auth0|0000000000000000000000ff"
    add = harness.send(user_ids[0], unknown_user, dry_run=True)
    remove = harness.send(user_ids[0], unknown_user, action="remove", dry_run=True)
    role = harness.send(user_ids[1], roles=["rol_0000000000000404"], dry_run=True)
    invite = harness.send(NEW, action="invite", invitation=TERMS, dry_run=True)

    harness.drain()

    assert harness.outcomes(add) == {user_ids[0]: "dry_run", unknown_user: "rejected"}
    assert harness.outcomes(remove) == {user_ids[0]: "dry_run", unknown_user: "dry_run"}
    assert harness.outcomes(role) == {user_ids[1]: "rejected"}
    assert harness.outcomes(invite) == {NEW: "dry_run"}
    assert {request.method for request in harness.tenant.requests if request.path.startswith("/api")} == {"GET"}
    assert harness.dead_letters() == []


def test_user_data_is_not_logged(
    harness: ChangeQueueHarness, user_ids: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    # given: changes with every kind of outcome
    caplog.set_level(logging.DEBUG)
    harness.tenant.faults.add("POST /api/v2/organizations/*/members", respond(503, "no " + user_ids[0]), times=2)
    harness.send(user_ids[0], "auth0|0000000000000000000000ff", requested_by="taro.yamada@example.com")
    harness.send(NEW, action="invite", invitation={**TERMS, "client_id": "nothing"}, change_id="hr-2")
    harness.put({**harness.change(NEW), "taro.yamada@example.com": 1})
    harness.put({**harness.change(user_ids[1]), "source": "other"})
    forbidden = harness.tenant.faults.add("DELETE *", respond(403, "not " + user_ids[2]), times=1)
    harness.send(user_ids[2], action="remove", organization=1)

    harness.drain()

    assert forbidden.hits == 1
    log = json.dumps([{**record.__dict__, "args": None} for record in caplog.records], default=str, ensure_ascii=False)
    assert len(caplog.records) > 4
    for secret in (*user_ids[:3], "0000ff", NEW, "yamada", "人事部"):
        assert secret not in log
