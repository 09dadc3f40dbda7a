from __future__ import annotations

from collections.abc import Callable

import pytest

from meibo.errors import ScopeMissingError
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


# A message with the missing OAuth scope, and the documented message, which always names both scopes.
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
def test_members_without_roles_are_read_after_one_rejected_request(
    auth0: Transport, client: Auth0Client, refusal: Reply
) -> None:
    auth0.on("GET", PATH, by_scope(refusal))
    reader = MemberReader(client)

    rows = [row for _ in range(3) for page in reader.pages(ORGANIZATION) for row in page.rows]

    assert rows == [MEMBER] * 3
    assert not reader.with_roles
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


def test_members_go_on_from_a_cursor(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(json={"members": [ROLES]}))

    list(MemberReader(client).pages(ORGANIZATION, "c"))

    assert auth0.seen[-1].query["from"] == "c"
