"""Organizations, members, roles and invitations return the recorded responses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from meibo_simulators import FIRST_CONNECTION, SECOND_CONNECTION, Connection, SimulatedTenant, Simulators
from tests.integration.simulators.conftest import Api
from tests.support.clock import FakeClock

MISSING = "org_0000000000000000"


@pytest.fixture
def simulators(clock: FakeClock) -> Iterator[Simulators]:
    connections: dict[str, int | Connection | None] = {
        FIRST_CONNECTION: 500,
        "con_0000000000000003": Connection("con_0000000000000003", strategy="google-oauth2", users=0),
    }
    tenant = SimulatedTenant("acme", connections=connections, organizations=130, members=20)
    with Simulators([tenant], clock=clock) as started:
        yield started


def walk(api: Api, path: str, name: str, take: int, **parameters: Any) -> list[list[Any]]:
    pages, start = [], None
    while True:
        query = {"take": take, **parameters, **({} if start is None else {"from": start})}
        body = api.get(path, **query).json()
        pages.append(body[name])
        start = body.get("next")
        if start is None:
            return pages


def user_path(user_id: str) -> str:
    return quote(user_id, safe="")


# -- organizations


def test_checkpoint_pagination_returns_every_organization_once(api: Api, tenant: Any) -> None:
    pages = walk(api, "/organizations", "organizations", 50)
    assert [len(page) for page in pages] == [50, 50, 30]
    assert [item["id"] for page in pages for item in page] == tenant.organizations.ids()
    assert {"id", "name", "display_name"} <= set(pages[0][0])


def test_full_last_page_has_no_next(api: Api) -> None:
    assert [len(page) for page in walk(api, "/organizations", "organizations", 65)] == [65, 65]


def test_deleted_organizations_do_not_affect_pagination(api: Api, tenant: Any) -> None:
    first = api.get("/organizations", take=10).json()
    tenant.organizations.remove(first["organizations"][-1]["id"])
    second = api.get("/organizations", **{"take": 10, "from": first["next"]}).json()
    assert second["organizations"][0]["id"] == tenant.organizations.ids()[9]


def test_offset_over_one_thousand_is_rejected(api: Api) -> None:
    page = api.get("/organizations", page=1, per_page=100, include_totals="true").json()
    assert (page["start"], page["limit"], page["total"], len(page["organizations"])) == (100, 100, 130, 30)
    refused = api.get("/organizations", page=10, per_page=100)
    assert (refused.status_code, refused.json()["errorCode"]) == (400, "invalid_paging")
    assert refused.json()["message"] == "Requesting page exceeds the allowed maximum of 1000 records."


@pytest.mark.parametrize(
    "query",
    [
        *({"take": take} for take in (101, 0, "x", "²", "٣", "1_0", "9" * 5000)),
        {"per_page": 101},
        {"sort": "id:1"},
        {"from": "?"},
    ],
    ids=lambda query: str(query)[:20],
)
def test_invalid_query_is_rejected(api: Api, query: dict[str, Any]) -> None:
    answer = api.get("/organizations", **query)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "invalid_query_string")


def test_missing_and_malformed_organizations(api: Api, tenant: Any) -> None:
    answer = api.get(f"/organizations/{MISSING}")
    assert answer.json() == {
        "statusCode": 404,
        "error": "Not Found",
        "message": "No organization found by that id or name",
    }
    assert api.get("/organizations/nonsense").json()["errorCode"] == "invalid_uri"
    vanished = tenant.organizations.ids()[3]
    tenant.organizations.vanished.add(vanished)
    assert vanished in {item["id"] for item in api.get("/organizations", take=10).json()["organizations"]}
    assert api.get(f"/organizations/{vanished}/members").status_code == 404


def test_ten_thousand_organizations_are_listed(clock: FakeClock) -> None:
    large = SimulatedTenant("large", users=5000, organizations=10_000)
    with Simulators([large], clock=clock) as simulators:
        api = Api(large, simulators.ca_file)
        pages = walk(api, "/organizations", "organizations", 100)
        assert sum(len(page) for page in pages) == 10_000


# -- enabled connections and connections


def test_limit_of_enabled_connections_is_their_number(api: Api, tenant: Any) -> None:
    organization = tenant.organizations.ids()[0]
    path = f"/organizations/{organization}/enabled_connections"
    body = api.get(path, per_page=50, include_totals="true").json()
    assert (body["start"], body["limit"], body["total"]) == (0, 2, 2)
    assert "is_signup_enabled" in body["enabled_connections"][0]
    assert "is_signup_enabled" not in body["enabled_connections"][1]
    assert api.get(path, page=1, per_page=50).json() == []
    none = api.get(f"/organizations/{tenant.organizations.ids()[9]}/enabled_connections", include_totals="true").json()
    assert none == {"enabled_connections": [], "start": 0, "limit": 0, "total": 0}


@pytest.mark.parametrize(("paged", "second"), [(True, [1, 0]), (False, [2, 2])])
def test_enabled_connections_are_paginated_if_the_switch_is_on(
    api: Api, tenant: Any, paged: bool, second: list[int]
) -> None:
    tenant.switches.enabled_connections_paged = paged
    path = f"/organizations/{tenant.organizations.ids()[0]}/enabled_connections"
    bodies = [api.get(path, page=page, per_page=1, include_totals="true").json() for page in (1, 2)]
    assert [len(body["enabled_connections"]) for body in bodies] == second
    assert [body["limit"] for body in bodies] == second
    assert [body["total"] for body in bodies] == [2, 2]


def test_connections_have_the_current_format(api: Api) -> None:
    for connection in api.get("/connections").json():
        assert set(connection) == {
            *("id", "name", "display_name", "strategy", "realms", "is_domain_connection", "show_as_button"),
            *("authentication", "connected_accounts"),
        }


def test_connection_options_require_their_scope(api: Api, tenant: Any) -> None:
    body = api.get("/connections", take=1).json()
    assert [item["id"] for item in body["connections"]] == [FIRST_CONNECTION]
    assert "options" not in body["connections"][0]
    assert "next" not in api.get("/connections", **{"take": 1, "from": body["next"]}).json()
    rich = Api(
        tenant, Path(str(api.session.verify)), tenant.limited_client("read:connections", "read:connections_options")
    )
    assert "options" in rich.get("/connections").json()[0]
    tenant.switches.hide_connection_options = False
    assert "options" in api.get("/connections").json()[0]
    for fields in ("id", "is_domain_connection", "nonsense"):
        assert set(api.get("/connections", fields=fields).json()[0]) == {"id", "is_domain_connection"}
    assert set(api.get("/connections", fields="name,strategy", include_fields="true").json()[0]) == {
        *("id", "is_domain_connection", "name", "strategy"),
    }
    without = api.get("/connections", fields="id,name,realms", include_fields="false").json()[0]
    assert {"id", "is_domain_connection", "strategy", "display_name"} <= set(without)
    assert not {"name", "realms"} & set(without)
    assert api.get("/connections", fields="id", include_fields="x").json()["errorCode"] == "invalid_query_string"
    assert api.get("/connections", page=10, per_page=100).json()["errorCode"] == "invalid_paging"


# -- members


def test_expected_values_equal_the_responses(api: Api, tenant: Any) -> None:
    tenant.switches.members_shuffled = False
    assert list(tenant.expected_organizations()) == api.get("/organizations", take=100).json()["organizations"] + (
        api.get("/organizations", page=1, per_page=100).json()
    )
    organization = tenant.organizations.ids()[1]
    listed = api.get(f"/organizations/{organization}/members", take=100, fields="user_id,email,picture,name,roles")
    assert listed.json()["members"] == tenant.expected_members(organization, roles=True)


@pytest.mark.parametrize(("always", "ends"), [(True, [7, 7, 4, 0]), (False, [7, 7, 4])])
def test_members_pagination_ends_with_both_switches(api: Api, tenant: Any, always: bool, ends: list[int]) -> None:
    tenant.switches.members_always_next = always
    organization = tenant.organizations.ids()[0]
    tenant.organizations.add_members(organization, [tenant.directory.user_id(400 + n) for n in range(8)])
    assert len(tenant.memberships[organization]) == 18
    pages = walk(api, f"/organizations/{organization}/members", "members", 7)
    assert [len(page) for page in pages] == ends
    assert {item["user_id"] for page in pages for item in page} == tenant.memberships[organization]
    assert set(pages[0][0]) == {"user_id", "email", "picture", "name"}


def test_cursor_can_repeat(api: Api, tenant: Any) -> None:
    tenant.switches.members_repeat_cursor = True
    path = f"/organizations/{tenant.organizations.ids()[0]}/members"
    first = api.get(path, take=2).json()["next"]
    assert api.get(path, **{"take": 2, "from": first}).json()["next"] == first


MEMBERS, MEMBER_ROLES = "read:organization_members", "read:organization_member_roles"


@pytest.mark.parametrize(
    ("switch", "granted", "expected"),
    [
        ("both", MEMBERS, f"{MEMBERS}, {MEMBER_ROLES}"),
        ("both", MEMBER_ROLES, f"{MEMBERS}, {MEMBER_ROLES}"),
        ("missing", MEMBERS, MEMBER_ROLES),
        ("missing", MEMBER_ROLES, MEMBERS),
    ],
)
def test_insufficient_scope_message_follows_the_switch(
    api: Api, tenant: Any, switch: Any, granted: str, expected: str
) -> None:
    tenant.switches.members_refusal = switch
    path = f"/organizations/{tenant.organizations.ids()[0]}/members"
    poor = Api(tenant, Path(str(api.session.verify)), tenant.limited_client(granted))
    assert poor.get(path, fields="user_id,roles").json() == {
        "statusCode": 403,
        "error": "Forbidden",
        "message": f"Insufficient scope, expected any of: {expected}",
        "errorCode": "insufficient_scope",
    }
    assert poor.get(path).status_code == (200 if granted == MEMBERS else 403)


def test_roles_of_members_are_included_by_fields(api: Api, tenant: Any) -> None:
    path = f"/organizations/{tenant.organizations.ids()[0]}/members"
    members = api.get(path, take=100, fields="user_id,roles").json()["members"]
    assert {bool(item["roles"]) for item in members} == {True, False}
    assert set(members[0]) == {"user_id", "roles"}
    without = api.get(path, take=100, fields="user_id,roles", include_fields="false").json()["members"]
    assert set(without[0]) == {"email", "picture", "name"}
    wrong = api.get(path, fields="user_id,phone").json()["message"]
    assert "Must be a comma separated list of the following values: user_id,email,picture,name,roles" in wrong


def test_members_by_offset(api: Api, tenant: Any) -> None:
    path = f"/organizations/{tenant.organizations.ids()[0]}/members"
    body = api.get(path, per_page=4, include_totals="true").json()
    assert (len(body["members"]), body["limit"], body["total"]) == (4, 4, 10)
    assert api.get(path, page=20, per_page=50).json()["errorCode"] == "invalid_paging"


# -- changes


def test_members_are_added_and_removed_idempotently(api: Api, tenant: Any) -> None:
    organization = tenant.organizations.ids()[8]
    path = f"/organizations/{organization}/members"
    people = [tenant.directory.user_id(number) for number in range(10)]
    for _ in range(2):
        answer = api.post(path, {"members": people})
        assert (answer.status_code, answer.content) == (204, b"")
    assert tenant.memberships[organization] == set(people)
    for _ in range(2):
        assert api.delete(path, {"members": people[:4]}).status_code == 204
    assert tenant.memberships[organization] == set(people[4:])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"members": ["auth0|x"] * 11}, "'Array is too long (11), maximum 10' on property members"),
        ({"members": []}, "'Array is too short (0), minimum 1' on property members"),
        ({}, "'Missing required property: members'."),
        ({"members": "auth0|x"}, "'Expected type array but found type string' on property members"),
        ([], "'Expected type object but found type array'."),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_invalid_members_are_rejected(api: Api, tenant: Any, method: str, body: Any, message: str) -> None:
    answer = api.call(method, f"/organizations/{tenant.organizations.ids()[0]}/members", json=body)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "invalid_body")
    assert message in answer.json()["message"]


@pytest.mark.parametrize(("switch", "status", "added"), [("refuse", 400, 0), ("ignore", 204, 1)])
def test_unknown_member_follows_the_switch(api: Api, tenant: Any, switch: Any, status: int, added: int) -> None:
    tenant.switches.unknown_member = switch
    organization = tenant.organizations.ids()[8]
    body = {"members": [tenant.directory.user_id(1), "auth0|ffffffffffffffffffffffff"]}
    assert api.post(f"/organizations/{organization}/members", body).status_code == status
    assert len(tenant.memberships[organization]) == added


def test_members_list_is_eventually_consistent(api: Api, tenant: Any, clock: FakeClock) -> None:
    tenant.switches.eventual_consistency = 5
    path = f"/organizations/{tenant.organizations.ids()[8]}/members"
    people = [tenant.directory.user_id(number) for number in range(2)]
    api.post(path, {"members": people})
    assert api.get(path).json() == []
    clock.advance(6)
    assert len(api.get(path).json()) == 2
    api.delete(path, {"members": people[:1]})
    assert len(api.get(path).json()) == 2


def test_roles_are_assigned_and_removed(api: Api, tenant: Any) -> None:
    organization = tenant.organizations.ids()[8]
    user_id = tenant.directory.user_id(1)
    roles = list(tenant.roles.by_id)
    path = f"/organizations/{organization}/members/{user_path(user_id)}/roles"
    assert api.post(path, {"roles": roles[:1]}).status_code == 404
    api.post(f"/organizations/{organization}/members", {"members": [user_id]})
    assert api.post(path, {"roles": roles[:2]}).status_code == 204
    body = api.get(path, include_totals="true", per_page=100).json()
    assert ([item["id"] for item in body["roles"]], body["limit"], body["total"]) == (roles[:2], 100, 2)
    for _ in range(2):
        assert api.delete(path, {"roles": roles[:1]}).status_code == 204
    assert [item["id"] for item in api.get(path).json()] == roles[1:2]
    gone = api.delete(path, {"roles": ["rol_0000000000000000"]})
    assert gone.json() == {
        "statusCode": 404,
        "error": "Not Found",
        "message": "No such role with id: rol_0000000000000000",
    }
    assert "'Additional properties not allowed: x'" in api.post(path, {"roles": roles, "x": 1}).json()["message"]


@pytest.mark.parametrize(("switch", "status", "assigned"), [("refuse", 404, 0), ("ignore", 204, 1)])
def test_unknown_role_follows_the_switch(api: Api, tenant: Any, switch: Any, status: int, assigned: int) -> None:
    tenant.switches.unknown_role = switch
    organization = tenant.organizations.ids()[8]
    member, unknown = tenant.directory.user_id(1), "rol_0000000000000000"
    tenant.organizations.add_members(organization, [member])
    path = f"/organizations/{organization}/members/{user_path(member)}/roles"
    known = next(iter(tenant.roles.by_id))
    assert api.post(path, {"roles": [known, unknown]}).status_code == status
    assert len(tenant.organizations.member_roles(organization, member)) == assigned
    assert api.delete(path, {"roles": [unknown]}).status_code == 404


@pytest.mark.parametrize(("switch", "read", "written"), [("refuse", 404, 404), ("accept", 200, 204)])
def test_roles_of_a_non_member_follow_the_switch(api: Api, tenant: Any, switch: Any, read: int, written: int) -> None:
    tenant.switches.roles_of_non_member = switch
    organization = tenant.organizations.ids()[8]
    path = f"/organizations/{organization}/members/{user_path(tenant.directory.user_id(1))}/roles"
    assert api.get(path).status_code == read
    assert api.post(path, {"roles": list(tenant.roles.by_id)[:1]}).status_code == written


def test_more_than_fifty_roles_are_rejected(api: Api, tenant: Any) -> None:
    organization = tenant.organizations.ids()[0]
    member = tenant.organizations.members(organization)[0]
    many = {f"rol_{n:016d}": {"id": f"rol_{n:016d}", "name": str(n), "description": ""} for n in range(51)}
    tenant.roles.by_id.update(many)
    path = f"/organizations/{organization}/members/{user_path(member)}/roles"
    assert api.post(path, {"roles": list(many)}).status_code == 409


@pytest.mark.parametrize("status", [200, 201])
def test_status_of_a_new_invitation_is_a_switch(api: Api, tenant: Any, status: Any) -> None:
    tenant.switches.invitation_status = status
    body = {"inviter": {"name": "HR"}, "invitee": {"email": "new@example.jp"}, "client_id": "portal"}
    assert api.post(f"/organizations/{tenant.organizations.ids()[0]}/invitations", body).status_code == status


def test_invitation_has_the_recorded_format(api: Api, tenant: Any) -> None:
    path = f"/organizations/{tenant.organizations.ids()[0]}/invitations"
    body = {"inviter": {"name": "人事"}, "invitee": {"email": "new@example.jp"}, "client_id": "portal"}
    answer = api.post(path, {**body, "ttl_sec": 60, "send_invitation_email": False})
    assert answer.status_code == 201
    invitation = answer.json()
    assert invitation["id"].startswith("uinv_")
    assert invitation["invitation_url"].endswith("&organization_name=org-000000")
    assert tenant.invitations.emails == 0
    api.post(path, body)
    assert tenant.invitations.emails == 1
    listed = api.get(path, include_totals="true").json()
    assert (listed["limit"], listed["start"], "total" in listed) == (2, 0, False)
    assert listed["invitations"][1] == invitation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"client_id": "missing"}, "The specified client_id does not exist."),
        ({"client_id": "meibo-acme"}, "The specified client_id does not allow organizations."),
        ({"connection_id": SECOND_CONNECTION}, "The specified connection does not exist."),
        ({"roles": ["rol_x", "rol_y"]}, "One or more of the specified roles do not exist: rol_x, rol_y"),
        ({"ttl_sec": 2_592_001}, "Value 2592001 is greater than maximum 2592000"),
        ({"invitee": {"email": "missing"}}, "Object didn't pass validation for format email: missing"),
    ],
    ids=str,
)
def test_invalid_invitation_is_rejected(api: Api, tenant: Any, change: dict[str, Any], message: str) -> None:
    body = {"inviter": {"name": "HR"}, "invitee": {"email": "new@example.jp"}, "client_id": "portal", **change}
    answer = api.post(f"/organizations/{tenant.organizations.ids()[0]}/invitations", body)
    assert answer.status_code == 400
    assert message in answer.json()["message"]


# -- users


def test_users_are_found_by_id_and_address(api: Api, tenant: Any) -> None:
    expected = next(iter(tenant.expected_users()))
    assert api.get(f"/users/{user_path(expected['user_id'])}").json() == expected
    assert api.get("/users-by-email", email=expected["email"]).json() == [expected]
    assert api.get("/users-by-email", email=expected["email"].upper()).json() == []
    missing = api.get("/users/auth0%7Cmissing").json()
    assert (missing["message"], missing["errorCode"]) == ("The user does not exist.", "inexistent_user")
    assert api.get("/users", per_page=3, include_totals="true").json()["total"] == 500


def test_fields_of_users_are_selected(api: Api, tenant: Any) -> None:
    expected = next(iter(tenant.expected_users()))
    chosen = {"user_id": expected["user_id"], "email": expected["email"]}
    rest = {name: value for name, value in expected.items() if name not in chosen}
    for include, shown in (({}, chosen), ({"include_fields": "true"}, chosen), ({"include_fields": "false"}, rest)):
        query = {"fields": "user_id,email,nonsense", **include}
        assert api.get(f"/users/{user_path(expected['user_id'])}", **query).json() == shown
        assert api.get("/users-by-email", email=expected["email"], **query).json() == [shown]
        assert api.get("/users", per_page=1, **query).json() == [shown]
        assert api.get("/users", per_page=1, include_totals="true", **query).json()["users"] == [shown]
    refused = api.get("/users", fields="email", include_fields="1").json()
    assert refused["message"] == (
        "Query validation error: 'Expected type boolean but found type string' on property include_fields."
    )
