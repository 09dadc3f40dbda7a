"""The credentials of a machine-to-machine application, and the access tokens that Auth0 issues.

https://auth0.com/docs/secure/tokens/access-tokens/management-api-access-tokens/get-management-api-access-tokens-for-production
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from meibo.errors import (
    ConfigurationError,
    CredentialsRefusedError,
    RequestRefusedError,
    ScopeMissingError,
    SecretError,
    WrongFormatError,
)
from meibo.http.transport import HttpTransport, ProviderRequest, ProviderResponse, error_code
from meibo.secrets import string_value

# https://auth0.com/docs/get-started/authentication-and-authorization-flow/authenticate-with-private-key-jwt
ALGORITHMS: Final = ("RS256", "RS384", "PS256")
MAX_CLIENT_ID_LENGTH: Final = 64
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MAX_ASSERTION_BYTES: Final = 2048
# Auth0 accepts a lifetime of at most five minutes. Half of this time tolerates clock skew in both directions.
ASSERTION_LIFETIME_SECONDS: Final = 150
# If the clock skew is larger, a new assertion is signed with the time in the Date header of the response.
MAX_CLOCK_SKEW_SECONDS: Final = 30.0
# A token is replaced this number of seconds before its expiry, so that it does not expire during a request.
RENEW_BEFORE_SECONDS: Final = 60.0
# Used if a response contains no valid expires_in. The default of Auth0 is 24 hours, and the maximum is 30 days.
DEFAULT_LIFETIME_SECONDS: Final = 300.0
MAX_LIFETIME_SECONDS: Final = 2_592_000
MAX_RESPONSE_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Auth0Credentials:
    """The credentials of a machine-to-machine application: a client secret or a private key."""

    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    key_id: str | None = None
    algorithm: str = "RS256"

    @classmethod
    def from_secret(cls, document: Mapping[str, Any]) -> Self:
        """Return the credentials in the JSON object of a secret.

        The keys are ``client_id`` and ``client_secret``, or ``client_id``, ``private_key`` and optionally ``key_id``
        and ``algorithm``. Raises SecretError with the invalid key, but without its value.
        """

        def stripped(key: str) -> str | None:
            value = string_value(document, key)
            return None if value is None else value.strip()

        client_id = stripped("client_id")
        if client_id is None:
            raise SecretError('secret: expected "client_id", found none; add it')
        if len(client_id) > MAX_CLIENT_ID_LENGTH or not re.fullmatch(r"[\x21-\x7e]+", client_id):
            raise SecretError(
                f'secret: expected "client_id" to have 1 to {MAX_CLIENT_ID_LENGTH} visible ASCII characters; copy it'
                " from the application's settings in Auth0"
            )
        client_secret, private_key = string_value(document, "client_secret"), stripped("private_key")
        if (client_secret is None) == (private_key is None):
            raise SecretError('secret: expected either "client_secret" or "private_key", found both or neither')
        algorithm = stripped("algorithm") or "RS256"
        if algorithm not in ALGORITHMS:
            raise SecretError(f'secret: expected "algorithm" to be {" or ".join(ALGORITHMS)}; correct it')
        if private_key is not None and "-----BEGIN" not in private_key:
            raise SecretError('secret: expected "private_key" to be a private key in PEM format; correct it')
        return cls(client_id, client_secret, private_key, stripped("key_id"), algorithm)


class TokenSource:
    """The access token of a client. It is replaced before it expires, and after the API rejects it."""

    def __init__(self, transport: HttpTransport, credentials: Auth0Credentials, audience: str) -> None:
        self._transport = transport
        self._credentials = credentials
        self._audience = audience
        self._token: str | None = None
        self._valid_until = 0.0
        self._lock = threading.Lock()

    def token(self) -> str:
        """Return a valid token, requesting a new token if necessary."""
        with self._lock:
            if self._token is None or self._transport.clock.now() >= self._valid_until:
                self._token, lifetime = self._request_token()
                self._valid_until = self._transport.clock.now() + max(lifetime - RENEW_BEFORE_SECONDS, lifetime / 2)
            return self._token

    def drop(self, token: str) -> None:
        """Remove a token that the API rejected, unless another thread has already replaced it."""
        with self._lock:
            if self._token == token:
                self._token = None

    def _request_token(self) -> tuple[str, float]:
        response = self._send()
        skew = abs(self._transport.rate_limiter.provider_now() - self._transport.clock.now())
        if response.status == 401 and self._credentials.private_key and skew > MAX_CLOCK_SKEW_SECONDS:
            # The Date header of this response contains Auth0's time, with which the new assertion is signed.
            response = self._send()
        if response.status != 200:
            raise self._error(response)
        document = response.members()
        token = document.get("access_token")
        # The token is sent in a header. Other text must not be sent, and must not be part of an error.
        if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", token):
            raise WrongFormatError(
                f"{self._transport.provider}: expected an access token, found"
                f" {response.content_type or 'no content type'} without an access token; check that the domain is"
                " that of an Auth0 tenant"
            )
        return token, _lifetime(document.get("expires_in"))

    def _send(self) -> ProviderResponse:
        return self._transport.send(
            ProviderRequest("POST", "/oauth/token", bucket="token", max_bytes=MAX_RESPONSE_BYTES, form=self._form)
        )

    def _form(self) -> dict[str, str]:
        credentials = self._credentials
        form = {"grant_type": "client_credentials", "client_id": credentials.client_id, "audience": self._audience}
        if credentials.client_secret is not None:
            return {**form, "client_secret": credentials.client_secret}
        return {**form, "client_assertion_type": ASSERTION_TYPE, "client_assertion": self._assertion()}

    def _assertion(self) -> str:
        # The imports of PyJWT and cryptography would slow down each cold start.
        import jwt  # noqa: PLC0415

        credentials, now = self._credentials, self._transport.rate_limiter.provider_now()
        try:
            assertion = jwt.encode(
                {
                    "iss": credentials.client_id,
                    "sub": credentials.client_id,
                    "aud": f"{self._transport.base_url}/",
                    "exp": int(now) + ASSERTION_LIFETIME_SECONDS,
                    "jti": uuid.uuid4().hex,
                },
                credentials.private_key or "",
                algorithm=credentials.algorithm,
                headers={"kid": credentials.key_id} if credentials.key_id else None,
            )
        except (ValueError, TypeError, jwt.PyJWTError):
            assertion = None
        if assertion is None:
            raise SecretError('secret: expected "private_key" to be an RSA private key in PEM format; correct it')
        if len(assertion) > MAX_ASSERTION_BYTES:
            raise SecretError(
                f"secret: expected a signed assertion of at most {MAX_ASSERTION_BYTES} bytes, found {len(assertion)};"
                ' use a smaller RSA key or a shorter "key_id"'
            )
        return assertion

    def _error(self, response: ProviderResponse) -> Exception:
        provider, status = self._transport.provider, response.status
        document = response.members()
        code, description = error_code(document.get("error")), str(document.get("error_description"))
        detail = f"{status}, {code}" if code else str(status)
        if "Service not found" in description:
            return ConfigurationError(
                f"{provider} has no API with the audience {self._audience}; if the domain is a custom domain, set"
                " the audience to the Management API of the tenant, such as https://acme.jp.auth0.com/api/v2/"
            )
        if status == 403 and ("client-grant" in description or "not authorized to access" in description):
            return ScopeMissingError(
                f"{provider} does not allow this application to use the Management API ({detail}); authorize it for"
                " the API and grant the OAuth scopes that the exports need"
            )
        if status == 403 and code == "unauthorized_client":
            return CredentialsRefusedError(
                f"{provider} does not issue tokens to this application ({detail}); enable its client credentials grant"
            )
        if status in {401, 403} or code in {"invalid_client", "access_denied", "unauthorized_client"}:
            used = "private key" if self._credentials.private_key else "client secret"
            return CredentialsRefusedError(
                f"{provider} rejected the client id or the {used} ({detail}); correct them in the secret"
            )
        if 300 <= status < 400:
            return ConfigurationError(f"{provider} redirected the token request ({detail}); check the domain")
        return RequestRefusedError(f"{provider} rejected the token request ({detail})", status=status, code=code)


def _lifetime(expires_in: object) -> float:
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return DEFAULT_LIFETIME_SECONDS
    # For NaN, the comparison is false.
    return float(expires_in) if 0 < expires_in <= MAX_LIFETIME_SECONDS else DEFAULT_LIFETIME_SECONDS
