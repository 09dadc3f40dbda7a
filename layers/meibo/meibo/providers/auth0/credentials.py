"""The credentials that Meibo exchanges for a token of Auth0: a client secret or a private key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from meibo.errors import SecretError

# https://auth0.com/docs/get-started/authentication-and-authorization-flow/authenticate-with-private-key-jwt
ALGORITHMS: Final = ("RS256", "RS384", "PS256")
MAX_CLIENT_ID_LENGTH: Final = 64


@dataclass(frozen=True)
class Auth0Credentials:
    """A machine-to-machine application of a tenant, with its client secret or its private key."""

    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    key_id: str | None = None
    algorithm: str = "RS256"

    @classmethod
    def from_secret(cls, document: Mapping[str, Any]) -> Self:
        """Read the credentials from a secret's JSON, raising a SecretError that names the key, never a value.

        ``{"client_id", "client_secret"}`` or ``{"client_id", "private_key", "key_id"?, "algorithm"?}``.
        """
        client_id = _string(document, "client_id")
        if client_id is None:
            raise SecretError('secret: expected "client_id", found none; add it')
        if len(client_id) > MAX_CLIENT_ID_LENGTH or not re.fullmatch(r"[\x21-\x7e]+", client_id):
            raise SecretError(
                f'secret: expected "client_id" to have 1 to {MAX_CLIENT_ID_LENGTH} visible ASCII characters; copy it'
                " from the application's settings in Auth0"
            )
        client_secret, private_key = _string(document, "client_secret"), _string(document, "private_key")
        if (client_secret is None) == (private_key is None):
            raise SecretError('secret: expected either "client_secret" or "private_key", found both or neither')
        algorithm = _string(document, "algorithm") or "RS256"
        if algorithm not in ALGORITHMS:
            raise SecretError(f'secret: expected "algorithm" to be one of {", ".join(ALGORITHMS)}; correct it')
        if private_key is not None and "-----BEGIN" not in private_key:
            raise SecretError('secret: expected "private_key" to be a private key in PEM format; correct it')
        return cls(client_id, client_secret, private_key, _string(document, "key_id"), algorithm)


def _string(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise SecretError(f'secret: expected "{key}" to be a string, found {type(value).__name__}; correct it')
    return value.strip() if key != "client_secret" else value
