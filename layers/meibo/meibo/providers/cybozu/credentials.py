"""What Meibo presents to cybozu.com: a login or an API token, and Basic credentials where a domain asks for them.

https://cybozu.dev/ja/common/docs/user-api/overview/authentication/
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from meibo.errors import SecretError


@dataclass(frozen=True)
class CybozuCredentials:
    """One way to log in: ``login`` and ``password``, or ``api_token``."""

    login: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    api_token: str | None = field(default=None, repr=False)
    basic_user: str | None = field(default=None, repr=False)
    basic_password: str | None = field(default=None, repr=False)

    @classmethod
    def from_secret(cls, document: Mapping[str, Any]) -> Self:
        """Take the credentials out of a secret's JSON; raises SecretError that names the key, never a value.

        ``{"login", "password"}`` with or without ``{"basic_user", "basic_password"}``, or ``{"api_token"}``.
        """
        keys = ("login", "password", "api_token", "basic_user", "basic_password")
        login, password, api_token, basic_user, basic_password = (_text(document, key) for key in keys)
        if api_token is not None and (login is not None or password is not None):
            raise SecretError('the secret must hold either "api_token" or "login" and "password", not both')
        if api_token is None:
            for key, value in (("login", login), ("password", password)):
                if value is None:
                    raise SecretError(f'the secret lacks "{key}" (or, in place of login and password, "api_token")')
            if ":" in (login or ""):
                raise SecretError('"login" in the secret holds a colon, which ends a login name in the header')
        if (basic_user is None) != (basic_password is None):
            raise SecretError('the secret must hold both "basic_user" and "basic_password", or neither')
        if api_token is not None:
            if basic_user is not None:
                raise SecretError(
                    'an "api_token" and Basic credentials share one header and cannot be sent together; use "login"'
                    ' and "password", or allow Meibo\'s addresses so that Basic is not asked for'
                )
            if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", api_token):
                raise SecretError('"api_token" in the secret is not an API token; copy it again, without spaces')
        if basic_user is not None and ":" in basic_user:
            raise SecretError('"basic_user" in the secret holds a colon, which no Basic user name can')
        return cls(login, password, api_token, basic_user, basic_password)

    def headers(self) -> dict[str, str]:
        """Return the headers that carry these credentials."""
        headers: dict[str, str] = {}
        if self.api_token is not None:
            headers["Authorization"] = f"Bearer {self.api_token}"
        else:
            headers["X-Cybozu-Authorization"] = _pair(self.login, self.password)
        if self.basic_user is not None:
            headers["Authorization"] = f"Basic {_pair(self.basic_user, self.basic_password)}"
        return headers


def _pair(user: str | None, password: str | None) -> str:
    return b64encode(f"{user}:{password}".encode()).decode("ascii")


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise SecretError(f'"{key}" in the secret must be a string')
    return value
