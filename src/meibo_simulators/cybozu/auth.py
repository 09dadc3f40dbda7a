"""Authentication: first IP restriction and Basic authentication, then API token, then password."""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jwt

from meibo_simulators.cybozu.responses import CybozuError, PageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from meibo_simulators.clock import Clock
    from meibo_simulators.cybozu.switches import Switches

PREFIX = "cy.s.api1."
READ, WRITE, DANGEROUS = "read", "write", "dangerous"


@dataclass(frozen=True)
class Caller:
    """The authenticated caller; ``administrator`` is a cybozu.com administrator (共通管理者)."""

    login: str
    administrator: bool


@dataclass
class Account:
    """A user that may call the API."""

    login: str
    password: str = field(repr=False)
    administrator: bool = True


class Access:
    """The access restrictions, accounts and tokens of a domain."""

    def __init__(self, switches: Switches, clock: Callable[[], Clock]) -> None:
        self.accounts: dict[str, Account] = {}
        self._switches = switches
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._revoked: set[str] = set()

    def token(self, scope: str = READ, *, lifetime: float = 30 * 86400) -> str:
        """Return a new API token of cybozu.com administration."""
        claims = {"rand": secrets.token_hex(8), "iss": "cybozu", "scope": scope}
        claims["exp"] = str(int(self._clock()() + lifetime))
        return PREFIX + jwt.encode({**claims, "exp": int(claims["exp"])}, self._key, algorithm="HS256")

    def revoke(self, token: str) -> None:
        """Delete a token."""
        self._revoked.add(token)

    def check(self, header: Callable[[str], str | None], address: str) -> Caller:
        """Return the caller. Raise the error response if the request is rejected."""
        switches = self._switches
        authorization = header("Authorization") or ""
        kind, _, value = authorization.partition(" ")
        bearer = kind.lower() == "bearer"
        listed = switches.allowed_ips is not None and address in switches.allowed_ips
        passed_basic = switches.basic is not None and kind.lower() == "basic" and _pair(value) == switches.basic
        # Callers from other than the allowed addresses need Basic authentication.
        if switches.allowed_ips is not None and not listed and switches.basic is None:
            raise PageError(403, "Error")
        passed_basic = passed_basic or (bearer and switches.basic_with_token)
        if switches.basic is not None and not listed and not passed_basic:
            raise PageError(401, "Unauthorized", {"WWW-Authenticate": 'Basic realm="Users"'})
        if bearer:
            return self._by_token(value)
        password = header("X-Cybozu-Authorization")
        if password is not None:
            return self._by_password(password)
        if switches.login_redirect:
            raise PageError(302, "Login", {"Location": "/login?saml=on"})
        raise self._refusal("CB_AU01")

    def _refusal(self, code: str) -> CybozuError:
        return CybozuError(code, status=520 if self._switches.legacy_auth_520 else None)

    def _by_token(self, token: str) -> Caller:
        if not token.startswith(PREFIX) or token in self._revoked:
            raise self._refusal("CB_AU01")
        try:
            claims = jwt.decode(
                token.removeprefix(PREFIX),
                self._key,
                algorithms=["HS256"],
                options={"verify_exp": False},
            )
        except jwt.InvalidTokenError:
            raise self._refusal("CB_AU01") from None
        if claims["exp"] <= self._clock()():
            raise self._refusal("CB_AU01")
        # Every scope can read like an administrator.
        return Caller("token", administrator=True)

    def _by_password(self, header: str) -> Caller:
        pair = _pair(header)
        account = self.accounts.get(pair[0]) if pair else None
        if pair is None or account is None or account.password != pair[1]:
            raise self._refusal("CB_WA01")
        return Caller(account.login, account.administrator)


def _pair(encoded: str) -> tuple[str, str] | None:
    try:
        login, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (login, password) if colon else None
