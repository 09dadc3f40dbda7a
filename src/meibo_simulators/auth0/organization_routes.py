"""The endpoints of organizations and of their connections, members, roles and invitations."""

from __future__ import annotations

import bisect
import random
from typing import Any

from meibo_simulators.auth0.errors import ApiError, body_error, insufficient_scope, organization_missing, user_missing
from meibo_simulators.auth0.organizations import MAX_ROLES_PER_MEMBER, MEMBER_FIELDS
from meibo_simulators.auth0.pagination import (
    CHECKPOINT_QUERY,
    DEFAULT_SIZE,
    FIELDS_QUERY,
    OFFSET_QUERY,
    comma_separated,
    cursor,
    read_cursor,
    read_page,
)
from meibo_simulators.auth0.routing import Call, Endpoints, json_response
from meibo_simulators.auth0.tenant import SimulatedTenant
from meibo_simulators.auth0.validation import (
    NON_EMPTY,
    Schema,
    array_schema,
    check_path,
    connection_id_schema,
    object_schema,
)

ORGANIZATION = "/organizations/<organization_id>"
MEMBERS = f"{ORGANIZATION}/members"
MEMBER_ROLES = f"{MEMBERS}/<user_id>/roles"
INVITATIONS = f"{ORGANIZATION}/invitations"

ORGANIZATION_NAME = {
    "type": "string",
    "format": "organization-name",
    "format_pattern": "^[a-z0-9][a-z0-9_-]{0,49}$",
    "description": "name of the organization to retrieve.",
}
SORT = {"type": "string", "pattern": "^(name|display_name|created_at):(1|-1)$", "description": "Field to sort by."}
MAX_CONNECTIONS = 10
MAX_MEMBERS_PER_REQUEST = 10
MEMBERS_SCOPE = "read:organization_members"
ROLES_SCOPE = "read:organization_member_roles"
_ORGANIZATION_PROPERTIES: dict[str, Schema] = {
    "name": {**ORGANIZATION_NAME, "description": "The name of this organization."},
    "display_name": {"type": "string", "minLength": 1, "maxLength": 255, "description": "Friendly name."},
    "branding": {"type": "object"},
    "metadata": {"type": "object"},
}
_ENABLED_CONNECTION_PROPERTIES: dict[str, Schema] = {
    "connection_id": connection_id_schema(),
    "assign_membership_on_login": {"type": "boolean"},
    "show_as_button": {"type": "boolean"},
    "is_signup_enabled": {"type": "boolean"},
}
ROLES_SCHEMA = object_schema({"roles": array_schema(NON_EMPTY, description="List of roles IDs.")}, "roles")
_INVITER: Schema = {"type": "string", "minLength": 1, "maxLength": 300, "description": "The inviter's name."}
_INVITEE: Schema = {
    "type": "string",
    "format": "email",
    "format_pattern": r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
    "description": "The invitee's email.",
}
INVITATION_SCHEMA = object_schema(
    {
        "inviter": object_schema({"name": _INVITER}, "name"),
        "invitee": object_schema({"email": _INVITEE}, "email"),
        "client_id": {"type": "string", "description": "Auth0 client ID."},
        "connection_id": connection_id_schema(""),
        "ttl_sec": {"type": "integer", "minimum": 0, "maximum": 2_592_000},
        "roles": array_schema({"type": "string"}),
        "app_metadata": {"type": "object"},
        "user_metadata": {"type": "object"},
        "send_invitation_email": {"type": "boolean"},
    },
    "inviter",
    "invitee",
    "client_id",
)

endpoints = Endpoints("organizations", __name__)


