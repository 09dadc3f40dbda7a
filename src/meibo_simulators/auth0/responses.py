"""Auth0's error bodies; messages are verbatim if they were recorded."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from flask import Response


class ApiError(Exception):
    """An error response of the Management API. Some of Auth0's errors have no ``code``."""

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
        self.code = code
        self.message = message
        self.attributes = attributes
        self.headers = headers or {}
        self.rate_headers = rate_headers

    def response(self) -> Response:
        """Return the JSON answer."""
        body: dict[str, Any] = {"statusCode": self.status, "error": HTTPStatus(self.status).phrase}
        body["message"] = self.message
        if self.attributes is not None:
            body["attributes"] = self.attributes
        if self.code is not None:
            body["errorCode"] = self.code
        return answer(body, self.status, self.headers)


class OAuthError(Exception):
    """An error response of the token endpoint, which has a different format."""

    def __init__(self, status: int, error: str, description: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(description)
        self.status = status
        self.body = {"error": error, "error_description": description}
        self.headers = headers or {}

    def response(self) -> Response:
        """Return the JSON answer."""
        return answer(self.body, self.status, self.headers)


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON response in Auth0's format: compact UTF-8 without escapes."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    response = Response(text, status, content_type="application/json; charset=utf-8")
    response.headers.extend(headers or {})
    return response


def no_content() -> Response:
    """Return an empty 204 response."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def body_error(message: str) -> ApiError:
    """Return the 400 of an invalid body; validation errors have no rate-limit headers."""
    return ApiError(400, message, "invalid_body", rate_headers=False)


def insufficient_scope(expected: str) -> ApiError:
    """Return the 403 of a token without a required OAuth scope."""
    return ApiError(403, f"Insufficient scope, expected any of: {expected}", "insufficient_scope")


CONNECTION_MISSING = "The connection does not exist."
ORGANIZATION_MISSING = "No organization found by that id or name"


def organization_missing() -> ApiError:
    """Return the 404 of a missing organization, which has no errorCode."""
    return ApiError(404, ORGANIZATION_MISSING)


def user_missing() -> ApiError:
    """Return the 404 of a missing user."""
    return ApiError(404, "The user does not exist.", "inexistent_user")


def job_missing() -> ApiError:
    """Return the 404 of a missing job; whether the real one has an errorCode is not known."""
    return ApiError(404, "Job not found.")
