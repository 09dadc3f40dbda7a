"""What a refusal of the User API means.

Messages come in the language of whoever calls and may quote values, so only status and error code are looked at.
A gateway in front of the API answers HTML, or JSON without a code.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from meibo.errors import CredentialsRefusedError, MeiboError, RequestRefusedError, ScopeMissingError
from meibo.http.transport import ProviderResponse, error_code

# Formerly, and perhaps at some endpoints still, cybozu.com answered failed logins with 520 in place of 401.
OLD_REFUSAL_STATUS: Final = 520
_CORRECT_LOGIN: Final = "correct the login and password, or the API token, in the secret"


def error_from_response(answer: ProviderResponse, *, provider: str, path: str) -> MeiboError:
    """Return the error for an answer that is neither 200 nor "busy"."""
    status, code = answer.status, _code(answer)
    told = f"{status}, {code}" if code else str(status)
    login_failed = code is None or code.startswith(("CB_AU", "CB_WA"))
    if status == 401 or (status == OLD_REFUSAL_STATUS and login_failed):
        return _login_refused(provider, told, code)
    if status == 403:
        return _forbidden(provider, path, told, code)
    if 300 <= status < 400:
        if _leads_to_login(answer.headers.get("location", "")):
            return CredentialsRefusedError(f"{provider} asks to log in ({told}); {_CORRECT_LOGIN}")
        return RequestRefusedError(
            f"{provider} redirects {path} ({told}), which is not followed; check the base_url", status=status
        )
    if status == 404 and path.startswith("/v1/csv/"):
        return RequestRefusedError(
            f"{provider} has no {path} ({told}); domains outside cybozu.com, such as kintone.com, have no CSV API:"
            ' use "format": "ndjson"',
            status=status,
            code=code,
        )
    return RequestRefusedError(f"{provider} refuses {path} ({told})", status=status, code=code)


def _login_refused(provider: str, told: str, code: str | None) -> MeiboError:
    if code is None:
        return CredentialsRefusedError(
            f"{provider} refuses the request before the login ({told}); if the domain asks for Basic authentication,"
            f' add "basic_user" and "basic_password" to the secret, else {_CORRECT_LOGIN}'
        )
    return CredentialsRefusedError(f"{provider} refuses the login ({told}); {_CORRECT_LOGIN}")


def _forbidden(provider: str, path: str, told: str, code: str | None) -> MeiboError:
    if code is None:
        return ScopeMissingError(
            f"{provider} forbids {path} before the login ({told}); add the addresses that Meibo calls from to the"
            " domain's IP address restriction"
        )
    return ScopeMissingError(
        f"{provider} forbids {path} ({told}); it needs a cybozu.com Administrator (共通管理者) or an API token that"
        " may read",
        scopes=("cybozu.com Administrator",),
    )


def _leads_to_login(location: str) -> bool:
    try:
        return urlsplit(location).path.startswith("/login")
    except ValueError:
        return False


def _code(answer: ProviderResponse) -> str | None:
    return error_code(answer.members().get("code")) or error_code(answer.headers.get("x-cybozu-error"))
