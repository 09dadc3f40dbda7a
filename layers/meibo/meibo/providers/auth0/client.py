"""Send requests to the Management API of a tenant. If a response is not successful, a MeiboError is raised.

https://auth0.com/docs/api/management/v2
"""

from __future__ import annotations

import re
import threading
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from json import loads as parse_json
from typing import Any, Final

import requests

from meibo.clock import Clock, TimeLeft
from meibo.errors import ConfigurationError, CredentialsRefusedError, ScopeMissingError, WrongFormatError
from meibo.http.ratelimit import MAX_RETRY_SECONDS
from meibo.http.raw_json import RawJson, parse_list
from meibo.http.transport import BUSY_STATUSES, HttpTransport, Multipart, Parameters, ProviderRequest, ProviderResponse
from meibo.providers.auth0.credentials import Auth0Credentials, TokenSource
from meibo.providers.auth0.errors import error_from_response
from meibo.providers.base import ProviderContext

# The documented limit of 1 MB applies to requests. Responses, for example a list of 100 organizations, may be larger.
MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
# A client has a connection and up to 2 MiB of certificates. Meibo uses fewer clients at the same time.
MAX_CLIENTS: Final = 32


@dataclass(frozen=True)
class ApiList:
    """A list of the API. ``key`` is the key of its rows in the response, or None if the response is an array.

    The other fields are parameters of ``Auth0Client.request``.
    """

    path: str
    key: str | None
    subject: str
    scope: str
    bucket: str
    params: Parameters = ()