@endpoints.add("GET", "/organizations", "read:organizations", "read:organizations_summary", limit="organizations")
def list_organizations(call: Call) -> Any:
    query = call.query({**OFFSET_QUERY, **CHECKPOINT_QUERY, "sort": SORT})
    organizations = call.tenant.organizations
    if "take" in query or "from" in query:
        position = read_cursor(query["from"]) if "from" in query else None
        selected, more = organizations.after(position, query.get("take", DEFAULT_SIZE))
        body: dict[str, Any] = {"organizations": [organization.body for organization in selected]}
        if more:
            body["next"] = cursor(selected[-1].created, selected[-1].id)
        return body
    page = read_page(query)
    rows = [organization.body for organization in organizations.slice(page.start, page.size)]
    return page.body("organizations", rows, organizations.count())


@endpoints.add("GET", ORGANIZATION, "read:organizations", limit="organization")
def get_organization(call: Call) -> Any:
    return call.organization.body


@endpoints.add("POST", "/organizations", "create:organizations")
def create_organization(call: Call) -> Any:
    body = call.body(object_schema(_ORGANIZATION_PROPERTIES, "name"))
    if call.tenant.organizations.find_by_name(body["name"]) is not None:
        raise ApiError(409, "An organization with this name already exists.")
    return json_response(call.tenant.organizations.create(body).body, 201)


@endpoints.add("PATCH", ORGANIZATION, "update:organizations")
def update_organization(call: Call) -> Any:
    body = call.body(object_schema(_ORGANIZATION_PROPERTIES))
    return call.tenant.organizations.update(call.organization.id, body).body


@endpoints.add("GET", "/organizations/name/<name>", "read:organizations", limit="organization")
def get_organization_by_name(call: Call) -> Any:
    check_path("name", call.path["name"], ORGANIZATION_NAME)
    organization = call.tenant.organizations.find_by_name(call.path["name"])
    if organization is None:
        raise organization_missing()
    return organization.body


# -- enabled connections


@endpoints.add(
    "GET", f"{ORGANIZATION}/enabled_connections", "read:organization_connections", limit="enabled_connections"
)
def list_enabled_connections(call: Call) -> Any:
    page, rows, switches = call.page, list(_enabled_connections(call).values()), call.tenant.switches
    shown = page.of(rows) if switches.enabled_connections_paged else rows
    limit = len(shown) if switches.enabled_connections_limit_is_length else page.size
    return page.body("enabled_connections", shown, len(rows), limit)


def _enabled_connections(call: Call) -> dict[str, dict[str, Any]]:
    """Return an organization's enabled connections by id."""
    organizations, organization_id = call.tenant.organizations, call.organization.id
    ids = organizations.connections(organization_id)[:MAX_CONNECTIONS]
    return {connection_id: organizations.enabled_connection(organization_id, connection_id) for connection_id in ids}


@endpoints.add(
    "POST",
    f"{ORGANIZATION}/enabled_connections",
    "create:organization_connections",
    limit="write_enabled_connections",
)
def enable_connection(call: Call) -> Any:
    body = call.body(object_schema(_ENABLED_CONNECTION_PROPERTIES, "connection_id"))
    organization = call.organization
    connection_id, enabled = body.pop("connection_id"), _enabled_connections(call)
    if connection_id not in call.tenant.directory.connections:
        raise body_error("The specified connection does not exist.")
    if connection_id in enabled:
        raise ApiError(409, "The connection is already enabled for the organization.")
    if len(enabled) >= MAX_CONNECTIONS:
        raise ApiError(409, "No more connections can be added to this organization.")
    call.tenant.organizations.set_connection_options(organization.id, connection_id, body)
    return json_response(call.tenant.organizations.enabled_connection(organization.id, connection_id), 201)


@endpoints.add(
    "PATCH",
    f"{ORGANIZATION}/enabled_connections/<connection_id>",
    "update:organization_connections",
    limit="write_enabled_connections",
)
def update_enabled_connection(call: Call) -> Any:
    body = call.body(object_schema(_ENABLED_CONNECTION_PROPERTIES))
    connection_id = call.path["connection_id"]
    if connection_id not in _enabled_connections(call):
        raise ApiError(404, "No connection found by that id")
    call.tenant.organizations.set_connection_options(call.organization.id, connection_id, body)
    return call.tenant.organizations.enabled_connection(call.organization.id, connection_id)


