"""GET /organizations, an organization by id or name, its enabled connections; GET /connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, request

from meibo_simulators.auth0.jobs import CONNECTION_PATTERN
from meibo_simulators.auth0.pagination import (
    CHECKPOINT_QUERY,
    DEFAULT_SIZE,
    FIELDS_QUERY,
    OFFSET_QUERY,
    by_offset,
    cursor,
    offset,
    read_cursor,
    read_query,
    with_fields,
)
from meibo_simulators.auth0.responses import ApiError, answer, organization_missing
from meibo_simulators.auth0.validation import check

if TYPE_CHECKING:
    from meibo_simulators.auth0.directory import Connection
    from meibo_simulators.auth0.organizations import Organization
    from meibo_simulators.auth0.routing import Routes
    from meibo_simulators.auth0.tenant import SimulatedTenant
    from meibo_simulators.auth0.tokens import Grant

ORGANIZATION_ID = {
    "type": "string",
    "format": "organization-id",
    "format_pattern": "^org_[A-Za-z0-9]{16}$",
    "description": "Organization identifier.",
}
ORGANIZATION_NAME = {
    "type": "string",
    "format": "organization-name",
    "format_pattern": "^[a-z0-9][a-z0-9_-]{0,49}$",
    "description": "name of the organization to retrieve.",
}
CONNECTION_ID = {"type": "string", "pattern": CONNECTION_PATTERN, "description": "Connection identifier."}
SORT = {"type": "string", "pattern": "^(name|display_name|created_at):(1|-1)$", "description": "Field to sort by."}
MAX_CONNECTIONS = 10
_OPTIONS_SCOPE = "read:connections_options"
# Recorded: these two are always included, whatever ``fields`` contains.
_ALWAYS = ("id", "is_domain_connection")


def existing(tenant: SimulatedTenant, organization_id: str) -> Organization:
    """Return the organization of a path. Raise the 400 of a malformed id or the 404 of a missing organization."""
    check({"id": organization_id}, {"type": "object", "properties": {"id": ORGANIZATION_ID}}, "Path")
    organization = tenant.organizations.find(organization_id)
    if organization is None:
        raise organization_missing()
    return organization


def register(routes: Routes) -> None:
    """Add the routes."""
    tenant = routes.tenant

    @routes.add("GET", "/organizations", "read:organizations", "read:organizations_summary", limit="organizations")
    def list_organizations(_grant: Grant) -> Response:
        query = read_query(request.args.to_dict(), {**OFFSET_QUERY, **CHECKPOINT_QUERY, "sort": SORT})
        if "take" in query or "from" in query:
            position = read_cursor(query["from"]) if "from" in query else None
            organizations, more = tenant.organizations.after(position, query.get("take", DEFAULT_SIZE))
            body: dict[str, Any] = {"organizations": [organization.body for organization in organizations]}
            if more:
                body["next"] = cursor(organizations[-1].created, organizations[-1].id)
            return answer(body)
        page = offset(query)
        rows = [organization.body for organization in tenant.organizations.slice(page.start, page.size)]
        if not page.totals:
            return answer(rows)
        total = tenant.organizations.count()
        return answer({"organizations": rows, "start": page.start, "limit": page.size, "total": total})

    @routes.add("GET", "/organizations/<organization_id>", "read:organizations", limit="organization")
    def get_organization(_grant: Grant, organization_id: str) -> Response:
        return answer(existing(tenant, organization_id).body)

    @routes.add("GET", "/organizations/name/<name>", "read:organizations", limit="organization")
    def get_organization_by_name(_grant: Grant, name: str) -> Response:
        check({"name": name}, {"type": "object", "properties": {"name": ORGANIZATION_NAME}}, "Path")
        organization = tenant.organizations.find_by_name(name)
        if organization is None:
            raise organization_missing()
        return answer(organization.body)

    @routes.add(
        "GET",
        "/organizations/<organization_id>/enabled_connections",
        "read:organization_connections",
        limit="enabled_connections",
    )
    def enabled_connections(_grant: Grant, organization_id: str) -> Response:
        query = read_query(request.args.to_dict(), OFFSET_QUERY)
        organization = existing(tenant, organization_id)
        page = offset(query)
        rows = list(_enabled_connections(tenant, organization).values())
        total = len(rows)
        if tenant.switches.enabled_connections_paged:
            rows = rows[page.start : page.start + page.size]
        if not page.totals:
            return answer(rows)
        limit = len(rows) if tenant.switches.enabled_connections_limit_is_length else page.size
        start = page.start if tenant.switches.enabled_connections_paged else 0
        return answer({"enabled_connections": rows, "start": start, "limit": limit, "total": total})

    @routes.add(
        "GET",
        "/organizations/<organization_id>/enabled_connections/<connection_id>",
        "read:organization_connections",
        limit="enabled_connections",
    )
    def enabled_connection(_grant: Grant, organization_id: str, connection_id: str) -> Response:
        check(
            {"connectionId": connection_id}, {"type": "object", "properties": {"connectionId": CONNECTION_ID}}, "Path"
        )
        connection = _enabled_connections(tenant, existing(tenant, organization_id)).get(connection_id)
        if connection is None:
            raise ApiError(404, "No connection found by that id")
        return answer(connection)

    @routes.add("GET", "/connections", "read:connections", limit="connections")
    def list_connections(grant: Grant) -> Response:
        query = read_query(
            request.args.to_dict(), {**OFFSET_QUERY, **CHECKPOINT_QUERY, **FIELDS_QUERY, "name": {"type": "string"}}
        )
        strategies = request.args.getlist("strategy")
        shown = not tenant.switches.hide_connection_options or _OPTIONS_SCOPE in grant.scopes
        rows = [
            with_fields(_connection(connection, with_options=shown), query, _ALWAYS)
            for connection in tenant.directory.connections.values()
            if (not strategies or connection.strategy in strategies)
            and query.get("name", connection.name) == connection.name
        ]
        if "take" in query or "from" in query:
            start = int(read_cursor(query["from"])[0]) if "from" in query else 0
            end = start + query.get("take", DEFAULT_SIZE)
            body: dict[str, Any] = {"connections": rows[start:end]}
            if end < len(rows):
                body["next"] = cursor(end, rows[end]["id"])
            return answer(body)
        return answer(by_offset("connections", rows, offset(query)))


def _enabled_connections(tenant: SimulatedTenant, organization: Organization) -> dict[str, dict[str, Any]]:
    """Return an organization's enabled connections by id."""
    ids = tenant.organizations.connections(organization.id)[:MAX_CONNECTIONS]
    return {connection_id: _enabled(tenant.directory.connections[connection_id]) for connection_id in ids}


def _enabled(connection: Connection) -> dict[str, Any]:
    item: dict[str, Any] = {
        "connection_id": connection.id,
        "assign_membership_on_login": False,
        "show_as_button": True,
    }
    if connection.strategy == "auth0":
        item["is_signup_enabled"] = False
    item["connection"] = {"name": connection.name, "strategy": connection.strategy}
    return item


def _connection(connection: Connection, *, with_options: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": connection.id,
        "name": connection.name,
        "display_name": connection.name,
        "strategy": connection.strategy,
        "options": {"brute_force_protection": True, **connection.options},
        "realms": [connection.name],
        "is_domain_connection": False,
        "show_as_button": True,
        "authentication": {"active": True},
        "connected_accounts": {"active": False},
    }
    if not with_options:
        del body["options"]
    return body
