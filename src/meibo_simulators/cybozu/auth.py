"""Access restrictions (client certificate, IP addresses, Basic authentication), then API tokens and passwords."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import jwt

from meibo_simulators.cybozu.errors import ACCOUNT_STATES, CybozuError, PageError
from meibo_simulators.cybozu.secure_access import SecureAccess
from meibo_simulators.cybozu.switches import Switches
from meibo_simulators.site import Clock

PREFIX = "cy.s.api1."


@dataclass
class Account:
    """A user who can call the API. ``administrator`` means an administrator of cybozu.com (共通管理者).

    A locked account rejects every password.
    """

    login: str
    password: str = field(repr=False)
    administrator: bool = True
    state: Literal["active", "locked", "password expired"] = "active"


class Access:
    """The access restrictions, accounts and tokens of a domain."""

    def __init__(self, switches: Switches, now: Clock, secure_access: SecureAccess | None) -> None:
        self.accounts: dict[str, Account] = {}
        self._switches = switches
        self._now = now
        self.secure_access = secure_access
        self._key = secrets.token_bytes(32)

    def token(self, lifetime: float) -> str:
        """Return a new API token of cybozu.com administration, which can read all data."""
        expires = int(self._now() + lifetime)
        claims = {"rand": secrets.token_hex(8), "iss": "cybozu", "scope": "read", "exp": expires}
        return PREFIX + jwt.encode(claims, self._key, algorithm="HS256")

    def check(self, header: Callable[[str], str | None], address: str, *, has_certificate: bool) -> bool:
        """Return whether the caller is an administrator. Raise the error response if the request is rejected."""
        switches = self._switches
        if self.secure_access is not None and not has_certificate:
            raise PageError(403, "Error")
        kind, _, value = (header("Authorization") or "").partition(" ")
        bearer = kind.lower() == "bearer"
        # Callers from other addresses need a client certificate or Basic authentication.
        if self.secure_access is None and address not in (switches.allowed_ips or ()):
            if switches.allowed_ips is not None and switches.basic is None:
                raise PageError(403, "Error")
            is_basic = kind.lower() == "basic" and _pair(value) == switches.basic
            is_token = bearer and switches.basic_with_token
            if switches.basic is not None and not is_basic and not is_token:
                raise PageError(401, "Unauthorized", {"WWW-Authenticate": 'Basic realm="Users"'})
        if bearer:
            return self._check_token(value)
        password = header("X-Cybozu-Authorization")
        if password is None and switches.login_redirect:
            raise PageError(302, "Login", {"Location": "/login?saml=on"})
        if password is None:
            raise self._rejected("CB_AU01")
        pair = _pair(password)
        account = self.accounts.get(pair[0]) if pair else None
        if account is not None and account.state == "locked":
            raise self._rejected(switches.account_state_code, ACCOUNT_STATES["locked"])
        if pair is None or account is None or account.password != pair[1]:
            raise self._rejected("CB_WA01")
        if account.state != "active":
            raise self._rejected(switches.account_state_code, ACCOUNT_STATES[account.state])
        return account.administrator

    def _rejected(self, code: str, texts: tuple[str, str] | None = None) -> CybozuError:
        return CybozuError(code, status=520 if self._switches.legacy_auth_520 else 401, texts=texts)

    def _check_token(self, token: str) -> bool:
        try:
            claims = jwt.decode(
                token.removeprefix(PREFIX),
                self._key,
                algorithms=["HS256"],
                options={"verify_exp": False},  # checked below against the domain's clock
            )
        except jwt.InvalidTokenError:
            raise self._rejected("CB_AU01") from None
        if not token.startswith(PREFIX) or claims["exp"] <= self._now():
            raise self._rejected("CB_AU01")
        return True


def _pair(encoded: str) -> tuple[str, str] | None:
    try:
        login, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (login, password) if colon else None
