"""The routes of the Management API and of the token endpoint."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from local.simulators.auth0.answers import ApiError, OAuthError, answer
from local.simulators.auth0.validation import parse_body

if TYPE_CHECKING:
    from local.simulators.auth0.tenant import Auth0Tenant
    from local.simulators.auth0.tokens import Grant

View = Callable[..., Response]


class Routes:
    """Registers views that are authenticated first, then counted, then validated."""

    def __init__(self, tenant: Auth0Tenant, app: Flask) -> None:
        self.tenant = tenant
        self.app = app

    def add(self, method: str, path: str, *scopes: str, limit: str = "other") -> Callable[[View], View]:
        """Register a view under a path of /api/v2; any of the scopes is enough."""

        def register(view: View) -> View:
            @wraps(view)
            def checked(**arguments: str) -> Response:
                grant = self.tenant.tokens.check(request.headers.get("Authorization"), scopes)
                headers = self.tenant.limits.take(limit)
                try:
                    response: Response = view(grant, **arguments)
                except ApiError as error:
                    if error.rate_headers:
                        error.headers = {**headers, **error.headers}
                    raise
                response.headers.extend(headers)
                return response

            endpoint = f"{method} {path}"
            self.app.add_url_rule(f"/api/v2{path}", endpoint, checked, methods=[method])
            return view

        return register


def json_body() -> Any:
    """Return the request's body."""
    return parse_body(request.get_data(), request.content_type or "", dict(request.form))


def make_application(tenant: Auth0Tenant) -> Flask:
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
        form = json_body()
        return answer(tenant.tokens.issue(form if isinstance(form, dict) else {}))

    routes = Routes(tenant, app)

    @routes.add("POST", "/jobs/users-exports", "read:users", limit="jobs")
    def create_export(_grant: Grant) -> Response:
        return answer(tenant.jobs.create_export(json_body()))

    @routes.add("GET", "/jobs/<job_id>", "create:users", "read:users", limit="jobs")
    def get_job(_grant: Grant, job_id: str) -> Response:
        return answer(tenant.jobs.get(job_id))

    return app
