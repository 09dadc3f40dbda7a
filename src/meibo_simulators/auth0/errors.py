"""Error responses of Auth0. Recorded messages are verbatim."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any


class ApiError(Exception):
    """An error response of the Management API. Some errors of Auth0 have no ``code``.

    ``rate_headers`` adds the rate-limit headers, which responses to invalid requests do not have.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        attributes: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        rate_headers: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.rate_headers = rate_headers
        self.body: dict[str, Any] = {"statusCode": status, "error": HTTPStatus(status).phrase, "message": message}
        if attributes is not None:
            self.body["attributes"] = attributes
        if code is not None:
            self.body["errorCode"] = code


class OAuthError(Exception):
    """An error response of the token endpoint, which has a different format."""

    def __init__(self, status: int, error: str, description: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(description)
        self.status = status
        self.body = {"error": error, "error_description": description}
        self.headers = headers or {}


def body_error(message: str, code: str = "invalid_body") -> ApiError:
    """Return the 400 error for an invalid body."""
    return ApiError(400, message, code, rate_headers=False)


def query_error(message: str, code: str = "invalid_query_string") -> ApiError:
    """Return the 400 error for an invalid query."""
    return ApiError(400, message, code, rate_headers=False)


def insufficient_scope(expected: str) -> ApiError:
    """Return the 403 error for a token without a required OAuth scope."""
    return ApiError(403, f"Insufficient scope, expected any of: {expected}", "insufficient_scope")


CONNECTION_MISSING = "The connection does not exist."


def organization_missing() -> ApiError:
    """Return the 404 error for a missing organization, which has no errorCode."""
    return ApiError(404, "No organization found by that id or name")


def user_missing() -> ApiError:
    """Return the 404 error for a missing user."""
    return ApiError(404, "The user does not exist.", "inexistent_user")


def job_missing() -> ApiError:
    """Return the 404 error for a missing job. It is not known whether the response of Auth0 has an errorCode."""
    return ApiError(404, "Job not found.")
