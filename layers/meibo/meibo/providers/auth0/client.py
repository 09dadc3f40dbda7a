"""Requests to the Management API of one tenant, with its answers turned into Meibo's errors.

https://auth0.com/docs/api/management/v2
"""

from __future__ import annotations

import re
from typing import Any, Final

import requests

from meibo import __version__
from meibo.errors import ConfigurationError, CredentialsRefusedError, WrongFormatError
from meibo.http.ratelimit import Clock, Deadline, SystemClock
from meibo.http.transport import (
    BUSY_STATUSES,
    HttpTransport,
    Multipart,
    Parameters,
    ProviderClient,
    ProviderRequest,
    ProviderResponse,
)
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.errors import error_from_response
from meibo.providers.auth0.token import TokenSource

# Auth0 documents 1 MB for what it takes; what it gives (100 organizations with branding and metadata) may be more.
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024


class Auth0Client(ProviderClient):
    """The Management API of one tenant.

    ``domain`` is the tenant's own host name, with a port for a local system. ``deadline`` tells how many seconds
    the invocation has left; it may be replaced when the client is kept for the next invocation. ``headroom`` is
    how many requests of each limit are left to others, at least as many as clients run side by side.
    """

    def __init__(
        self,
        domain: str,
        credentials: Auth0Credentials,
        *,
        session: requests.Session | None = None,
        clock: Clock | None = None,
        deadline: Deadline | None = None,
        user_agent: str = f"meibo/{__version__}",
        headroom: int = 0,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?", domain, re.IGNORECASE):
            raise ConfigurationError("the domain of an Auth0 source must be a host name like acme.jp.auth0.com")
        self.domain = domain.lower()
        clock = clock or SystemClock()
        self._exchange = HttpTransport(
            f"Auth0 ({self.domain})",
            session=session,
            clock=clock,
            deadline=deadline,
            user_agent=user_agent,
            busy=lambda status: status in BUSY_STATUSES or status >= 500,
            headroom=headroom,
        )
        self._token = TokenSource(self.domain, credentials, self._exchange, clock)

    def get(self, path: str, *, subject: str, scope: str, bucket: str, params: Parameters = ()) -> Any:
        """Return the parsed answer.

        ``path`` follows /api/v2/, with ids quoted. ``subject`` says what is asked for in messages ("the job
        job_…"), ``scope`` what the token needs for it. ``bucket`` names the rate limit that it counts against.
        """
        return self._call("GET", path, subject, scope, params=params, bucket=bucket)

    def post(
        self,
        path: str,
        *,
        subject: str,
        scope: str,
        bucket: str,
        json: Any = None,
        multipart: Multipart | None = None,
        repeatable: bool = True,
    ) -> Any:
        """Send a JSON or multipart body and return the parsed answer, or None where it is empty.

        With ``repeatable`` False a request whose outcome is unknown (5xx, reset) is not sent again.
        """
        return self._call(
            "POST", path, subject, scope, json=json, multipart=multipart, bucket=bucket, repeatable=repeatable
        )

    def delete(self, path: str, *, json: Any = None, subject: str, scope: str, bucket: str) -> Any:
        """Delete, with an optional JSON body, and return the parsed answer, or None where it is empty."""
        return self._call("DELETE", path, subject, scope, json=json, bucket=bucket)

    def _call(
        self,
        method: str,
        path: str,
        subject: str,
        scope: str,
        *,
        params: Parameters = (),
        json: Any = None,
        multipart: Multipart | None = None,
        bucket: str,
        repeatable: bool = True,
    ) -> Any:
        def send(token: str) -> ProviderResponse:
            return self._exchange.send(
                ProviderRequest(
                    method,
                    f"https://{self.domain}/api/v2/{path}",
                    bucket=bucket,
                    max_bytes=MAX_ANSWER_BYTES,
                    headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
                    params=params,
                    json=json,
                    multipart=multipart,
                    repeatable=repeatable,
                )
            )

        token = self._token.token()
        answer = send(token)
        if answer.status == 401:
            # Tokens end early when the tenant's signing key is rotated; a fresh one tells that from bad credentials.
            self._token.drop(token)
            answer = send(self._token.token())
        if answer.status == 401:
            raise CredentialsRefusedError(
                f"{self.name} refuses the token that it has just given (401); check that the domain is the"
                " tenant's own and that the application is authorized for the Management API"
            )
        if not 200 <= answer.status < 300:
            raise error_from_response(answer, provider=self.name, subject=subject, scope=scope)
        if answer.status == 204 or not answer.body.strip():
            return None
        try:
            return answer.json()
        except ValueError:
            pass
        raise WrongFormatError(
            f"{self.name} answered {answer.content_type or 'something'} that is not JSON where {subject} was due"
        )
