"""Checks of a domain before a run: login, permission for CSV files, selected users, and the expected duration.

If the login fails, no other request is sent, because cybozu.com locks accounts after several failed logins:
https://jp.cybozu.help/general/ja/admin/list_security/list_login/account_lock.html
"""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

from meibo.errors import CredentialsRefusedError, RequestRefusedError, SecretError
from meibo.formatting import format_count
from meibo.http.client_certificate import EXPIRES_SOON
from meibo.http.session import check_connection
from meibo.providers.base import ProviderContext
from meibo.providers.checks import CONNECTION, CREDENTIALS, EXPECTED_RUN, Check, CheckResult, Latency, expected_run
from meibo.providers.cybozu.client import CONNECTIONS, CybozuClient, CybozuCredentials
from meibo.providers.cybozu.configuration import CybozuUsersExport
from meibo.providers.cybozu.directory import GROUPS, MAX_FILTER_VALUES, ORGANIZATIONS, USERS, stream_users_ndjson
from meibo.providers.cybozu.pagination import PAGE_SIZE, STRIDE, OffsetList, page_at

if TYPE_CHECKING:
    from meibo.providers.configuration import ExportModel
    from meibo.providers.cybozu.configuration import CybozuSource

_LISTS: Final = {"users": USERS, "organizations": ORGANIZATIONS, "groups": GROUPS}
LOGIN: Final = "login"
CSV_FILES: Final = "CSV files"
# Maximum result of the search for the number of rows in a list.
MAX_ROWS: Final = PAGE_SIZE * 2**20


