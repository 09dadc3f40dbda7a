"""The members of an organization and their roles: read, add, remove."""

from __future__ import annotations

import bisect
import random
from typing import TYPE_CHECKING, Any

from flask import Response, request

from meibo_simulators.auth0.organization_routes import existing
from meibo_simulators.auth0.organizations import ROLES_A_MEMBER
from meibo_simulators.auth0.pagination import (
    CHECKPOINT_QUERY,
    DEFAULT_SIZE,
    FIELDS_QUERY,
    OFFSET_QUERY,
    by_offset,
    comma_separated,
    cursor,
    offset,
    read_cursor,
    read_query,
)
from meibo_simulators.auth0.responses import ApiError, answer, body_error, insufficient_scope, no_content, user_missing
from meibo_simulators.auth0.routing import json_body
from meibo_simulators.auth0.validation import Schema, check

if TYPE_CHECKING:
    from meibo_simulators.auth0.routing import Routes
    from meibo_simulators.auth0.tenant import SimulatedTenant
    from meibo_simulators.auth0.tokens import Grant

MEMBERS_A_REQUEST = 10
MEMBER_FIELDS = ("user_id", "email", "picture", "name", "roles")
MEMBERS_SCOPE = "read:organization_members"
ROLES_SCOPE = "read:organization_member_roles"
_TEXT = {"type": "string", "minLength": 1}


def members_schema(description: str) -> Schema:
    """Return the schema of a list of members; the limit of 10 is in Auth0's guides, not in its schema."""
    members = {"type": "array", "minItems": 1, "maxItems": MEMBERS_A_REQUEST, "items": _TEXT}
    return {
        "type": "object",
        "required": ["members"],
        "properties": {"members": {**members, "description": description}},
    }


ADD_SCHEMA = members_schema("List of user IDs to add to the organization as members.")
REMOVE_SCHEMA = members_schema("List of user IDs to remove from the organization.")
ROLES_SCHEMA: Schema = {
    "type": "object",
    "required": ["roles"],
    "additionalProperties": False,
    "properties": {
        "roles": {"type": "array", "minItems": 1, "items": _TEXT, "description": "List of roles IDs."},
    },
}


def register(routes: Routes) -> None:
    """Add the routes."""
    tenant = routes.tenant

    def expected(scope: str) -> str:
        # The OpenAPI document has the same message for both cases.
        return f"{MEMBERS_SCOPE}, {ROLES_SCOPE}" if tenant.switches.members_refusal == "both" else scope

    @routes.add(
        "GET",
        "/organizations/<organization_id>/members",
        MEMBERS_SCOPE,
        limit="members",
        expected=lambda: expected(MEMBERS_SCOPE),
    )
    def list_members(grant: Grant, organization_id: str) -> Response:
        query = read_query(request.args.to_dict(), {**OFFSET_QUERY, **CHECKPOINT_QUERY, **FIELDS_QUERY})
        fields = _fields(query)
        if "roles" in fields and ROLES_SCOPE not in grant.scopes:
            raise insufficient_scope(expected(ROLES_SCOPE))
        organization = existing(tenant, organization_id)
        rows = tenant.organizations.listed(organization.id)

        def shown(user_ids: list[str]) -> list[dict[str, Any]]:
            return [shown_member(tenant, organization.id, user_id, fields) for user_id in user_ids]

        if "take" in query or "from" in query:
            return answer(_checkpoint(tenant, query, rows, shown))
        page = offset(query)
        members = shown([user_id for _, user_id in rows[page.start : page.start + page.size]])
        if not page.totals:
            return answer(members)
        # Recorded: an empty list has limit 50 and total 0.
        return answer({"members": members, "start": page.start, "limit": page.size, "total": len(rows)})

    @routes.add(
        "POST", "/organizations/<organization_id>/members", "create:organization_members", limit="write_members"
    )
    def add_members(_grant: Grant, organization_id: str) -> Response:
        body = json_body()
        check(body, ADD_SCHEMA)
        organization = existing(tenant, organization_id)
        members = body["members"]
        unknown = [user_id for user_id in members if not tenant.directory.exists(user_id)]
        if unknown and tenant.switches.unknown_member == "refuse":
            raise body_error("One or more of the specified users do not exist.")
        tenant.organizations.add_members(organization.id, [user_id for user_id in members if user_id not in unknown])
        return no_content()

    @routes.add(
        "DELETE", "/organizations/<organization_id>/members", "delete:organization_members", limit="write_members"
    )
    def remove_members(_grant: Grant, organization_id: str) -> Response:
        body = json_body()
        check(body, REMOVE_SCHEMA)
        tenant.organizations.remove_members(existing(tenant, organization_id).id, body["members"])
        return no_content()

    _register_roles(routes)


