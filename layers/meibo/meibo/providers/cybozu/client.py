"""Send requests to the User API of a cybozu.com domain, and map unsuccessful responses to errors.

https://cybozu.dev/ja/common/docs/user-api/
https://cybozu.dev/ja/common/docs/user-api/overview/authentication/

The API's error messages are in the language of the caller and may quote values. Therefore, no message is copied into
an error. A message is only searched for known states of an account, such as a locked account. A gateway in front of
the API returns HTML, or JSON without a code.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import requests

from meibo.clock import Clock, TimeLeft
from meibo.errors import (
    ConfigurationError,
    CopyBrokenError,
    CredentialsRefusedError,
    MeiboError,
    RequestRefusedError,
    ScopeMissingError,
    SecretError,
    WrongFormatError,
)
from meibo.http.client_certificate import CERTIFICATE_KEY, ClientCertificate
from meibo.http.failures import CONNECTION_ERRORS
from meibo.http.session import READ_TIMEOUT_SECONDS, new_session
from meibo.http.transport import (
    BUSY_STATUSES,
    HttpTransport,
    Parameters,
    ProviderRequest,
    ProviderResponse,
    error_code,
)
from meibo.secrets import string_value

# A page of 100 users with 50 custom items each is smaller than this limit.
MAX_PAGE_BYTES: Final = 32 * 1024 * 1024
MAX_ERROR_BYTES: Final = 1024 * 1024
# cybozu.com creates the complete CSV file before it sends the first byte.
CSV_READ_TIMEOUT_SECONDS: Final = 120.0
# This number of bytes is sufficient to distinguish HTML from CSV, even after a byte order mark and blank lines.
MIN_SNIFFED_BYTES: Final = 512
CONNECTIONS: Final = 16
# https://cybozu.dev/ja/common/docs/user-api/csv/
CSV_FILES: Final = {
    "users": "user",
    "organizations": "organization",
    "titles": "title",
    "groups": "group",
    "user_organizations": "userOrganizations",
    "user_groups": "userGroups",
    "user_services": "userServices",
}
# In the past, cybozu.com responded to failed logins with 520 instead of 401. Some endpoints may still return 520.
LEGACY_LOGIN_FAILED_STATUS: Final = 520
# The API has no documented error codes for these states of an account. The messages contain these words in Japanese,
# English and Chinese: https://kb.kintoneapp.com/user/errors.html https://help.cybozu.cn/general/en/login/unlock.html
_ACCOUNT_STATES: Final = {
    re.compile("ロックアウト|locked out|锁定|鎖定", re.IGNORECASE): (
        "the account is locked after too many failed logins; wait until the lock ends, or change its password in"
        " cybozu.com administration and in the secret"
    ),
    re.compile("有効期限|expired|过期|過期|到期", re.IGNORECASE): (
        "the password or the API token has expired; replace it in cybozu.com and in the secret"
    ),
}
_CORRECT_LOGIN: Final = "correct the login and password, or the API token, in the secret"
_WRONG_LOGIN: Final = (
    "the login name or the password is wrong; correct them in the secret before the next attempt, because failed logins"
    " lock the account"
)
_LOGIN_PAGE: Final = re.compile("(https?:)?(//[^/?#]*)?/login")
_MARKUP: Final = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*<(?:!doctype|!--|html|head|body|\?xml)", re.IGNORECASE)


@dataclass(frozen=True)
class CybozuCredentials:
    """Credentials of a domain.

    They are ``login`` and ``password``, optionally with Basic credentials, or ``api_token``. A client certificate is
    optional.
    """

    login: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    api_token: str | None = field(default=None, repr=False)
    basic_user: str | None = field(default=None, repr=False)
    basic_password: str | None = field(default=None, repr=False)
    certificate: ClientCertificate | None = None

    @classmethod
    def from_secret(cls, document: Mapping[str, Any]) -> Self:
        """Return the credentials in the JSON object of a secret.

        The keys are ``login`` and ``password``, optionally with ``basic_user`` and ``basic_password``, or
        ``api_token``. The keys of a client certificate can be added (see ``ClientCertificate.from_secret``). Raises
        SecretError with the invalid key, but without its value.
        """
        keys = ("login", "password", "api_token", "basic_user", "basic_password")
        login, password, api_token, basic_user, basic_password = (string_value(document, key) for key in keys)
        if api_token is not None and (login is not None or password is not None):
            raise SecretError(
                'secret: expected either "api_token" or "login" and "password", found both; remove "api_token" or the'
                " other keys"
            )
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
                raise SecretError(
                    'secret: "api_token" contains characters that an API token cannot contain; copy it again, without'
                    " spaces"
                )
        if basic_user is not None and ":" in basic_user:
            raise SecretError('secret: expected "basic_user" without a colon, which a Basic user name cannot contain')
        certificate = ClientCertificate.from_secret(document)
        return cls(login, password, api_token, basic_user, basic_password, certificate)

    def headers(self) -> dict[str, str]:
        """Return the headers that contain the credentials."""
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


def _api_host(host: str, credentials: CybozuCredentials) -> str:
    """Return the host of the API. With a client certificate, it is example.s.cybozu.com for example.cybozu.com.

    https://jp.cybozu.help/general/ja/admin/list_security/list_access/secureaccess.html
    """
    subdomain, _, domain = host.partition(".")
    if credentials.certificate is not None and domain == "cybozu.com":
        return f"{subdomain}.s.{domain}"
    if credentials.certificate is None and domain.startswith("s.cybozu."):
        raise SecretError(
            f'secret: expected "{CERTIFICATE_KEY}", because {host} requires a client certificate, found none; add it'
        )
    return host


class CybozuClient:
    """The User API of a domain.

    ``base_url`` consists of https, a host name and optionally a port.
    """

    def __init__(
        self,
        base_url: str,
        credentials: CybozuCredentials,
        *,
        session: requests.Session | None = None,
        clock: Clock | None = None,
        time_left: TimeLeft | None = None,
    ) -> None:
        host = re.fullmatch(r"https://([a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?)/?", base_url, re.IGNORECASE)
        if host is None:
            raise ConfigurationError(
                "base_url of a cybozu source: expected https and a host name, such as https://example.cybozu.com"
            )
        self.host = _api_host(host[1].lower(), credentials)
        self.name = f"cybozu.com ({self.host})"
        self._credentials = credentials
        session = session or new_session(CONNECTIONS)
        if credentials.certificate is not None:
            credentials.certificate.check_validity()
            credentials.certificate.log_expiry(self.host)
            session.mount(f"https://{self.host}/", credentials.certificate.adapter(CONNECTIONS))
        self._transport = HttpTransport(
            self.name,
            f"https://{self.host}",
            session=session,
            clock=clock,
            time_left=time_left,
            busy=lambda status: status in BUSY_STATUSES or (status >= 500 and status != LEGACY_LOGIN_FAILED_STATUS),
            connections=CONNECTIONS,
        )

    def get_text(self, path: str, params: Parameters = ()) -> str:
        """Return the body of a JSON response as text. This method is thread-safe."""
        response = self._transport.send(self._request(path, "application/json", MAX_PAGE_BYTES, params))
        if response.status != 200:
            raise error_from_response(response, provider=self.name, path=path)
        if _MARKUP.match(response.body[:MIN_SNIFFED_BYTES]):
            raise WrongFormatError(f"{self.name}: expected JSON for {path}, found HTML; check the base_url")
        try:
            return response.body.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
        raise WrongFormatError(f"{self.name}: expected UTF-8 for {path}, found invalid bytes")

    def stream_csv(self, dataset: str) -> Iterator[bytes]:
        """Yield the CSV file of a dataset as delivered, after a check of the status, type and first bytes.

        The request requires a cybozu.com Administrator or an API token. The file has no header row. The file of users
        contains all users except the built-in account ``Administrator``. Raises ConfigurationError if the dataset has
        no CSV file. Raises CopyBrokenError if the connection breaks or the body is too short; the complete file must
        then be fetched again.
        """
        if dataset not in CSV_FILES:
            raise ConfigurationError(
                f"dataset: expected a dataset that cybozu.com offers as a CSV file ({', '.join(CSV_FILES)}), found"
                f" {dataset[:40]!r}"
            )
        return self._stream_csv(f"/v1/csv/{CSV_FILES[dataset]}.csv")

    def _stream_csv(self, path: str) -> Iterator[bytes]:
        request = self._request(path, "text/csv, */*;q=0.5", MAX_ERROR_BYTES, seconds=CSV_READ_TIMEOUT_SECONDS)
        with self._transport.stream(request) as (response, body):
            if body is None:
                raise error_from_response(response, provider=self.name, path=path)
            if "content-length" not in response.headers and "chunked" not in response.headers.get(
                "transfer-encoding", ""
            ):
                raise WrongFormatError(
                    f"{self.name}: expected Content-Length or chunked encoding for {path}, found neither, so its"
                    " completeness cannot be checked"
                )
            if response.content_type in {"text/html", "application/xhtml+xml", "application/json"}:
                raise WrongFormatError(f"{self.name}: expected CSV for {path}, found {response.content_type}")
            parts, head = self._parts(body, path), b""
            for part in parts:
                head += part
                if len(head) >= MIN_SNIFFED_BYTES:
                    break
            if _MARKUP.match(head):
                raise WrongFormatError(f"{self.name}: expected CSV for {path}, found HTML; check the base_url")
            if head:
                yield head
            yield from parts

    def _parts(self, body: Iterator[bytes], path: str) -> Iterator[bytes]:
        broken = None
        try:
            for part in body:
                self._transport.check_time()
                yield part
        except CONNECTION_ERRORS as error:
            # The error is not chained, because its message contains the URL.
            broken = type(error).__name__
        if broken is not None:
            raise CopyBrokenError(f"{self.name} sent an incomplete {path} ({broken}); the file is fetched again")

    def _request(
        self, path: str, accept: str, max_bytes: int, params: Parameters = (), *, seconds: float = READ_TIMEOUT_SECONDS
    ) -> ProviderRequest:
        return ProviderRequest(
            "GET",
            path,
            bucket="user api",
            max_bytes=max_bytes,
            headers={"Accept": accept, **self._credentials.headers()},
            params=params,
            read_timeout_seconds=seconds,
        )


def error_from_response(response: ProviderResponse, *, provider: str, path: str) -> MeiboError:
    """Return the error for an unsuccessful response that is not retried."""
    status = response.status
    code = error_code(response.members().get("code")) or error_code(response.headers.get("x-cybozu-error"))
    detail = f"{status}, {code}" if code else str(status)
    login_failed = code is None or code.startswith(("CB_AU", "CB_WA"))
    account_state = _account_state(response) if status in {401, 403, LEGACY_LOGIN_FAILED_STATUS} else None
    if account_state or status == 401 or (status == LEGACY_LOGIN_FAILED_STATUS and login_failed):
        reason = account_state or (_WRONG_LOGIN if code == "CB_WA01" else None)
        return _login_error(provider, detail, code, reason)
    if status == 403:
        return _permission_error(provider, path, detail, code)
    if 300 <= status < 400:
        if _LOGIN_PAGE.match(response.headers.get("location", "")):
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


def _account_state(response: ProviderResponse) -> str | None:
    """Return the state of the account that prevents the login, or None if the response does not contain it."""
    document = response.members()
    message = document.get("message") or document.get("reason")
    if not isinstance(message, str):
        return None
    return next((state for pattern, state in _ACCOUNT_STATES.items() if pattern.search(message)), None)


def _login_error(provider: str, detail: str, code: str | None, reason: str | None) -> MeiboError:
    if reason is None and code is None:
        return CredentialsRefusedError(
            f"{provider} rejected the request before the login ({detail}); if the domain uses Basic authentication,"
            f' add "basic_user" and "basic_password" to the secret, else {_CORRECT_LOGIN}'
        )
    return CredentialsRefusedError(
        f"{provider} rejected the login ({detail})" + (f": {reason}" if reason else f"; {_CORRECT_LOGIN}")
    )


def _permission_error(provider: str, path: str, detail: str, code: str | None) -> MeiboError:
    if code is None:
        return ScopeMissingError(
            f"{provider} rejected {path} before the login ({detail}); add the IP addresses of Meibo to the IP"
            " addresses that the domain allows, or a client certificate to the secret"
        )
    return ScopeMissingError(
        f"{provider} rejected {path} ({detail}); use a cybozu.com Administrator (共通管理者) or an API token with"
        " read permission",
        scopes=("cybozu.com Administrator",),
    )