class DomainChecks:
    """The checks of a domain. They share a session and a client."""

    def __init__(self, source: CybozuSource, context: ProviderContext) -> None:
        self._source = source
        self._context = context
        self._latency = Latency()
        self._session = context.new_session(CONNECTIONS)
        self._exports = [export for entry in source.exports_by_entry() for export in entry]

    def checks(self) -> Iterator[Check]:
        """Yield the checks in the order of their execution. The session is closed after the last check."""
        with closing(self._session):
            yield Check(CREDENTIALS, self._check_credentials)
            yield Check(CONNECTION, self._check_connection)
            yield Check(LOGIN, self._check_login, (CREDENTIALS, CONNECTION))
            required = [LOGIN]
            if any(export.format == "csv" for export in self._exports):
                required.append(CSV_FILES)
                yield Check(CSV_FILES, self._check_csv, (LOGIN,))
            for export in self._exports:
                if isinstance(export, CybozuUsersExport) and export.scope == "selected":
                    name = f"users by {'ids' if export.ids else 'codes'}"
                    yield Check(name, partial(self._check_selection, export), (LOGIN,))
            yield Check(EXPECTED_RUN, self._expect_run, tuple(required))

    def _credentials(self) -> CybozuCredentials:
        return CybozuCredentials.from_secret(self._context.read_secret(self._source.secret))

    @cached_property
    def _client(self) -> CybozuClient:
        """The client. It is created on first use, because its creation fails if the secret is invalid."""
        return CybozuClient(
            self._source.base_url,
            self._credentials(),
            session=self._session,
            clock=self._context.clock,
            time_left=self._context.time_left,
        )

    def _check_credentials(self) -> CheckResult:
        credentials, now = self._credentials(), datetime.now(UTC)
        parts: list[tuple[str, datetime | None]] = [("login and password", None)]
        if credentials.api_token is not None:
            parts = [("API token", token_expiry(credentials.api_token))]
        if credentials.basic_user is not None:
            parts.append(("Basic credentials", None))
        if credentials.certificate is not None:
            credentials.certificate.check_validity()
            parts.append(("client certificate", credentials.certificate.not_after))
        for name, expiry in parts:
            if expiry is not None and expiry <= now:
                raise CredentialsRefusedError(
                    f"secret: the {name} expired on {expiry:%Y-%m-%d}; create a new {name} in cybozu.com"
                    " administration, and store it in the secret"
                )
        detail = ", ".join(
            name if expiry is None else f"{name} that expires on {expiry:%Y-%m-%d}" for name, expiry in parts
        )
        if all(expiry is None or expiry - now >= EXPIRES_SOON for _, expiry in parts):
            return CheckResult(detail=detail)
        return CheckResult(detail=f"{detail}; replace it before this date, because later runs fail", warning=True)

    def _check_connection(self) -> CheckResult:
        try:
            host = self._client.host
        except SecretError:
            # The check of the credentials reports this error. This check does not require credentials.
            host = self._source.base_url.removeprefix("https://")
        check_connection(f"cybozu.com ({host})", f"https://{host}/", self._session)
        return CheckResult(detail=host)

    def _check_login(self) -> CheckResult:
        self._latency.measure(lambda: page_at(self._client, USERS, 0, 1))
        return CheckResult(detail="accepted")

    def _check_csv(self) -> CheckResult:
        # The file of titles is usually the smallest. Only its beginning is read.
        self._latency.measure(lambda: next(self._client.stream_csv("titles"), b""))
        return CheckResult(detail="readable with these credentials")

    def _check_selection(self, export: CybozuUsersExport) -> CheckResult:
        name, values = ("ids", export.ids) if export.ids else ("codes", export.codes)
        expected = len(set(values or ()))
        pages = stream_users_ndjson(self._client, **{name: list(values or ())})  # type: ignore[arg-type]  # ids or codes
        count = sum(page.count(b"\n") for page in pages)
        if count < expected:
            # The message does not contain the codes, because they are login names.
            raise RequestRefusedError(
                f"{self._client.name}: expected a user for each of the {expected} configured {name}, found {count};"
                f" correct {name} in the configuration"
            )
        return CheckResult(detail=f"found {format_count(count, 'user')}")

    def _expect_run(self) -> CheckResult:
        """Return the expected number of requests of a run: one for each CSV file, and an estimate for JSON lists."""
        files = sum(export.format == "csv" for export in self._exports)
        pages = sum(self._pages(export) for export in self._exports if export.format == "ndjson")
        seconds = (files + pages / self._source.concurrency) * self._latency.seconds
        remark = f", and the time in which cybozu.com creates {format_count(files, 'CSV file')}" if files else ""
        return expected_run(files + pages, seconds, remark)

    def _pages(self, export: ExportModel) -> int:
        if isinstance(export, CybozuUsersExport) and export.scope == "selected":
            return -(-len(export.ids or export.codes or ()) // MAX_FILTER_VALUES)
        if export.dataset != "members":
            return self._bound(_LISTS[export.dataset]) // STRIDE + 1
        # One request for each organization and group, the pages of their lists, and the pages of all members. A user
        # is usually in one organization, and always in the group "everyone".
        owners = self._bound(ORGANIZATIONS) + self._bound(GROUPS)
        return owners + owners // STRIDE + 2 * (self._bound(USERS) // STRIDE + 1)

    def _bound(self, listing: OffsetList) -> int:
        """Return an upper bound of the number of rows in a list, at most ``MAX_ROWS``.

        The API does not return a total, so one row is requested at positions that double. The bound is at most twice
        the number of rows, or one page.
        """
        bound = PAGE_SIZE
        while bound < MAX_ROWS and self._latency.measure(partial(page_at, self._client, listing, bound, 1)):
            bound *= 2
        return bound


def token_expiry(api_token: str) -> datetime | None:
    """Return the time at which an API token expires, or None if the token does not contain it.

    An API token consists of ``cy.s.api1.`` and a JSON Web Token:
    https://cybozu.dev/ja/common/docs/user-api/overview/authentication/
    """
    parts = api_token.split(".")
    if len(parts) < 3:
        return None
    try:
        claims: Any = json.loads(urlsafe_b64decode(parts[-2] + "=="))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (binascii.Error, ValueError, TypeError, KeyError, OverflowError, OSError):
        return None
