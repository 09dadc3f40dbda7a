"""Invitations of an organization: create, list, delete."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any

from flask import Response, request

from meibo_simulators.auth0.organization_routes import existing
from meibo_simulators.auth0.pagination import OFFSET_QUERY, offset, read_query
from meibo_simulators.auth0.responses import ApiError, answer, body_error, no_content
from meibo_simulators.auth0.routing import json_body
from meibo_simulators.auth0.validation import Schema, check
from meibo_simulators.clock import timestamp

if TYPE_CHECKING:
    from meibo_simulators.auth0.routing import Routes
    from meibo_simulators.auth0.tenant import SimulatedTenant
    from meibo_simulators.auth0.tokens import Grant

MAX_TTL = 2_592_000
DEFAULT_TTL = 604_800
NO_LOGIN_ROUTE = (
    "A default login route is required to generate the invitation url. For more information, see "
    "https://auth0.com/docs/universal-login/configure-default-login-route"
)
_NAME = {"type": "string", "minLength": 1, "maxLength": 300, "description": "The inviter's name."}
SCHEMA: Schema = {
    "type": "object",
    "required": ["inviter", "invitee", "client_id"],
    "additionalProperties": False,
    "properties": {
        "inviter": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {"name": _NAME},
        },
        "invitee": {
            "type": "object",
            "required": ["email"],
            "additionalProperties": False,
            "properties": {
                "email": {
                    "type": "string",
                    "format": "email",
                    "format_pattern": r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
                    "description": "The invitee's email.",
                }
            },
        },
        "client_id": {"type": "string", "description": "Auth0 client ID."},
        "connection_id": {"type": "string", "pattern": "^con_[A-Za-z0-9]{16}$"},
        "ttl_sec": {"type": "integer", "minimum": 0, "maximum": MAX_TTL},
        "roles": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "app_metadata": {"type": "object"},
        "user_metadata": {"type": "object"},
        "send_invitation_email": {"type": "boolean"},
    },
}


class Invitations:
    """The invitations of a tenant and the number of e-mails sent for them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.all: dict[str, dict[str, dict[str, Any]]] = {}
        self.created = 0
        self.emails = 0
        #: Applications that an invitation may use; machine-to-machine clients are rejected.
        self.applications = {"portal"}
        self.login_route = True


def register(routes: Routes) -> None:
    """Add the routes."""
    tenant = routes.tenant
    path = "/organizations/<organization_id>/invitations"

    @routes.add("POST", path, "create:organization_invitations", limit="write_invitations")
    def invite(_grant: Grant, organization_id: str) -> Response:
        body = json_body()
        check(body, SCHEMA)
        organization = existing(tenant, organization_id)
        _check_references(tenant, organization.id, body)
        return answer(_create(tenant, organization.id, body), tenant.switches.invitation_status)

    @routes.add("GET", path, "read:organization_invitations", limit="invitations")
    def list_invitations(_grant: Grant, organization_id: str) -> Response:
        query = read_query(request.args.to_dict(), OFFSET_QUERY)
        organization = existing(tenant, organization_id)
        page = offset(query)
        with tenant.invitations.lock:
            rows = list(tenant.invitations.all.get(organization.id, {}).values())[::-1]
        rows = rows[page.start : page.start + page.size]
        # Recorded: the body has no total, and limit is the number of items.
        return answer({"invitations": rows, "start": page.start, "limit": len(rows)} if page.totals else rows)

    @routes.add("GET", f"{path}/<invitation_id>", "read:organization_invitations", limit="invitations")
    def get_invitation(_grant: Grant, organization_id: str, invitation_id: str) -> Response:
        invitation = tenant.invitations.all.get(existing(tenant, organization_id).id, {}).get(invitation_id)
        if invitation is None:
            raise ApiError(404, "The invitation does not exist.", "inexistent_invitation")
        return answer(invitation)

    @routes.add("DELETE", f"{path}/<invitation_id>", "delete:organization_invitations", limit="write_invitations")
    def delete_invitation(_grant: Grant, organization_id: str, invitation_id: str) -> Response:
        with tenant.invitations.lock:
            tenant.invitations.all.get(existing(tenant, organization_id).id, {}).pop(invitation_id, None)
        return no_content()


def _check_references(tenant: SimulatedTenant, organization_id: str, body: dict[str, Any]) -> None:
    if not tenant.invitations.login_route:
        raise body_error(NO_LOGIN_ROUTE)
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
    unknown = [role_id for role_id in body.get("roles", ()) if role_id not in tenant.organizations.roles]
    if unknown:
        raise body_error(f"One or more of the specified roles do not exist: {', '.join(unknown)}")


def _create(tenant: SimulatedTenant, organization_id: str, body: dict[str, Any]) -> dict[str, Any]:
    now = tenant.clock()
    state = tenant.invitations
    organization = existing(tenant, organization_id)
    with state.lock:
        number = state.created
        state.created += 1
        state.emails += bool(body.get("send_invitation_email", True))
        ticket = hashlib.sha256(f"{tenant.name}:{number}".encode()).hexdigest()[:32]
        copied = ("client_id", "connection_id", "inviter", "invitee", "roles", "app_metadata", "user_metadata")
        invitation = {
            "id": tenant.new_id("uinv", number),
            **{name: body[name] for name in copied if name in body},
            "invitation_url": f"https://portal.example.invalid/login?invitation={ticket}"
            f"&organization={organization_id}&organization_name={organization.body['name']}",
            "ticket_id": ticket,
            "created_at": timestamp(now),
            "expires_at": timestamp(now + (body.get("ttl_sec") or DEFAULT_TTL)),
            "organization_id": organization_id,
        }
        state.all.setdefault(organization_id, {})[invitation["id"]] = invitation
    return invitation
