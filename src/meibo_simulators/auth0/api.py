"""The WSGI application of a tenant: the token endpoint, export jobs, and the routes of the other modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from meibo_simulators.auth0 import import_routes, invitations, member_routes, organization_routes, user_and_role_routes
from meibo_simulators.auth0.responses import ApiError, OAuthError, answer
from meibo_simulators.auth0.routing import Routes, json_body

if TYPE_CHECKING:
    from meibo_simulators.auth0.tenant import SimulatedTenant
    from meibo_simulators.auth0.tokens import Grant


def make_application(tenant: SimulatedTenant) -> Flask:
    """Return the tenant's WSGI application."""
    app = Flask("auth0")
    app.json.ensure_ascii = False  # type: ignore[attr-defined]  # the default provider has it

    @app.errorhandler(ApiError)
    def refuse(error: ApiError) -> Response:
        return error.response()

    @app.errorhandler(OAuthError)
    def refuse_token(error: OAuthError) -> Response:
        return error.response()

    @app.errorhandler(HTTPException)
    def not_served(error: HTTPException) -> Response:
        return ApiError(error.code or 500, error.name).response()

    @app.post("/oauth/token")
    def token() -> Response:
        headers = tenant.limits.take_for_token()
        form = json_body()
        return answer(tenant.tokens.issue(form if isinstance(form, dict) else {}), 200, headers)

    routes = Routes(tenant, app)

    @routes.add("POST", "/jobs/users-exports", "read:users", limit="jobs")
    def create_export(_grant: Grant) -> Response:
        return answer(tenant.jobs.create_export(json_body()))

    @routes.add("GET", "/jobs/<job_id>", "create:users", "read:users", limit="jobs")
    def get_job(_grant: Grant, job_id: str) -> Response:
        return answer(tenant.jobs.get(job_id))

    for module in (organization_routes, member_routes, invitations, user_and_role_routes, import_routes):
        module.register(routes)
    return app
