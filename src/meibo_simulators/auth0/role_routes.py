"""The endpoints of the tenant's roles, their permissions, and their users."""

from __future__ import annotations

from typing import Any

from meibo_simulators.auth0.errors import ApiError, insufficient_scope
from meibo_simulators.auth0.pagination import CHECKPOINT_QUERY, OFFSET_QUERY, list_body
from meibo_simulators.auth0.routing import Call, Endpoints

ROLE_MEMBERS = ("read:roles", "read:role_members")

endpoints = Endpoints()


@endpoints.add("GET", "/roles", "read:roles")
def list_roles(call: Call) -> Any:
    page, rows = call.page, list(call.tenant.organizations.roles.values())
    return page.body("roles", page.of(rows), len(rows))


@endpoints.add("GET", "/roles/<role_id>/permissions", "read:roles")
def list_permissions(call: Call) -> Any:
    page, rows = call.page, call.tenant.roles.permissions(_role_id(call))
    return page.body("permissions", page.of(rows), len(rows))


@endpoints.add("GET", "/roles/<role_id>/users", *ROLE_MEMBERS)
def list_users_of_role(call: Call) -> Any:
    query = call.query({**OFFSET_QUERY, **CHECKPOINT_QUERY})
    if "read:users" not in call.grant.scopes:
        raise insufficient_scope("read:users")
    return list_body(query, "users", call.tenant.roles.users(_role_id(call)), "user_id")


def _role_id(call: Call) -> str:
    role_id = call.path["role_id"]
    roles = call.tenant.roles
    if role_id not in call.tenant.organizations.roles or role_id in roles.vanished:
        raise ApiError(404, "The role does not exist.")
    return role_id
