from __future__ import annotations

from collections.abc import Callable

import pytest

from meibo.errors import RequestRefusedError, ScopeMissingError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.organizations import MEMBERS_SCOPE, ROLES_SCOPE, MemberReader
from tests.support.transport import Reply, Seen, Transport

ORGANIZATION = "org_0000000000000001"
PATH = f"/api/v2/organizations/{ORGANIZATION}/members"
MEMBER = {"user_id": "auth0|1", "email": "a@example.com", "name": "a", "picture": "https://p"}
ROLES = {**MEMBER, "roles": [{"id": "rol_1", "name": "admin"}]}


def forbidden(*scopes: str) -> Reply:
    return Reply(
        403,
        json={
            "message": f"Insufficient scope, expected any of: {','.join(scopes)}",
            "errorCode": "insufficient_scope",
        },
    )


# A text that names the missing OAuth scope, and the documented one, which names both whichever is missing.
REFUSALS = [forbidden(ROLES_SCOPE), forbidden(MEMBERS_SCOPE, ROLES_SCOPE)]


def by_scope(refusal: Reply) -> Callable[[Seen], Reply]:
    return lambda seen: refusal if "roles" in seen.query.get("fields", "") else Reply(json={"members": [MEMBER]})


def test_members_come_with_their_roles(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(json={"members": [ROLES], "next": "c"}), Reply(json={"members": []}))
    reader = MemberReader(client)

    assert [row for page in reader.pages(ORGANIZATION) for row in page.rows] == [ROLES]
    assert reader.with_roles
    assert auth0.seen[-1].query == {
        "fields": "user_id,email,picture,name,roles",
        "include_fields": "true",
        "take": "100",
        "from": "c",
    }


@pytest.mark.parametrize("refusal", REFUSALS)
def test_without_the_scope_for_roles_members_come_without_them(
    auth0: Transport, client: Auth0Client, refusal: Reply
) -> None:
    auth0.on("GET", PATH, by_scope(refusal))
    reader = MemberReader(client)

    assert [row for page in reader.pages(ORGANIZATION) for row in page.rows] == [MEMBER]
    assert not reader.with_roles


@pytest.mark.parametrize("refusal", REFUSALS)
def test_the_scope_for_roles_is_missed_once_only(auth0: Transport, client: Auth0Client, refusal: Reply) -> None:
    auth0.on("GET", PATH, by_scope(refusal))
    reader = MemberReader(client)

    for _ in range(3):
        list(reader.pages(ORGANIZATION))

    assert len(auth0.calls("GET", PATH)) == 4


@pytest.mark.parametrize(("scopes", "requests"), [((MEMBERS_SCOPE,), 1), ((MEMBERS_SCOPE, ROLES_SCOPE), 2)])
def test_without_the_scope_for_members_nothing_is_read(
    auth0: Transport, client: Auth0Client, scopes: tuple[str, ...], requests: int
) -> None:
    auth0.on("GET", PATH, forbidden(*scopes))
    reader = MemberReader(client)

    with pytest.raises(ScopeMissingError, match="read:organization_members"):
        list(reader.pages(ORGANIZATION))

    assert len(auth0.calls("GET", PATH)) == requests
    # Nothing is known about the roles yet.
    assert reader.with_roles


def test_an_organization_that_is_gone_is_told_by_its_status(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(404, json={"message": "No organization found by that id or name"}))

    with pytest.raises(RequestRefusedError, match=ORGANIZATION) as caught:
        list(MemberReader(client).pages(ORGANIZATION))

    assert caught.value.status == 404


def test_members_go_on_from_a_cursor(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(json={"members": [ROLES]}))

    list(MemberReader(client).pages(ORGANIZATION, "c"))

    assert auth0.seen[-1].query["from"] == "c"
