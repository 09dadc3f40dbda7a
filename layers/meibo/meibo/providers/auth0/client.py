"""Requests to the Management API of one tenant; unsuccessful responses become Meibo's errors.

https://auth0.com/docs/api/management/v2
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import requests

from meibo import __version__
from meibo.errors import ConfigurationError, CredentialsRefusedError, WrongFormatError
from meibo.http.ratelimit import Clock, SystemClock, TimeLeft
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
from meibo.providers.base import ClientPool, ProviderContext

# Auth0 documents 1 MB for requests. Responses (100 organizations with branding and metadata) may be larger.
MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024


class Auth0Client(ProviderClient):
    """The Management API of one tenant.

    ``domain`` is the tenant's own host name, with a port for a local system. ``time_left`` returns the seconds that are
    left of the invocation; it is replaced when a cached client is used in the next invocation. ``headroom`` is the
    number of requests of each rate limit that are left to other clients, at least the number of such clients.
    """

    def __init__(
        self,
        domain: str,
        credentials: Auth0Credentials,
        *,
        session: requests.Session | None = None,
        clock: Clock | None = None,
        time_left: TimeLeft | None = None,
        user_agent: str = f"meibo/{__version__}",
        headroom: int = 0,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?", domain, re.IGNORECASE):
            raise ConfigurationError(
                "domain of an Auth0 source: expected a host name such as acme.jp.auth0.com; correct the configuration"
            )
        self.domain = domain.lower()
        clock = clock or SystemClock()
        self._transport = HttpTransport(
            f"Auth0 ({self.domain})",
            session=session,
            clock=clock,
            time_left=time_left,
            user_agent=user_agent,
            busy=lambda status: status in BUSY_STATUSES or status >= 500,
            headroom=headroom,
        )
        self._token = TokenSource(self.domain, credentials, self._transport, clock)

    def get(self, path: str, *, subject: str, scope: str, bucket: str, params: Parameters = ()) -> Any:
        """Return the parsed response.

        ``path`` follows /api/v2/, with ids quoted. ``subject`` names the resource in messages ("the job job_…"),
        ``scope`` is the OAuth scope that the token needs, ``bucket`` names the rate limit that the request counts
        against.
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
        """Send a JSON or multipart body and return the parsed response, or None if it is empty.

        With ``repeatable`` False a request with an unknown outcome (5xx, reset) is not retried.
        """
        return self._call(
            "POST", path, subject, scope, json=json, multipart=multipart, bucket=bucket, repeatable=repeatable
        )

    def delete(self, path: str, *, json: Any = None, subject: str, scope: str, bucket: str) -> Any:
        """Send a DELETE request with an optional JSON body and return the parsed response, or None if it is empty."""
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
            return self._transport.send(
                ProviderRequest(
                    method,
                    f"https://{self.domain}/api/v2/{path}",
                    bucket=bucket,
                    max_bytes=MAX_RESPONSE_BYTES,
                    headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
                    params=params,
                    json=json,
                    multipart=multipart,
                    repeatable=repeatable,
                )
            )

        token = self._token.token()
        response = send(token)
        if response.status == 401:
            # A token becomes invalid early if the tenant's signing key is rotated; then a new token is accepted.
            self._token.drop(token)
            response = send(self._token.token())
        if response.status == 401:
            raise CredentialsRefusedError(
                f"{self.name} rejected a new access token (401); check that the domain is the tenant's own and that the"
                " application is authorized for the Management API"
            )
        if not 200 <= response.status < 300:
            raise error_from_response(response, provider=self.name, subject=subject, scope=scope)
        if response.status == 204 or not response.body.strip():
            return None
        try:
            return response.json()
        except ValueError:
            pass
        raise WrongFormatError(
            f"{self.name}: expected JSON for {subject}, found {response.content_type or 'no content type'} that is not"
            " JSON; check the domain"
        )


def new_client(domain: str, secret: Mapping[str, Any], context: ProviderContext) -> Auth0Client:
    """Return a new client of a tenant with the credentials of a secret."""
    return Auth0Client(
        domain,
        Auth0Credentials.from_secret(secret),
        # A client sends one request at a time.
        session=context.new_session(1),
        clock=context.clock,
        time_left=context.time_left,
        headroom=context.headroom,
    )


# Shared by exports and membership changes, so that both handle a rotated secret in the same way.
clients: Final[ClientPool[Auth0Client]] = ClientPool(new_client)