# -- members


def _scopes_text(tenant: SimulatedTenant, scope: str = MEMBERS_SCOPE) -> str:
    # The OpenAPI document has the same message for both scopes.
    return f"{MEMBERS_SCOPE}, {ROLES_SCOPE}" if tenant.switches.members_refusal == "both" else scope


@endpoints.add("GET", MEMBERS, MEMBERS_SCOPE, limit="members", scopes_text=_scopes_text)
def list_members(call: Call) -> Any:
    tenant = call.tenant
    query = call.query({**OFFSET_QUERY, **CHECKPOINT_QUERY, **FIELDS_QUERY})
    fields = _fields(query)
    if "roles" in fields and ROLES_SCOPE not in call.grant.scopes:
        raise insufficient_scope(_scopes_text(tenant, ROLES_SCOPE))
    organization = call.organization
    rows = tenant.organizations.listed(organization.id)

    def members(user_ids: list[str]) -> list[dict[str, Any]]:
        return [tenant.organizations.member(organization.id, user_id, fields) for user_id in user_ids]

    if "take" in query or "from" in query:
        user_ids, following = _checkpoint_page(tenant, query, rows)
        return {"members": members(user_ids), **({"next": following} if following else {})}
    page = read_page(query)
    # Recorded: an empty list has limit 50 and total 0.
    return page.body("members", members([user_id for _, user_id in page.of(rows)]), len(rows))


def _fields(query: dict[str, Any]) -> list[str]:
    fields = list(MEMBER_FIELDS[:-1])
    if query.get("fields"):
        fields = comma_separated(query["fields"], MEMBER_FIELDS, "fields")
        if not query.get("include_fields", True):
            fields = [name for name in MEMBER_FIELDS[:-1] if name not in fields]
    return fields


def _checkpoint_page(
    tenant: SimulatedTenant, query: dict[str, Any], rows: list[tuple[float, str]]
) -> tuple[list[str], str | None]:
    """Return the user ids of a page and the cursor of the next page."""
    start = 0
    if "from" in query:
        joined, user_id = read_cursor(query["from"])
        start = bisect.bisect_right(rows, (round(joined, 3), user_id))
    end = start + query.get("take", DEFAULT_SIZE)
    page = rows[start:end]
    user_ids = [user_id for _, user_id in page]
    if tenant.switches.members_shuffled:
        random.Random(start).shuffle(user_ids)
    if not page:
        return [], None
    if tenant.switches.members_repeat_cursor:
        return user_ids, query.get("from") or cursor(*page[-1])
    return user_ids, cursor(*page[-1]) if end < len(rows) or tenant.switches.members_always_next else None


def _members_schema(description: str) -> Schema:
    """Return the schema of a list of members. The limit is documented in Auth0's guides, not in its schema."""
    members = array_schema(NON_EMPTY, maxItems=MAX_MEMBERS_PER_REQUEST, description=description)
    return object_schema({"members": members}, "members", additional=True)


@endpoints.add("POST", MEMBERS, "create:organization_members", limit="write_members")
def add_members(call: Call) -> None:
    tenant = call.tenant
    members = call.body(_members_schema("List of user IDs to add to the organization as members."))["members"]
    organization = call.organization
    known = [user_id for user_id in members if tenant.directory.exists(user_id)]
    if len(known) < len(members) and tenant.switches.unknown_member == "refuse":
        raise body_error("One or more of the specified users do not exist.")
    tenant.organizations.add_members(organization.id, known)


@endpoints.add("DELETE", MEMBERS, "delete:organization_members", limit="write_members")
def remove_members(call: Call) -> None:
    members = call.body(_members_schema("List of user IDs to remove from the organization."))["members"]
    call.tenant.organizations.remove_members(call.organization.id, members)


# -- roles of members


@endpoints.add("GET", MEMBER_ROLES, ROLES_SCOPE, limit="member_roles")
def list_member_roles(call: Call) -> Any:
    page, roles = call.page, call.tenant.roles.by_id
    rows = [roles[role_id] for role_id in _member_roles(call)]
    return page.body("roles", page.of(rows), len(rows))


