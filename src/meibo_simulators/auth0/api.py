"""The WSGI application of a tenant: the token endpoint and the Management API."""

from __future__ import annotations

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from meibo_simulators.auth0 import organization_routes, role_routes, user_routes
from meibo_simulators.auth0.errors import ApiError, OAuthError
from meibo_simulators.auth0.routing import json_response, read_body
from meibo_simulators.auth0.tenant import SimulatedTenant


def tenant_application(tenant: SimulatedTenant) -> Flask:
    """Return the tenant's WSGI application."""
    app = Flask("auth0")

    @app.errorhandler(ApiError)
    @app.errorhandler(OAuthError)
    def handle_error(error: ApiError | OAuthError) -> Response:
        return json_response(error.body, error.status, error.headers)

    @app.errorhandler(HTTPException)
    def handle_http_error(error: HTTPException) -> Response:
        return handle_error(ApiError(error.code or 500, error.name))

    @app.post("/oauth/token")
    def token() -> Response:
        headers = tenant.limits.take_for_token()
        form = read_body()
        return json_response(tenant.tokens.issue(form if isinstance(form, dict) else {}), headers=headers)

    app.config["TENANT"] = tenant
    for module in (organization_routes, role_routes, user_routes):
        app.register_blueprint(module.endpoints, url_prefix="/api/v2")
    return app
