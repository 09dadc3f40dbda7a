"""Roles, invitations and dry runs, and logs without user data."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from meibo_simulators.faults import reset, respond
from tests.support.changes import ChangeQueueHarness
from tests.support.wsgi import Instead

TERMS = {"client_id": "portal", "inviter": "人事部"}
NEW = "new.person@example.com"
INVITATIONS = "POST /api/v2/organizations/*/invitations"


def test_roles_are_assigned_after_the_membership(world: ChangeQueueHarness, people: list[str]) -> None:
    # given
    roles = list(world.tenant.organizations.roles)[:2]
    message = world.send(*people[:12], roles=roles)

    # when
    world.drain()

    # then
    assert world.outcomes(message) == dict.fromkeys(people[:12], "applied")
    assert world.requests("POST") == [204, 204]
    assert world.requests("POST", "roles") == [204] * 12
    assert world.tenant.organizations.member_roles(world.organizations[0], people[11]) == roles


def test_missing_role_is_requested_once(world: ChangeQueueHarness, people: list[str]) -> None:
    # given
    message = world.send(*people[:12], roles=["rol_0000000000000404"])

    # when
    world.drain()

    # then: all users are members without the role, and the DLQ message contains all of them
    assert world.members() == frozenset(people[:12])
    assert world.outcomes(message) == dict.fromkeys(people[:12], "rejected")
    assert {line["code"] for line in world.lines(message)} == {"roles_refused"}
    assert world.requests("POST", "roles") == [404]
    (dead_letter,) = world.letters()
    assert dead_letter["members"] == people[:12]


def test_rejected_roles_name_the_organization_of_the_member(world: ChangeQueueHarness, people: list[str]) -> None:
    # given: the same unknown role in two organizations of a batch
    messages = [
        world.send(*people[number * 3 : number * 3 + 3], roles=["rol_0000000000000404"], organization=number)
        for number in range(2)
    ]

    # when
    world.source().poll()

    # then
    for number, message in enumerate(messages):
        assert {line["reason"].count(world.organizations[number]) for line in world.lines(message)} == {1}
    assert world.requests("POST", "roles") == [404, 404]


def test_only_the_member_with_too_many_roles_is_rejected(world: ChangeQueueHarness, people: list[str]) -> None:
    # given
    organization = world.organizations[0]
    many = [f"rol_{number:016d}" for number in range(50)]
    for role in many:
        world.tenant.organizations.roles[role] = {"id": role, "name": role, "description": role}
    world.tenant.organizations.add_members(organization, [people[0]])
    world.tenant.organizations.set_member_roles(organization, people[0], many)
    role = next(iter(world.tenant.organizations.roles))
    message = world.send(*people[:2], roles=[role])

    # when
    world.drain()

    # then
    assert world.outcomes(message) == {people[0]: "rejected", people[1]: "applied"}
    (line,) = (line for line in world.lines(message) if line["outcome"] == "rejected")
    assert "409" in line["reason"]


def test_invitation_has_the_requested_terms(world: ChangeQueueHarness) -> None:
    # given
    role = next(iter(world.tenant.organizations.roles))
    message = world.send(NEW, action="invite", roles=[role], invitation={**TERMS, "ttl_sec": 3600})

    # when
    world.drain()

    # then
    ((identity, invitation),) = world.tenant.invitations.all[world.organizations[0]].items()
    assert world.outcomes(message) == {NEW: "applied"}
    assert [line["invitation_id"] for line in world.lines(message)] == [identity]
    assert invitation["roles"] == [role]
    assert invitation["invitee"] == {"email": NEW}
    # the e-mail is opt-in
    assert world.tenant.invitations.emails == 0


def test_email_is_sent_on_request(world: ChangeQueueHarness) -> None:
    world.send(NEW, action="invite", invitation={**TERMS, "send_email": True})

    world.drain()

    assert world.tenant.invitations.emails == 1


def test_existing_user_is_not_invited(world: ChangeQueueHarness) -> None:
    # given
    user = next(iter(world.tenant.expected_users()))
    message = world.send(user["email"], action="invite", invitation=TERMS)

    # when
    world.drain()

    # then
    assert world.outcomes(message) == {user["email"]: "rejected"}
    (line,) = world.lines(message)
    assert line["code"] == "already_a_user"
    assert user["user_id"] in line["reason"]
    assert world.tenant.invitations.created == 0


@pytest.mark.parametrize("user_id", ["auth0|\ud83d", "auth0|\x1b[2J", "no-provider", "auth0|" + "x" * 300])
def test_invalid_user_id_in_the_tenant_does_not_block_the_organization(world: ChangeQueueHarness, user_id: str) -> None:
    # given: a user id that a change cannot contain
    world.adapter.before = lambda request: (
        Instead(200, body=json.dumps([{"user_id": user_id}]).encode()) if "users-by-email" in str(request.url) else None
    )
    message = world.send(NEW, action="invite", invitation=TERMS)

    # when
    world.source().poll()

    # then
    assert world.outcomes(message) == {NEW: "rejected"}
    (line,) = world.lines(message)
    assert line["code"] == "already_a_user"
    assert user_id not in line["reason"]
    assert len(world.letters()) == 1


def test_invitation_with_a_lost_response_is_not_created_again(world: ChangeQueueHarness) -> None:
    # given
    world.tenant.faults.add(INVITATIONS, reset(after_processing=True))
    message = world.send(NEW, action="invite", invitation={**TERMS, "send_email": True})

    # when
    world.drain()

    # then
    assert world.outcomes(message) == {NEW: "applied"}
    assert world.tenant.invitations.created == 1
    assert world.tenant.invitations.emails == 1


def _connection(world: ChangeQueueHarness) -> str:
    """Return an enabled connection of the first organization."""
    organizations, connections = world.tenant.organizations, world.tenant.directory.connections
    return next(
        connection
        for connection in organizations.connections(world.organizations[0])
        if connections[connection].strategy not in ("email", "sms")
    )


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        ({"roles": 1}, {}, "other roles"),
        ({}, {"roles": 1}, "other roles"),
        ({"roles": 1}, {"roles": 2}, "other roles"),
        ({"connection_id": True}, {}, "another connection"),
        ({}, {"connection_id": True}, "another connection"),
        ({"ttl_sec": 3600}, {}, "a lifetime of 3600 s"),
        ({}, {"ttl_sec": 3600}, "a lifetime of 604800 s"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_open_invitation_with_other_terms_rejects_the_change(
    world: ChangeQueueHarness, before: dict[str, Any], after: dict[str, Any], difference: str, dry_run: bool
) -> None:
    # given
    def send(terms: dict[str, Any], **more: Any) -> str:
        connection = {"connection_id": _connection(world)} if "connection_id" in terms else {}
        ttl = {"ttl_sec": terms["ttl_sec"]} if "ttl_sec" in terms else {}
        roles: dict[str, Any] = (
            {"roles": list(world.tenant.organizations.roles)[: terms["roles"]]} if "roles" in terms else {}
        )
        return world.send(NEW, action="invite", invitation={**TERMS, **connection, **ttl}, **roles, **more)

    send(before)
    world.drain()
    open_invitations = world.tenant.invitations.all[world.organizations[0]]
    (identity,) = open_invitations

    # when
    message = send(after, change_id="hr-2", dry_run=dry_run)
    world.drain()

    # then
    (line,) = world.lines(message)
    assert (line["outcome"], line["code"]) == ("rejected", "invitation_differs")
    assert identity in line["reason"]
    assert difference in line["reason"]
    assert list(open_invitations) == [identity]
    assert len(world.letters()) == (0 if dry_run else 1)

    # when: the open invitation is revoked and the change is sent again
    open_invitations.clear()
    again = send(after, change_id="hr-3")
    world.drain()

    # then
    assert world.outcomes(again) == {NEW: "applied"}


def test_invitation_with_the_same_terms_is_found_among_others(world: ChangeQueueHarness) -> None:
    # given: two invitations of the same person, which Auth0 accepts; the order of roles is insignificant
    roles = list(world.tenant.organizations.roles)[:2]
    first = world.send(NEW, action="invite", roles=roles, invitation=TERMS)
    world.drain()
    invitations = world.tenant.invitations.all[world.organizations[0]]
    ((identity, invitation),) = list(invitations.items())
    invitations["uinv_0000000000000099"] = {**invitation, "id": "uinv_0000000000000099", "roles": []}

    # when
    again = world.send(NEW.upper(), action="invite", roles=roles[::-1], invitation=TERMS, change_id="hr-2")
    world.drain()

    # then
    assert [line["invitation_id"] for line in world.lines(first) + world.lines(again)] == [identity, identity]
    assert world.tenant.invitations.created == 1


def test_expired_invitation_is_not_open(world: ChangeQueueHarness) -> None:
    # given
    world.send(NEW, action="invite", invitation={**TERMS, "ttl_sec": 3600})
    world.drain()
    world.clock.sleep(3601)

    # when
    message = world.send(NEW, action="invite", invitation={**TERMS, "ttl_sec": 3600}, change_id="hr-2")
    world.drain()

    # then: the list of Auth0 includes expired invitations
    assert world.outcomes(message) == {NEW: "applied"}
    assert world.tenant.invitations.created == 2


def test_unknown_application_rejects_the_invitation(world: ChangeQueueHarness) -> None:
    # given
    message = world.send(NEW, "b@example.com", action="invite", invitation={**TERMS, "client_id": "nothing"})

    # when
    world.drain()

    # then
    assert world.outcomes(message) == {NEW: "rejected", "b@example.com": "rejected"}
    (dead_letter,) = world.letters()
    assert dead_letter["invitation"]["client_id"] == "nothing"


@pytest.mark.parametrize("unknown", ["refuse", "ignore"])
def test_dry_run_reports_unknown_ids_and_writes_nothing(
    world: ChangeQueueHarness, people: list[str], unknown: str
) -> None:
    # given
    world.tenant.switches.unknown_member = "refuse" if unknown == "refuse" else "ignore"
    unknown_user = "auth0|0000000000000000000000ff"
    add = world.send(people[0], unknown_user, dry_run=True)
    remove = world.send(people[0], unknown_user, action="remove", dry_run=True)
    role = world.send(people[1], roles=["rol_0000000000000404"], dry_run=True)
    invite = world.send(NEW, action="invite", invitation=TERMS, dry_run=True)

    # when
    world.drain()

    # then
    assert world.outcomes(add) == {people[0]: "dry_run", unknown_user: "rejected"}
    assert world.outcomes(remove) == {people[0]: "dry_run", unknown_user: "dry_run"}
    assert world.outcomes(role) == {people[1]: "rejected"}
    assert world.outcomes(invite) == {NEW: "dry_run"}
    assert {request.method for request in world.tenant.requests if request.path.startswith("/api")} == {"GET"}
    assert world.letters() == []


def test_user_data_is_not_logged(
    world: ChangeQueueHarness, people: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    # given: changes with every kind of outcome
    caplog.set_level(logging.DEBUG)
    world.tenant.faults.add("POST /api/v2/organizations/*/members", respond(503, "no " + people[0]), times=2)
    world.send(people[0], "auth0|0000000000000000000000ff", requested_by="taro.yamada@example.com")
    world.send(NEW, action="invite", invitation={**TERMS, "client_id": "nothing"}, change_id="hr-2")
    world.put({**world.change(NEW), "taro.yamada@example.com": 1})
    world.put({**world.change(people[1]), "source": "other"})
    forbidden = world.tenant.faults.add("DELETE *", respond(403, "not " + people[2]), times=1)
    world.send(people[2], action="remove", organization=1)

    # when
    world.drain()

    # then
    assert forbidden.hits == 1
    log = json.dumps([{**record.__dict__, "args": None} for record in caplog.records], default=str, ensure_ascii=False)
    assert len(caplog.records) > 4
    for secret in (*people[:3], "0000ff", NEW, "yamada", "人事部"):
        assert secret not in log
