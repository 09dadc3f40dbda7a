"""What Meibo presents to Auth0 to get a token: a client secret or a private key."""

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
        """Take the credentials out of a secret's JSON; raises SecretError that names the key, never a value.

        ``{"client_id", "client_secret"}`` or ``{"client_id", "private_key", "key_id"?, "algorithm"?}``.
        """
        client_id = _text(document, "client_id")
        if client_id is None:
            raise SecretError('the secret lacks "client_id"')
        if len(client_id) > MAX_CLIENT_ID_LENGTH or not re.fullmatch(r"[\x21-\x7e]+", client_id):
            raise SecretError('"client_id" in the secret is not a client id of Auth0')
        client_secret, private_key = _text(document, "client_secret"), _text(document, "private_key")
        if (client_secret is None) == (private_key is None):
            raise SecretError('the secret must hold either "client_secret" or "private_key"')
        algorithm = _text(document, "algorithm") or "RS256"
        if algorithm not in ALGORITHMS:
            raise SecretError(f'"algorithm" in the secret must be one of {", ".join(ALGORITHMS)}')
        if private_key is not None and "-----BEGIN" not in private_key:
            raise SecretError('"private_key" in the secret must be a private key in PEM form')
        return cls(client_id, client_secret, private_key, _text(document, "key_id"), algorithm)


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise SecretError(f'"{key}" in the secret must be a string')
    return value.strip() if key != "client_secret" else value