def _register_roles(routes: Routes) -> None:
    tenant = routes.tenant
    path = "/organizations/<organization_id>/members/<user_id>/roles"

    @routes.add("GET", path, ROLES_SCOPE, limit="member_roles")
    def list_roles(_grant: Grant, organization_id: str, user_id: str) -> Response:
        query = read_query(request.args.to_dict(), OFFSET_QUERY)
        organization = existing(tenant, organization_id)
        if not tenant.organizations.is_member(organization.id, user_id) and _refuses(tenant):
            raise user_missing()
        role_ids = tenant.organizations.member_roles(organization.id, user_id)
        rows = [tenant.organizations.roles[role_id] for role_id in role_ids]
        return answer(by_offset("roles", rows, offset(query)))

    @routes.add("POST", path, "create:organization_member_roles", limit="write_member_roles")
    def assign_roles(_grant: Grant, organization_id: str, user_id: str) -> Response:
        body = json_body()
        check(body, ROLES_SCHEMA)
        organization = existing(tenant, organization_id)
        if not tenant.organizations.is_member(organization.id, user_id) and _refuses(tenant):
            raise user_missing()
        wanted = _known_roles(tenant, body["roles"])
        held = tenant.organizations.member_roles(organization.id, user_id)
        together = list(dict.fromkeys([*held, *wanted]))
        if len(together) > ROLES_A_MEMBER:
            raise ApiError(409, "No more roles can be assigned to this organization member.")
        tenant.organizations.set_member_roles(organization.id, user_id, together)
        return no_content()

    @routes.add("DELETE", path, "delete:organization_member_roles", limit="write_member_roles")
    def remove_roles(_grant: Grant, organization_id: str, user_id: str) -> Response:
        body = json_body()
        check(body, ROLES_SCHEMA)
        organization = existing(tenant, organization_id)
        unwanted = _known_roles(tenant, body["roles"], removing=True)
        held = tenant.organizations.member_roles(organization.id, user_id)
        remaining = [role_id for role_id in held if role_id not in unwanted]
        tenant.organizations.set_member_roles(organization.id, user_id, remaining)
        return no_content()


def _refuses(tenant: SimulatedTenant) -> bool:
    return tenant.switches.roles_of_non_member == "refuse"


def _known_roles(tenant: SimulatedTenant, role_ids: list[str], *, removing: bool = False) -> list[str]:
    unknown = [role_id for role_id in role_ids if role_id not in tenant.organizations.roles]
    # Removing a role that does not exist is recorded as 404; assigning one is not recorded.
    if unknown and (removing or tenant.switches.unknown_role == "refuse"):
        raise ApiError(404, f"No such role with id: {unknown[0]}")
    return [role_id for role_id in role_ids if role_id not in unknown]


def _fields(query: dict[str, Any]) -> list[str]:
    fields = list(MEMBER_FIELDS[:-1])
    if query.get("fields"):
        fields = comma_separated(query["fields"], MEMBER_FIELDS, "fields")
        if not query.get("include_fields", True):
            fields = [name for name in MEMBER_FIELDS[:-1] if name not in fields]
    return fields


def shown_member(tenant: SimulatedTenant, organization_id: str, user_id: str, fields: list[str]) -> dict[str, Any]:
    """Return a member as the members list returns it with these fields."""
    member = tenant.directory.properties(user_id, fields) or {"user_id": user_id}
    if "roles" in fields:
        member["roles"] = [
            {"id": role_id, "name": tenant.organizations.roles[role_id]["name"]}
            for role_id in tenant.organizations.member_roles(organization_id, user_id)
        ]
    return member


def _checkpoint(
    tenant: SimulatedTenant, query: dict[str, Any], rows: list[tuple[float, str]], shown: Any
) -> dict[str, Any]:
    start = 0
    if "from" in query:
        joined, user_id = read_cursor(query["from"])
        start = bisect.bisect_right(rows, (round(joined, 3), user_id))
    size = query.get("take", DEFAULT_SIZE)
    page = rows[start : start + size]
    user_ids = [user_id for _, user_id in page]
    if tenant.switches.members_shuffled:
        random.Random(start).shuffle(user_ids)
    body: dict[str, Any] = {"members": shown(user_ids)}
    more = start + size < len(rows)
    if page and (more or tenant.switches.members_always_next):
        body["next"] = cursor(*page[-1])
    if page and tenant.switches.members_repeat_cursor:
        body["next"] = query.get("from") or cursor(*page[-1])
    return body
