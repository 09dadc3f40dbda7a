from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from meibo.errors import RequestRefusedError, ScopeMissingError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.membership import add_members, add_roles, remove_members
from tests.support.clock import FakeClock
from tests.support.transport import Reply, Transport

ORGANIZATION = "org_0000000000000001"
MEMBERS = f"/api/v2/organizations/{ORGANIZATION}/members"
ROLES = f"{MEMBERS}/auth0%7C1/roles"
DONE = Reply(204)
Change = Callable[[Auth0Client], Any]

CHANGES: list[tuple[str, str, Change, Any, str]] = [
    (
        "POST",
        MEMBERS,
        lambda client: add_members(client, ORGANIZATION, ["auth0|1", "auth0|2"]),
        {"members": ["auth0|1", "auth0|2"]},
        "create:organization_members",
    ),
    (
        "DELETE",
        MEMBERS,
        lambda client: remove_members(client, ORGANIZATION, ["auth0|1"]),
        {"members": ["auth0|1"]},
        "delete:organization_members",
    ),
    (
        "POST",
        ROLES,
        lambda client: add_roles(client, ORGANIZATION, "auth0|1", ["rol_1"]),
        {"roles": ["rol_1"]},
        "create:organization_member_roles",
    ),
]


@pytest.mark.parametrize(("method", "path", "change", "body", "scope"), CHANGES)
def test_change_is_sent_as_documented(
    auth0: Transport, client: Auth0Client, method: str, path: str, change: Change, body: Any, scope: str
) -> None:
    auth0.on(method, path, DONE)

    change(client)

    assert auth0.requests[-1].json == body


@pytest.mark.parametrize(("method", "path", "change", "body", "scope"), CHANGES)
@pytest.mark.parametrize("failure", [Reply(429), Reply(500), requests.ReadTimeout("late")])
def test_change_with_an_unknown_outcome_is_retried(
    auth0: Transport,
    client: Auth0Client,
    method: str,
    path: str,
    change: Change,
    body: Any,
    scope: str,
    failure: Reply | Exception,
) -> None:
    auth0.on(method, path, failure, DONE)

    change(client)

    assert len(auth0.calls(method, path)) == 2


@pytest.mark.parametrize(("method", "path", "change", "body", "scope"), CHANGES)
def test_missing_scope_is_named(
    auth0: Transport, client: Auth0Client, method: str, path: str, change: Change, body: Any, scope: str
) -> None:
    auth0.on(method, path, Reply(403, json={"errorCode": "insufficient_scope"}))

    with pytest.raises(ScopeMissingError, match=scope):
        change(client)


@pytest.mark.parametrize(("method", "path", "change", "body", "scope"), CHANGES)
def test_rejected_change_has_a_status_and_a_code(
    auth0: Transport, client: Auth0Client, method: str, path: str, change: Change, body: Any, scope: str
) -> None:
    auth0.on(method, path, Reply(400, json={"errorCode": "invalid_body", "message": "canary auth0|1"}))

    with pytest.raises(RequestRefusedError, match=ORGANIZATION) as caught:
        change(client)

    assert (caught.value.status, caught.value.code) == (400, "invalid_body")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("count", [0, 11])
def test_request_contains_one_to_ten_members(auth0: Transport, client: Auth0Client, count: int) -> None:
    for change in (add_members, remove_members):
        with pytest.raises(ValueError, match="expected 1 to 10 ids in a request, found "):
            change(client, ORGANIZATION, [f"auth0|{number}" for number in range(count)])
    assert auth0.requests == []


def test_additions_and_removals_share_a_rate_limit(auth0: Transport, client: Auth0Client, clock: FakeClock) -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(clock.now() + 3)}
    auth0.on("POST", MEMBERS, Reply(204, headers=headers)).on("DELETE", MEMBERS, DONE)

    add_members(client, ORGANIZATION, ["auth0|1"])
    remove_members(client, ORGANIZATION, ["auth0|1"])

    assert clock.slept == [3]
