"""Endpoints of the Management API: each request is authenticated, then rate limited, then validated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request

from meibo_simulators.auth0.errors import ApiError, body_error, organization_missing
from meibo_simulators.auth0.organizations import Organization
from meibo_simulators.auth0.pagination import OFFSET_QUERY, Page, read_page, read_query
from meibo_simulators.auth0.tenant import SimulatedTenant
from meibo_simulators.auth0.tokens import Grant
from meibo_simulators.auth0.validation import Schema, check, check_path

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
    """An authenticated request. Its properties raise the error response of an invalid request."""

    tenant: SimulatedTenant
    grant: Grant
    path: dict[str, str]

    @property
    def organization(self) -> Organization:
        """The organization of the path."""
        organization_id = self.path["organization_id"]
        check_path("id", organization_id, ORGANIZATION_ID)
        organization = self.tenant.organizations.find(organization_id)
        if organization is None:
            raise organization_missing()
        return organization

    @property
    def page(self) -> Page:
        """The page that the query requests by offset."""
        return read_page(self.query())

    @staticmethod
    def query(properties: dict[str, Schema] = OFFSET_QUERY) -> dict[str, Any]:
        """Return the typed query parameters."""
        return read_query(request.args.to_dict(), properties)

    @staticmethod
    def body(schema: Schema) -> Any:
        """Return the validated body."""
        body = read_body()
        check(body, schema)
        return body


def read_body() -> Any:
    """Return the decoded body, JSON or form-urlencoded; Auth0's mutating endpoints accept both."""
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


#: Returns the body of a response, None for an empty 204, or a response.
View = Callable[[Call], Any]
#: Returns the text that replaces the list of OAuth scopes in the message of a 403.
ScopesText = Callable[["SimulatedTenant"], str]


@dataclass(frozen=True)
class Endpoint:
    """A method and path below /api/v2; the token needs at least one of the OAuth scopes."""

    method: str
    path: str
    scopes: tuple[str, ...]
    limit: str
    scopes_text: ScopesText | None
    view: View

    def respond(self, tenant: SimulatedTenant, path: dict[str, str]) -> Response:
        """Return the response to the current request."""
        tenant.jobs.finish_imports()
        text = self.scopes_text(tenant) if self.scopes_text else ",".join(self.scopes)
        grant = tenant.tokens.check(request.headers.get("Authorization"), self.scopes, text)
        headers = tenant.limits.take(self.limit)
        if (request.content_length or 0) > MAX_PAYLOAD_BYTES:
            raise ApiError(413, f"Payload content length greater than maximum allowed: {MAX_PAYLOAD_BYTES}")
        try:
            body = self.view(Call(tenant, grant, path))
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


class Endpoints:
    """The endpoints of a module."""

    def __init__(self) -> None:
        self._endpoints: list[Endpoint] = []

    def add(
        self, method: str, path: str, *scopes: str, limit: str = "other", scopes_text: ScopesText | None = None
    ) -> Callable[[View], View]:
        """Return a decorator that adds a view."""

        def decorate(view: View) -> View:
            self._endpoints.append(Endpoint(method, path, scopes, limit, scopes_text, view))
            return view

        return decorate

    def register(self, app: Flask, tenant: SimulatedTenant) -> None:
        """Serve the endpoints with an application."""

        def register(endpoint: Endpoint) -> None:
            def respond(**path: str) -> Response:
                return endpoint.respond(tenant, path)

            name = f"{endpoint.method} {endpoint.path}"
            app.add_url_rule(f"/api/v2{endpoint.path}", name, respond, methods=[endpoint.method])

        for endpoint in self._endpoints:
            register(endpoint)
