"""The credentials for cybozu.com: a login or an API token, and Basic credentials if the domain requires them.

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
    """Credentials of a domain: ``login`` and ``password``, or ``api_token``."""

    login: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    api_token: str | None = field(default=None, repr=False)
    basic_user: str | None = field(default=None, repr=False)
    basic_password: str | None = field(default=None, repr=False)

    @classmethod
    def from_secret(cls, document: Mapping[str, Any]) -> Self:
        """Read the credentials from a secret's JSON, raising a SecretError that names the key, never a value.

        ``{"login", "password"}`` with or without ``{"basic_user", "basic_password"}``, or ``{"api_token"}``.
        """
        keys = ("login", "password", "api_token", "basic_user", "basic_password")
        login, password, api_token, basic_user, basic_password = (_string(document, key) for key in keys)
        if api_token is not None and (login is not None or password is not None):
            raise SecretError('secret: expected either "api_token" or "login" and "password", found both; remove one')
        if api_token is None:
            for key, value in (("login", login), ("password", password)):
                if value is None:
                    raise SecretError(
                        f'secret: expected "{key}", or "api_token" instead of login and password, found neither'
                    )
            if ":" in (login or ""):
                raise SecretError(
                    'secret: expected "login" without a colon, which would end the login name in the header'
                )
        if (basic_user is None) != (basic_password is None):
            raise SecretError('secret: expected both "basic_user" and "basic_password" or neither, found one of them')
        if api_token is not None:
            if basic_user is not None:
                raise SecretError(
                    'secret: "api_token" and Basic credentials share one header and cannot be sent together; use'
                    ' "login" and "password", or allow Meibo\'s addresses so that Basic authentication is not required'
                )
            if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", api_token):
                raise SecretError('secret: expected "api_token" to be an API token; copy it again, without spaces')
        if basic_user is not None and ":" in basic_user:
            raise SecretError('secret: expected "basic_user" without a colon, which a Basic user name cannot contain')
        return cls(login, password, api_token, basic_user, basic_password)

    def headers(self) -> dict[str, str]:
        """Return the headers with these credentials."""
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


def _string(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise SecretError(f'secret: expected "{key}" to be a string, found {type(value).__name__}; correct it')
    return value
