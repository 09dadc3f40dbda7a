"""The endpoints of the tenant's roles, their permissions, and their users."""

from __future__ import annotations

from typing import Any

from meibo_simulators.auth0.errors import ApiError, body_error, insufficient_scope
from meibo_simulators.auth0.pagination import CHECKPOINT_QUERY, OFFSET_QUERY, list_body
from meibo_simulators.auth0.routing import Call, Endpoints, json_response
from meibo_simulators.auth0.validation import NON_EMPTY, Schema, array_schema, object_schema

ROLE_MEMBERS = ("read:roles", "read:role_members")
_ROLE_PROPERTIES: dict[str, Schema] = {
    "name": {**NON_EMPTY, "description": "Name of the role."},
    "description": {"type": "string", "description": "Description of the role."},
}
_PERMISSION = object_schema(
    {"resource_server_identifier": NON_EMPTY, "permission_name": NON_EMPTY},
    "resource_server_identifier",
    "permission_name",
)
_PERMISSIONS_SCHEMA = object_schema({"permissions": array_schema(_PERMISSION)}, "permissions")
_USERS_SCHEMA = object_schema({"users": array_schema(NON_EMPTY)}, "users")

endpoints = Endpoints("roles", __name__)


@endpoints.add("GET", "/roles", "read:roles")
def list_roles(call: Call) -> Any:
    page, rows = call.page, list(call.tenant.roles.by_id.values())
    return page.body("roles", page.of(rows), len(rows))


@endpoints.add("POST", "/roles", "create:roles")
def create_role(call: Call) -> Any:
    # It is not known whether Auth0 rejects a name that already exists.
    return call.tenant.roles.create(call.body(object_schema(_ROLE_PROPERTIES, "name")))


@endpoints.add("PATCH", "/roles/<role_id>", "update:roles")
def update_role(call: Call) -> Any:
    body = call.body(object_schema(_ROLE_PROPERTIES))
    role = call.tenant.roles.by_id[_role_id(call)]
    role |= body
    return role


@endpoints.add("POST", "/roles/<role_id>/permissions", "update:roles")
def add_permissions(call: Call) -> Any:
    permissions = call.body(_PERMISSIONS_SCHEMA)["permissions"]
    if not call.tenant.switches.permission_servers.issuperset(
        permission["resource_server_identifier"] for permission in permissions
    ):
        raise body_error("The specified resource server does not exist.", "inexistent_resource_server")
    call.tenant.roles.add_permissions(_role_id(call), permissions)
    return json_response({}, 201)


@endpoints.add("POST", "/roles/<role_id>/users", "update:roles", "create:role_members", limit="write_role_members")
def assign_role(call: Call) -> Any:
    users = call.body(_USERS_SCHEMA)["users"]
    unknown = [user_id for user_id in users if not call.tenant.directory.exists(user_id)]
    if unknown:
        raise body_error("One or more of the specified users do not exist.")
    call.tenant.roles.assign(_role_id(call), users)
    return json_response({}, 200)


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
    role_id, roles = call.path["role_id"], call.tenant.roles
    if role_id not in roles.by_id or role_id in roles.vanished:
        raise ApiError(404, "The role does not exist.")
    return role_id
