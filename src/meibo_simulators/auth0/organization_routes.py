"""GET /organizations, an organization, its enabled connections; GET /connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, request

from meibo_simulators.auth0.pagination import (
    CHECKPOINT_QUERY,
    DEFAULT_SIZE,
    OFFSET_QUERY,
    by_offset,
    cursor,
    offset,
    read_cursor,
    read_query,
)
from meibo_simulators.auth0.responses import answer, organization_missing
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
SORT = {"type": "string", "pattern": "^(name|display_name|created_at):(1|-1)$", "description": "Field to sort by."}
MAX_CONNECTIONS = 10
_OPTIONS_SCOPE = "read:connections_options"


def existing(tenant: SimulatedTenant, organization_id: str) -> Organization:
    """Return the organization of a path, or raise its 400 or 404."""
    check({"id": organization_id}, {"type": "object", "properties": {"id": ORGANIZATION_ID}}, "Path")
    found = tenant.organizations.find(organization_id)
    if found is None:
        raise organization_missing()
    return found


def register(routes: Routes) -> None:
    """Add the routes."""
    tenant = routes.tenant

    @routes.add("GET", "/organizations", "read:organizations", "read:organizations_summary", limit="organizations")
    def list_organizations(_grant: Grant) -> Response:
        query = read_query(request.args.to_dict(), {**OFFSET_QUERY, **CHECKPOINT_QUERY, "sort": SORT})
        if "take" in query or "from" in query:
            position = read_cursor(query["from"]) if "from" in query else None
            found, more = tenant.organizations.after(position, query.get("take", DEFAULT_SIZE))
            body: dict[str, Any] = {"organizations": [one.body for one in found]}
            if more:
                body["next"] = cursor(found[-1].created, found[-1].id)
            return answer(body)
        page = offset(query)
        rows = [one.body for one in tenant.organizations.slice(page.start, page.size)]
        if not page.totals:
            return answer(rows)
        total = tenant.organizations.count()
        return answer({"organizations": rows, "start": page.start, "limit": page.size, "total": total})

    @routes.add("GET", "/organizations/<organization_id>", "read:organizations", limit="organization")
    def get_organization(_grant: Grant, organization_id: str) -> Response:
        return answer(existing(tenant, organization_id).body)

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
        rows = [
            _enabled(tenant.directory.connections[connection_id])
            for connection_id in tenant.organizations.connections(organization.id)[:MAX_CONNECTIONS]
        ]
        total = len(rows)
        if tenant.switches.enabled_connections_paged:
            rows = rows[page.start : page.start + page.size]
        if not page.totals:
            return answer(rows)
        limit = len(rows) if tenant.switches.enabled_connections_limit_is_length else page.size
        start = page.start if tenant.switches.enabled_connections_paged else 0
        return answer({"enabled_connections": rows, "start": start, "limit": limit, "total": total})

    @routes.add("GET", "/connections", "read:connections", limit="connections")
    def list_connections(grant: Grant) -> Response:
        query = read_query(
            request.args.to_dict(),
            {**OFFSET_QUERY, **CHECKPOINT_QUERY, "name": {"type": "string"}, "fields": {"type": "string"}},
        )
        strategies = request.args.getlist("strategy")
        shown = not tenant.switches.hide_connection_options or _OPTIONS_SCOPE in grant.scopes
        rows = [
            _connection(one, with_options=shown, fields=query.get("fields"))
            for one in tenant.directory.connections.values()
            if (not strategies or one.strategy in strategies) and query.get("name", one.name) == one.name
        ]
        if "take" in query or "from" in query:
            start = int(read_cursor(query["from"])[0]) if "from" in query else 0
            end = start + query.get("take", DEFAULT_SIZE)
            body: dict[str, Any] = {"connections": rows[start:end]}
            if end < len(rows):
                body["next"] = cursor(end, rows[end].get("id", "con"))
            return answer(body)
        return answer(by_offset("connections", rows, offset(query)))


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


def _connection(connection: Connection, *, with_options: bool, fields: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": connection.id,
        "name": connection.name,
        "strategy": connection.strategy,
        "options": {"brute_force_protection": True, **connection.options},
        "realms": [connection.name],
        "enabled_clients": [],
        "is_domain_connection": False,
    }
    if not with_options:
        del body["options"]
    if fields:
        # Recorded: is_domain_connection comes whatever fields were asked for.
        kept = {*fields.split(","), "is_domain_connection"}
        return {name: value for name, value in body.items() if name in kept}
    return body
