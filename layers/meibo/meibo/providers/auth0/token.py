"""Access tokens for the Management API: asked for once, kept until shortly before they expire.

https://auth0.com/docs/secure/tokens/access-tokens/management-api-access-tokens/get-management-api-access-tokens-for-production
"""

from __future__ import annotations

import re
import threading
import uuid
from typing import Final

from meibo.errors import (
    ConfigurationError,
    CredentialsRefusedError,
    RequestRefusedError,
    ScopeMissingError,
    SecretError,
    WrongFormatError,
)
from meibo.http.ratelimit import Clock
from meibo.http.transport import HttpTransport, ProviderRequest, ProviderResponse, error_code
from meibo.providers.auth0.credentials import Auth0Credentials

# https://auth0.com/docs/get-started/authentication-and-authorization-flow/authenticate-with-private-key-jwt
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MAX_ASSERTION_BYTES: Final = 2048
# At most five minutes are accepted; half of it leaves room for clocks that differ, on either side.
ASSERTION_SECONDS: Final = 150
# Above this the machine's clock is corrected by what the answer's Date header says.
TOLERATED_SKEW_SECONDS: Final = 30.0
# A token is replaced this long before its end, so that none expires on its way.
RENEW_BEFORE_SECONDS: Final = 60.0
# For an answer without a usable expires_in; Auth0's own default is a day and the most that it can be set to is 30 days.
ASSUMED_LIFETIME_SECONDS: Final = 300.0
MAX_LIFETIME_SECONDS: Final = 2_592_000
MAX_ANSWER_BYTES: Final = 256 * 1024


class TokenSource:
    """Gives the client's access token, and a new one when the last has expired or was refused."""

    def __init__(self, domain: str, credentials: Auth0Credentials, exchange: HttpTransport, clock: Clock) -> None:
        self._domain = domain
        self._credentials = credentials
        self._exchange = exchange
        self._clock = clock
        self._token: str | None = None
        self._good_until = 0.0
        self._lock = threading.Lock()

    def token(self) -> str:
        """Return a token that is good for a while; asks Auth0 for it where there is none."""
        with self._lock:
            if self._token is None or self._clock.now() >= self._good_until:
                self._token, lifetime = self._ask()
                self._good_until = self._clock.now() + max(lifetime - RENEW_BEFORE_SECONDS, lifetime / 2)
            return self._token

    def drop(self, token: str) -> None:
        """Forget a token that the API refused, unless another thread has replaced it already."""
        with self._lock:
            if self._token == token:
                self._token = None

    def _ask(self) -> tuple[str, float]:
        answer = self._send()
        if answer.status == 401 and self._credentials.private_key and self._skew() > TOLERATED_SKEW_SECONDS:
            # Only now is Auth0's time known; the assertion may have been expired or too long by its clock.
            answer = self._send()
        if answer.status != 200:
            raise self._refusal(answer)
        document = answer.members()
        token = document.get("access_token")
        # It goes into a header: what is not a token must not get there, nor into an error about the header.
        if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", token):
            raise WrongFormatError(
                f"{self._exchange.provider} answered a token request with {answer.content_type or 'no type'}"
                f" that holds no access token; check that the domain is an Auth0 tenant's"
            )
        return token, _lifetime(document.get("expires_in"))

    def _send(self) -> ProviderResponse:
        return self._exchange.send(
            ProviderRequest(
                "POST",
                f"https://{self._domain}/oauth/token",
                bucket="token",
                max_bytes=MAX_ANSWER_BYTES,
                form=self._form,
            )
        )

    def _form(self) -> dict[str, str]:
        return {
            "grant_type": "client_credentials",
            "client_id": self._credentials.client_id,
            "audience": f"https://{self._domain}/api/v2/",
            **self._proof(),
        }

    def _proof(self) -> dict[str, str]:
        if self._credentials.client_secret is not None:
            return {"client_secret": self._credentials.client_secret}
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": self._assertion()}

    def _assertion(self) -> str:
        # Here and not above: PyJWT and cryptography cost a cold start more than everything else together.
        import jwt  # noqa: PLC0415

        credentials, now = self._credentials, self._exchange.pacer.provider_now()
        try:
            assertion = jwt.encode(
                {
                    "iss": credentials.client_id,
                    "sub": credentials.client_id,
                    "aud": f"https://{self._domain}/",
                    "exp": int(now) + ASSERTION_SECONDS,
                    "jti": uuid.uuid4().hex,
                },
                credentials.private_key or "",
                algorithm=credentials.algorithm,
                headers={"kid": credentials.key_id} if credentials.key_id else None,
            )
        except (ValueError, TypeError, jwt.PyJWTError):
            assertion = None
        if assertion is None:
            raise SecretError('"private_key" in the secret is not an RSA private key in PEM form')
        if len(assertion) > MAX_ASSERTION_BYTES:
            raise SecretError(
                f"the signed assertion has {len(assertion)} bytes and Auth0 takes {MAX_ASSERTION_BYTES};"
                ' use a smaller RSA key or a shorter "key_id"'
            )
        return assertion

    def _skew(self) -> float:
        return abs(self._exchange.pacer.provider_now() - self._clock.now())

    def _refusal(self, answer: ProviderResponse) -> Exception:
        provider, status = self._exchange.provider, answer.status
        code, description = _oauth_error(answer)
        told = f"{status}, {code}" if code else str(status)
        if "Service not found" in description:
            return ConfigurationError(
                f"{provider} has no Management API of this name; the domain must be the tenant's own"
                " (for example acme.jp.auth0.com), not a custom domain"
            )
        if status == 403 and ("client-grant" in description or "not authorized to access" in description):
            return ScopeMissingError(
                f"{provider} does not let this application use the Management API ({told}); authorize it for"
                " the API and grant the scopes that the exports need"
            )
        if status == 403 and code == "unauthorized_client":
            return CredentialsRefusedError(
                f"{provider} does not give this application tokens ({told}); enable its client credentials grant"
            )
        if status in {401, 403} or code in {"invalid_client", "access_denied", "unauthorized_client"}:
            used = "private key" if self._credentials.private_key else "client secret"
            return CredentialsRefusedError(
                f"{provider} refuses the client id or the {used} ({told}); correct them in the secret"
            )
        if 300 <= status < 400:
            return ConfigurationError(f"{provider} redirects token requests ({told}); check the domain")
        return RequestRefusedError(f"{provider} refuses the token request ({told})", status=status, code=code)


def _lifetime(expires_in: object) -> float:
    """Return the seconds of expires_in; the comparison is also False for NaN."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return ASSUMED_LIFETIME_SECONDS
    return float(expires_in) if 0 < expires_in <= MAX_LIFETIME_SECONDS else ASSUMED_LIFETIME_SECONDS


def _oauth_error(answer: ProviderResponse) -> tuple[str | None, str]:
    document = answer.members()
    description = document.get("error_description")
    return error_code(document.get("error")), description if isinstance(description, str) else ""