class Auth0Client:
    """The Management API of a tenant.

    ``domain`` is the host name of the tenant or its custom domain, with a port for a local simulator.
    ``read_credentials`` is called before the first request. It is called again if a later request is rejected, because
    the secret may have been rotated or an OAuth scope may have been granted in the meantime. ``headroom`` is the number
    of requests of each rate limit that are reserved for other clients. It must be at least the number of these clients.
    ``audience`` is the identifier of the Management API if ``domain`` is a custom domain.
    """

    def __init__(
        self,
        domain: str,
        read_credentials: Callable[[], Auth0Credentials],
        *,
        session: requests.Session | None = None,
        clock: Clock | None = None,
        time_left: TimeLeft | None = None,
        headroom: int = 0,
        audience: str | None = None,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?", domain, re.IGNORECASE):
            raise ConfigurationError(
                "domain of an Auth0 source: expected a host name such as acme.jp.auth0.com; correct the configuration"
            )
        self.domain = domain.lower()
        self.name = f"Auth0 ({self.domain})"
        self._audience = audience or f"https://{self.domain}/api/v2/"
        self._transport = HttpTransport(
            self.name,
            f"https://{self.domain}",
            session=session,
            clock=clock,
            time_left=time_left,
            busy=lambda status: status in BUSY_STATUSES or status >= 500,
            headroom=headroom,
        )
        self.rate_limiter = self._transport.rate_limiter
        self._read_credentials = read_credentials
        self._token: TokenSource | None = None

    def close(self) -> None:
        """Close the idle connection of the client. A request in progress is not interrupted."""
        self._transport.close()

    def authenticate(self) -> None:
        """Request an access token, unless the client has a valid token."""
        self._token_source().token()

    def granted_scopes(self) -> frozenset[str] | None:
        """Return the OAuth scopes of the access token, or None if the token does not contain them."""
        claims = self._token_source().token().split(".")
        try:
            document = parse_json(urlsafe_b64decode(claims[1] + "=="))
            return frozenset(document["scope"].split())
        except (IndexError, KeyError, TypeError, ValueError, AttributeError):
            return None

    def request(
        self,
        method: str,
        path: str,
        *,
        subject: str,
        scope: str,
        bucket: str,
        params: Parameters = (),
        json: Any = None,
        multipart: Multipart | None = None,
        repeatable: bool = True,
        max_retry_seconds: float = MAX_RETRY_SECONDS,
    ) -> Any:
        """Send a request, and return the parsed response, or None if it is empty.

        ``path`` is the path below /api/v2/, with percent-encoded ids. ``subject`` names the resource in messages ("the
        job job_…"). ``scope`` is the required OAuth scope. ``bucket`` names the rate limit that applies to the request.

        If ``repeatable`` is False and the outcome of the request is unknown (5xx, reset), the request is not retried,
        and ProviderBusyError with ``uncertain`` is raised. After other temporary errors, the request is retried for up
        to ``max_retry_seconds``. Then ProviderBusyError is raised.
        """
        request = self._new_request(
            method,
            path,
            bucket,
            params=params,
            json=json,
            multipart=multipart,
            repeatable=repeatable,
            max_retry_seconds=max_retry_seconds,
        )
        response = self._send(request, subject, scope)
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

    def request_list(self, source: ApiList, *params: tuple[str, str]) -> tuple[list[RawJson], dict[str, Any]]:
        """Return the objects in a list of the API, and the other members of the response.

        ``params`` are added to the parameters of the list. Endpoints that ignore the pagination parameters return an
        array instead of an object with the list. Raises WrongFormatError for any other response.
        """
        request = self._new_request("GET", source.path, source.bucket, params=(*source.params, *params))
        response = self._send(request, source.subject, source.scope)
        try:
            text = response.text()
            rows, members = parse_list(text, None if text.lstrip().startswith("[") else source.key)
        except ValueError:
            kind = "another document"
        else:
            kind = next((type(row.value).__name__ for row in rows if not isinstance(row.value, dict)), "")
            if not kind:
                return rows, members
        raise WrongFormatError(
            f"{self.name}: expected {source.subject} as a list of objects, found {kind}; check the domain"
        )

    def _new_request(self, method: str, path: str, bucket: str, **options: Any) -> ProviderRequest:
        return ProviderRequest(method, f"/api/v2/{path}", bucket=bucket, max_bytes=MAX_RESPONSE_BYTES, **options)

    def _send(self, request: ProviderRequest, subject: str, scope: str) -> ProviderResponse:
        """Return the successful response.

        If credentials that were accepted before are rejected or an OAuth scope is missing, read the credentials again
        and repeat the request once.
        """
        is_first = self._token is None
        try:
            return self._send_with_token(request, subject, scope)
        except (CredentialsRefusedError, ScopeMissingError):
            self._token = None
            if is_first:
                raise
        return self._send_with_token(request, subject, scope)

    def _token_source(self) -> TokenSource:
        if self._token is None:
            self._token = TokenSource(self._transport, self._read_credentials(), self._audience)
        return self._token

    def _send_with_token(self, request: ProviderRequest, subject: str, scope: str) -> ProviderResponse:
        """Return the successful response. If Auth0 rejects the token, repeat the request with a new token."""
        source = self._token_source()
        token = source.token()
        response = self._transport.send(_authorized(request, token))
        if response.status == 401:
            # A token becomes invalid before its expiry if the tenant's signing key is rotated.
            source.drop(token)
            response = self._transport.send(_authorized(request, source.token()))
        if response.status == 401:
            raise CredentialsRefusedError(
                f"{self.name} rejected a new access token (401); check that the domain is the tenant's own domain and"
                " that the application is authorized for the Management API"
            )
        if not 200 <= response.status < 300:
            raise error_from_response(response, provider=self.name, subject=subject, scope=scope)
        return response


def _authorized(request: ProviderRequest, token: str) -> ProviderRequest:
    return replace(request, headers={"Authorization": f"Bearer {token}", "Accept": "application/json"})


class ClientPool:
    """A cache that contains a client for each tenant, secret and thread.

    If there are more than ``MAX_CLIENTS`` clients, the least recently used clients are closed and removed.
    """

    def __init__(self) -> None:
        self._clients: OrderedDict[tuple[str, str | None, str, int, int], Auth0Client] = OrderedDict()
        self._lock = threading.Lock()

    def client(self, domain: str, secret: str, context: ProviderContext, *, audience: str | None = None) -> Auth0Client:
        """Return the client of a tenant for the calling thread and the current invocation."""
        # Exports and changes have a different headroom. They only run in the same process in the local system.
        key = (domain, audience, secret, context.headroom, threading.get_ident())
        with self._lock:
            client = self._clients.get(key)
            if client is None:
                client = self._clients[key] = Auth0Client(
                    domain,
                    lambda: Auth0Credentials.from_secret(context.read_secret(secret)),
                    # A client sends one request at a time.
                    session=context.new_session(1),
                    clock=context.clock,
                    headroom=context.headroom,
                    audience=audience,
                )
            self._clients.move_to_end(key)
            unused = [self._clients.popitem(last=False)[1] for _ in range(len(self._clients) - MAX_CLIENTS)]
        for evicted in unused:
            evicted.close()
        client.rate_limiter.time_left = context.time_left
        return client

    def clear(self) -> None:
        """Remove the cached clients."""
        with self._lock:
            self._clients.clear()


# Shared by exports and membership changes.
clients: Final = ClientPool()
