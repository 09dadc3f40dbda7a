"""POST /oauth/token and the validation of bearer tokens."""

from __future__ import annotations

import functools
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from meibo_simulators.auth0.errors import ApiError, OAuthError, insufficient_scope
from meibo_simulators.auth0.switches import Switches
from meibo_simulators.site import Site

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# https://auth0.com/docs/get-started/authentication-and-authorization-flow/authenticate-with-private-key-jwt
MAX_ASSERTION_LENGTH = 2048
MAX_CLAIM_LENGTH = 64
MAX_ASSERTION_SECONDS = 300
SKEW_SECONDS = 10
_UNAUTHORIZED = OAuthError(401, "access_denied", "Unauthorized")


@functools.cache
def key_pair(name: str) -> tuple[str, str]:
    """Return a private and a public key in PEM format. Within a process, a name always has the same keys."""
    del name  # used only as the key of the cache
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return (
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode(),
    )


@dataclass
class Client:
    """A machine-to-machine application that authenticates with a secret or a private key."""

    id: str
    scopes: frozenset[str]
    secret: str | None = field(default=None, repr=False)
    public_key: str | None = field(default=None, repr=False)
    algorithm: str = "RS256"
    key_id: str | None = None
    granted: bool = True
    """True if the client is authorized to access the Management API."""


@dataclass(frozen=True)
class Grant:
    """The client, the OAuth scopes and the expiry time of a token."""

    client_id: str
    scopes: frozenset[str]
    expires: float


class Tokens:
    """The clients of a tenant and the issued tokens."""

    def __init__(self, site: Site, switches: Switches) -> None:
        self.clients: dict[str, Client] = {}
        self.issued = 0
        #: The host name in the audience if the site is a custom domain.
        self.api_host: str | None = None
        self._site = site
        self._switches = switches
        self._key = secrets.token_bytes(32)
        self._grants: dict[str, Grant] = {}
        self._revoked: set[str] = set()
        self._used_assertions: set[tuple[str, str]] = set()

    def add(self, client: Client) -> Client:
        """Register a client."""
        self.clients[client.id] = client
        return client

    def revoke(self) -> None:
        """Revoke all issued tokens. Requests with them fail as if the tokens had expired."""
        self._revoked.update(self._grants)

    def issue(self, form: dict[str, Any]) -> dict[str, Any]:
        """Return the body of a token response. Raise ``OAuthError`` if the request is rejected."""
        client = self._authenticate(form)
        grant_type = form.get("grant_type")
        if grant_type != "client_credentials":
            raise OAuthError(403, "unauthorized_client", f"Grant type '{grant_type}' not allowed for the client.")
        audience = form.get("audience")
        if audience != f"https://{self.api_host or self._site.host}/api/v2/":
            raise OAuthError(403, "access_denied", f"Service not found: {audience}")
        if not client.granted:
            raise OAuthError(
                403,
                "access_denied",
                f'Client "{client.id}" is not authorized to access resource server "{audience}". '
                'You need to create a "client-grant" associated to this API.',
            )
        now, lifetime = self._site.now(), self._switches.token_lifetime
        claims = {
            "iss": f"https://{self._site.host}/",
            "sub": f"{client.id}@clients",
            "aud": audience,
            "iat": int(now),
            "exp": int(now) + lifetime,
            "scope": " ".join(sorted(client.scopes)),
            "gty": "client-credentials",
            "azp": client.id,
            "jti": secrets.token_hex(8),
        }
        token = jwt.encode(claims, self._key, algorithm="HS256")
        self._grants[token] = Grant(client.id, client.scopes, now + lifetime)
        self.issued += 1
        return {
            "access_token": token,
            "expires_in": lifetime,
            "token_type": "Bearer",
            **({"scope": claims["scope"]} if self._switches.token_scope else {}),
        }

    def _authenticate(self, form: dict[str, Any]) -> Client:
        if "client_assertion" in form or "client_assertion_type" in form:
            return self._by_assertion(form)
        client = self.clients.get(str(form.get("client_id")))
        secret = form.get("client_secret")
        if (
            client is None
            or client.secret is None
            or not isinstance(secret, str)
            or not hmac.compare_digest(client.secret.encode(), secret.encode())
        ):
            raise self._unauthorized()
        return client

    def _unauthorized(self) -> OAuthError:
        if self._switches.refused_client == "invalid_client":
            return OAuthError(401, "invalid_client", "Client authentication failed")
        return _UNAUTHORIZED

    def _by_assertion(self, form: dict[str, Any]) -> Client:
        assertion = form.get("client_assertion")
        rejected = OAuthError(401, "invalid_client", "Client authentication failed")
        if (
            form.get("client_assertion_type") != ASSERTION_TYPE
            or "client_secret" in form
            or not isinstance(assertion, str)
            or len(assertion) > MAX_ASSERTION_LENGTH
        ):
            raise rejected
        try:
            header = jwt.get_unverified_header(assertion)
            issuer = jwt.decode(assertion, options={"verify_signature": False})["iss"]
            client = self.clients[issuer]
            if client.public_key is None or header["alg"] != client.algorithm:
                raise rejected
            if client.key_id is not None and header.get("kid", client.key_id) != client.key_id:
                raise rejected
            claims = jwt.decode(
                assertion,
                client.public_key,
                algorithms=[client.algorithm],
                audience=f"https://{self._site.host}/",
                # The times are checked against the tenant's clock, not the system's.
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except (jwt.InvalidTokenError, KeyError, TypeError):
            raise rejected from None
        if form.get("client_id", client.id) != client.id or not self._claims_fit(claims, client):
            raise rejected
        self._used_assertions.add((client.id, claims["jti"]))
        return client

    def _claims_fit(self, claims: dict[str, Any], client: Client) -> bool:
        now = self._site.now()
        jti, expires = claims.get("jti"), claims.get("exp")
        if not isinstance(jti, str) or not 0 < len(jti) <= MAX_CLAIM_LENGTH or len(client.id) > MAX_CLAIM_LENGTH:
            return False
        latest = now + MAX_ASSERTION_SECONDS + SKEW_SECONDS
        if not isinstance(expires, int | float) or not now - SKEW_SECONDS < expires <= latest:
            return False
        if claims.get("sub") != client.id or (client.id, jti) in self._used_assertions:
            return False
        return all(claims.get(name, now) <= now + SKEW_SECONDS for name in ("iat", "nbf"))

    def check(self, authorization: str | None, scopes: tuple[str, ...], scopes_text: str) -> Grant:
        """Return the grant of the bearer token. Raise a 400, 401 or 403 error if it is rejected.

        ``scopes_text`` is a part of the 403 error's message.
        """
        if not authorization:
            raise ApiError(401, "Missing authentication")
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token or " " in token:
            raise ApiError(400, "Bad HTTP authentication header format", "Bearer")
        grant = self._grants.get(token)
        if grant is None:
            is_jwt = token.count(".") == 2
            message = "Invalid signature received for JSON Web Token validation" if is_jwt else "Invalid token"
            raise ApiError(401, message)
        if token in self._revoked or grant.expires <= self._site.now():
            message = "Expired token received for JSON Web Token validation"
            raise ApiError(401, message, attributes={"error": message})
        if scopes and not grant.scopes.intersection(scopes):
            raise insufficient_scope(scopes_text)
        return grant
