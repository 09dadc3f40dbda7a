from __future__ import annotations

from collections.abc import Callable

import pytest

from meibo.errors import ScopeMissingError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.organizations import MEMBERS_SCOPE, ROLES_SCOPE, OrganizationApi
from tests.support.transport import RecordedRequest, Reply, Transport

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


def by_scope(refusal: Reply) -> Callable[[RecordedRequest], Reply]:
    return lambda request: refusal if "roles" in request.query.get("fields", "") else Reply(json={"members": [MEMBER]})


def test_page_of_members_contains_their_roles(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(json={"members": [ROLES], "next": "c"}))

    page, with_roles = OrganizationApi(client).members(ORGANIZATION, None)

    assert ([row.value for row in page.rows], page.next, with_roles) == ([ROLES], "c", True)
    assert auth0.requests[-1].query == {
        "fields": "user_id,email,picture,name,roles",
        "include_fields": "true",
        "take": "100",
    }


@pytest.mark.parametrize("refusal", REFUSALS)
def test_members_without_roles_are_read_after_one_rejected_request(
    auth0: Transport, client: Auth0Client, refusal: Reply
) -> None:
    auth0.on("GET", PATH, by_scope(refusal))
    api = OrganizationApi(client)

    page, with_roles = api.members(ORGANIZATION, None)
    following, _ = api.members(ORGANIZATION, None, with_roles=with_roles)

    assert not with_roles
    assert [row.value for row in page.rows] == [row.value for row in following.rows] == [MEMBER]
    assert len(auth0.calls("GET", PATH)) == 3


@pytest.mark.parametrize(("scopes", "requests"), [((MEMBERS_SCOPE,), 1), ((MEMBERS_SCOPE, ROLES_SCOPE), 2)])
def test_members_are_not_read_without_their_scope(
    auth0: Transport, client: Auth0Client, scopes: tuple[str, ...], requests: int
) -> None:
    auth0.on("GET", PATH, forbidden(*scopes))

    with pytest.raises(ScopeMissingError, match="read:organization_members"):
        OrganizationApi(client).members(ORGANIZATION, None)

    assert len(auth0.calls("GET", PATH)) == requests


def test_members_are_read_from_a_cursor(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", PATH, Reply(json={"members": [ROLES]}))

    OrganizationApi(client).members(ORGANIZATION, "c")

    assert auth0.requests[-1].query["from"] == "c"
