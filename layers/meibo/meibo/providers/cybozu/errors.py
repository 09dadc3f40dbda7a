"""Map unsuccessful responses of the User API to errors.

Messages are in the caller's language and may quote values, so only the status and the error code are used. A gateway
in front of the API returns HTML, or JSON without a code.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from meibo.errors import CredentialsRefusedError, MeiboError, RequestRefusedError, ScopeMissingError
from meibo.http.transport import ProviderResponse, error_code

# Formerly, and possibly at some endpoints still, cybozu.com rejected failed logins with 520 instead of 401.
OLD_LOGIN_FAILED_STATUS: Final = 520
_CORRECT_LOGIN: Final = "correct the login and password, or the API token, in the secret"


def error_from_response(response: ProviderResponse, *, provider: str, path: str) -> MeiboError:
    """Return the error for a response that is neither 200 nor "busy"."""
    status, code = response.status, _code(response)
    detail = f"{status}, {code}" if code else str(status)
    login_failed = code is None or code.startswith(("CB_AU", "CB_WA"))
    if status == 401 or (status == OLD_LOGIN_FAILED_STATUS and login_failed):
        return _login_error(provider, detail, code)
    if status == 403:
        return _permission_error(provider, path, detail, code)
    if 300 <= status < 400:
        if _leads_to_login(response.headers.get("location", "")):
            return CredentialsRefusedError(f"{provider} requires a login ({detail}); {_CORRECT_LOGIN}")
        return RequestRefusedError(
            f"{provider} redirected {path} ({detail}), which is not followed; check the base_url", status=status
        )
    if status == 404 and path.startswith("/v1/csv/"):
        return RequestRefusedError(
            f"{provider} has no {path} ({detail}); domains outside cybozu.com, such as kintone.com, have no CSV API:"
            ' use "format": "ndjson"',
            status=status,
            code=code,
        )
    return RequestRefusedError(f"{provider} rejected {path} ({detail})", status=status, code=code)


def _login_error(provider: str, detail: str, code: str | None) -> MeiboError:
    if code is None:
        return CredentialsRefusedError(
            f"{provider} rejected the request before the login ({detail}); if the domain uses Basic authentication,"
            f' add "basic_user" and "basic_password" to the secret, else {_CORRECT_LOGIN}'
        )
    return CredentialsRefusedError(f"{provider} rejected the login ({detail}); {_CORRECT_LOGIN}")


def _permission_error(provider: str, path: str, detail: str, code: str | None) -> MeiboError:
    if code is None:
        return ScopeMissingError(
            f"{provider} rejected {path} before the login ({detail}); add the addresses that Meibo calls from to the"
            " domain's IP address restriction"
        )
    return ScopeMissingError(
        f"{provider} rejected {path} ({detail}); use a cybozu.com Administrator (共通管理者) or an API token that may"
        " read",
        scopes=("cybozu.com Administrator",),
    )


def _leads_to_login(location: str) -> bool:
    try:
        return urlsplit(location).path.startswith("/login")
    except ValueError:
        return False


def _code(response: ProviderResponse) -> str | None:
    return error_code(response.members().get("code")) or error_code(response.headers.get("x-cybozu-error"))