@endpoints.add("POST", MEMBER_ROLES, "create:organization_member_roles", limit="write_member_roles")
def assign_roles(call: Call) -> None:
    role_ids = call.body(ROLES_SCHEMA)["roles"]
    assigned = _member_roles(call)
    roles = list(dict.fromkeys([*assigned, *_known_roles(call.tenant, role_ids)]))
    if len(roles) > MAX_ROLES_PER_MEMBER:
        raise ApiError(409, "No more roles can be assigned to this organization member.")
    call.tenant.organizations.set_member_roles(call.organization.id, call.path["user_id"], roles)


@endpoints.add("DELETE", MEMBER_ROLES, "delete:organization_member_roles", limit="write_member_roles")
def remove_roles(call: Call) -> None:
    role_ids = call.body(ROLES_SCHEMA)["roles"]
    organization, user_id, organizations = call.organization, call.path["user_id"], call.tenant.organizations
    removed = _known_roles(call.tenant, role_ids, removing=True)
    roles = [role_id for role_id in organizations.member_roles(organization.id, user_id) if role_id not in removed]
    organizations.set_member_roles(organization.id, user_id, roles)


def _member_roles(call: Call) -> list[str]:
    """Return the role ids of the member in the path. Raise a 404 error if the user is not a member."""
    organization, user_id, organizations = call.organization, call.path["user_id"], call.tenant.organizations
    if call.tenant.switches.roles_of_non_member == "refuse" and not organizations.is_member(organization.id, user_id):
        raise user_missing()
    return organizations.member_roles(organization.id, user_id)


def _known_roles(tenant: SimulatedTenant, role_ids: list[str], *, removing: bool = False) -> list[str]:
    unknown = [role_id for role_id in role_ids if role_id not in tenant.roles.by_id]
    # Recorded for the removal of a role. The response to an assignment is not known.
    if unknown and (removing or tenant.switches.unknown_role == "refuse"):
        raise ApiError(404, f"No such role with id: {unknown[0]}")
    return [role_id for role_id in role_ids if role_id not in unknown]


# -- invitations


@endpoints.add("POST", INVITATIONS, "create:organization_invitations", limit="write_invitations")
def create_invitation(call: Call) -> Any:
    tenant = call.tenant
    body = call.body(INVITATION_SCHEMA)
    organization = call.organization
    _check_references(tenant, organization.id, body)
    return json_response(tenant.invitations.create(organization, body), tenant.switches.invitation_status)


def _check_references(tenant: SimulatedTenant, organization_id: str, body: dict[str, Any]) -> None:
    if body["client_id"] in tenant.tokens.clients:
        raise body_error("The specified client_id does not allow organizations.")
    if body["client_id"] not in tenant.invitations.applications:
        raise body_error("The specified client_id does not exist.")
    connection_id = body.get("connection_id")
    if connection_id is not None:
        connection = tenant.directory.connections.get(connection_id)
        if connection is None:
            raise body_error("The specified connection does not exist.")
        if connection_id not in tenant.organizations.connections(organization_id):
            raise body_error(f"The specified connection ({connection_id}) is not enabled for the organization")
        if connection.strategy in ("email", "sms"):
            raise body_error("Passwordless connections are not supported.")
    unknown = [role_id for role_id in body.get("roles", ()) if role_id not in tenant.roles.by_id]
    if unknown:
        raise body_error(f"One or more of the specified roles do not exist: {', '.join(unknown)}")


@endpoints.add("GET", INVITATIONS, "read:organization_invitations", limit="invitations")
def list_invitations(call: Call) -> Any:
    page = call.page
    rows = page.of(call.tenant.invitations.of(call.organization.id)[::-1])
    # Recorded: the body has no total, and limit is the number of items.
    return {"invitations": rows, "start": page.start, "limit": len(rows)} if page.totals else rows
