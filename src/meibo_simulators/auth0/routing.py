"""Register views as endpoints with authentication and rate limits."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request

from meibo_simulators.auth0.responses import ApiError
from meibo_simulators.auth0.validation import parse_body

if TYPE_CHECKING:
    from meibo_simulators.auth0.tenant import SimulatedTenant

View = Callable[..., Response]
# https://auth0.com/docs/api/management/v2
MAX_PAYLOAD = 1 << 20


class Routes:
    """Register views; each request is authenticated, then rate limited, then validated."""

    def __init__(self, tenant: SimulatedTenant, app: Flask) -> None:
        self.tenant = tenant
        self.app = app

    def add(
        self,
        method: str,
        path: str,
        *scopes: str,
        limit: str = "other",
        expected: Callable[[], str | None] = lambda: None,
    ) -> Callable[[View], View]:
        """Register a view at a path below /api/v2; the token needs at least one of the scopes.

        ``expected`` returns the text that replaces the list of scopes in the message of a 403, or None.
        """

        def register(view: View) -> View:
            @wraps(view)
            def checked(**arguments: str) -> Response:
                self.tenant.jobs.settle()
                grant = self.tenant.tokens.check(request.headers.get("Authorization"), scopes, expected())
                headers = self.tenant.limits.take(limit)
                if (request.content_length or 0) > MAX_PAYLOAD:
                    raise ApiError(413, f"Payload content length greater than maximum allowed: {MAX_PAYLOAD}")
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
    """Return the decoded request body."""
    return parse_body(request.get_data(), request.content_type or "", dict(request.form))
