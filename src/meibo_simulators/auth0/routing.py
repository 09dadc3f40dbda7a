"""Endpoints of the Management API. Each request is authenticated, then rate limited, then validated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, current_app, request

from meibo_simulators.auth0.errors import ApiError, body_error, organization_missing, user_missing
from meibo_simulators.auth0.organizations import Organization
from meibo_simulators.auth0.pagination import OFFSET_QUERY, Page, read_page, read_query
from meibo_simulators.auth0.tenant import SimulatedTenant
from meibo_simulators.auth0.tokens import Grant
from meibo_simulators.auth0.validation import Schema, check, check_path
from meibo_simulators.profiles import Profile

# https://auth0.com/docs/api/management/v2
MAX_PAYLOAD_BYTES = 1 << 20
ORGANIZATION_ID: Schema = {
    "type": "string",
    "format": "organization-id",
    "format_pattern": "^org_[A-Za-z0-9]{16}$",
    "description": "Organization identifier.",
}


@dataclass(frozen=True)
class Call:
    """An authenticated request. The properties and methods raise the error response to an invalid request."""

    tenant: SimulatedTenant
    grant: Grant
    path: dict[str, str]

    @property
    def organization(self) -> Organization:
        """The organization in the path."""
        organization_id = self.path["organization_id"]
        check_path("id", organization_id, ORGANIZATION_ID)
        organization = self.tenant.organizations.find(organization_id)
        if organization is None:
            raise organization_missing()
        return organization

    @property
    def user(self) -> Profile:
        """The profile of the user in the path."""
        profile = self.tenant.directory.get(self.path["user_id"])
        if profile is None:
            raise user_missing()
        return profile

    @property
    def page(self) -> Page:
        """The page that the query requests by offset."""
        return read_page(self.query())

    @staticmethod
    def query(properties: dict[str, Schema] = OFFSET_QUERY) -> dict[str, Any]:
        """Return the query parameters with their types."""
        return read_query(request.args.to_dict(), properties)

    @staticmethod
    def body(schema: Schema) -> Any:
        """Return the validated body."""
        body = read_body()
        check(body, schema)
        return body


def read_body() -> Any:
    """Return the decoded body. Auth0's mutating endpoints accept JSON and form-urlencoded bodies."""
    if request.mimetype == "application/x-www-form-urlencoded":
        return dict(request.form)
    try:
        return json.loads(request.get_data() or b"{}")
    except ValueError:
        raise body_error("Payload validation error: 'Invalid JSON'.") from None


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON response in Auth0's format: compact UTF-8 without escapes."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(text, status, headers, content_type="application/json; charset=utf-8")


#: Returns a response, the body of a response, or None for an empty 204 response.
View = Callable[[Call], Any]
#: Returns the text that replaces the list of OAuth scopes in the message of a 403 error.
ScopesText = Callable[["SimulatedTenant"], str]


class Endpoints(Blueprint):
    """Endpoints of the Management API. ``TENANT`` in the configuration of the application is the tenant."""

    def add(
        self, method: str, path: str, *scopes: str, limit: str = "other", scopes_text: ScopesText | None = None
    ) -> Callable[[View], View]:
        """Return a decorator that adds a view. The token needs at least one of the OAuth scopes."""

        def decorate(view: View) -> View:
            def respond(**arguments: str) -> Response:
                tenant: SimulatedTenant = current_app.config["TENANT"]
                tenant.jobs.finish_imports()
                text = scopes_text(tenant) if scopes_text else ",".join(scopes)
                grant = tenant.tokens.check(request.headers.get("Authorization"), scopes, text)
                return _respond(view, Call(tenant, grant, arguments), tenant.limits.take(limit))

            self.add_url_rule(path, view.__name__, respond, methods=[method])
            return view

        return decorate


def _respond(view: View, call: Call, headers: dict[str, str]) -> Response:
    if (request.content_length or 0) > MAX_PAYLOAD_BYTES:
        raise ApiError(413, f"Payload content length greater than maximum allowed: {MAX_PAYLOAD_BYTES}")
    try:
        body = view(call)
    except ApiError as error:
        if error.rate_headers:
            error.headers = {**headers, **error.headers}
        raise
    if isinstance(body, Response):
        body.headers.extend(headers)
        return body
    if body is not None:
        return json_response(body, headers=headers)
    response = Response(status=204, headers=headers)
    del response.headers["Content-Type"]
    return response
