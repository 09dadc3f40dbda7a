"""Requests to the User API of one cybozu.com domain; unsuccessful responses become Meibo's errors.

https://cybozu.dev/ja/common/docs/user-api/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import requests

from meibo import __version__
from meibo.errors import ConfigurationError, CopyBrokenError, WrongFormatError
from meibo.http.ratelimit import Clock, SystemClock, TimeLeft
from meibo.http.transport import BROKEN, BUSY_STATUSES, HttpTransport, Parameters, ProviderRequest
from meibo.providers.cybozu.credentials import CybozuCredentials
from meibo.providers.cybozu.errors import OLD_LOGIN_FAILED_STATUS, error_from_response

# A page of 100 users with 50 custom items each is far smaller.
MAX_PAGE_BYTES: Final = 32 * 1024 * 1024
MAX_ERROR_BYTES: Final = 1024 * 1024
# cybozu.com builds the whole CSV file before it sends the first byte.
CSV_READ_TIMEOUT_SECONDS: Final = 120.0
# Enough to distinguish HTML from CSV after a byte order mark and blank lines.
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

_MARKUP: Final = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*<(?:!doctype|!--|html|head|body|\?xml)", re.IGNORECASE)


class CybozuClient:
    """The User API of one domain.

    ``base_url`` is https, a host and optionally a port. ``time_left`` returns the seconds that are left of the
    invocation.
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
        self.host = host[1].lower()
        self.name = f"cybozu.com ({self.host})"
        self._credentials = credentials
        self._transport = HttpTransport(
            self.name,
            session=session,
            clock=clock or SystemClock(),
            time_left=time_left,
            user_agent=f"meibo/{__version__}",
            busy=lambda status: status in BUSY_STATUSES or (status >= 500 and status != OLD_LOGIN_FAILED_STATUS),
            connections=CONNECTIONS,
        )

    def get_text(self, path: str, params: Parameters = ()) -> str:
        """Return the body of a JSON response as text; thread-safe."""
        response = self._transport.send(self._request(path, "application/json", MAX_PAGE_BYTES, params))
        if response.status != 200:
            raise error_from_response(response, provider=self.name, path=path)
        if _MARKUP.match(response.body[:MIN_SNIFFED_BYTES]):
            raise WrongFormatError(f"{self.name}: expected JSON for {path}, found HTML; check the base_url")
        try:
            return response.body.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
        raise WrongFormatError(f"{self.name}: expected UTF-8 for {path}, found other bytes")

    def stream_csv(self, dataset: str) -> Iterator[bytes]:
        """Yield a dataset's CSV file as delivered, after a check of its status, content type and first bytes.

        Requires a cybozu.com Administrator or an API token. No file has a header row; the users file contains every
        user except the built-in account ``Administrator``. Raises ConfigurationError if the dataset has no CSV file,
        CopyBrokenError if the connection breaks or the body is shorter than its length: the file cannot be resumed,
        only fetched again.
        """
        if dataset not in CSV_FILES:
            raise ConfigurationError(
                f"dataset: expected one that cybozu.com offers as a CSV file ({', '.join(CSV_FILES)}), found"
                f" {dataset[:40]!r}"
            )
        return self._stream_csv(f"/v1/csv/{CSV_FILES[dataset]}.csv")

    def _stream_csv(self, path: str) -> Iterator[bytes]:
        request = self._request(
            path, "text/csv, */*;q=0.5", MAX_ERROR_BYTES, (), read_timeout_seconds=CSV_READ_TIMEOUT_SECONDS
        )
        with self._transport.stream(request) as (response, body):
            if body is None:
                raise error_from_response(response, provider=self.name, path=path)
            if "content-length" not in response.headers and "chunked" not in response.headers.get(
                "transfer-encoding", ""
            ):
                raise WrongFormatError(
                    f"{self.name}: expected a length of {path}, found none, so its completeness cannot be checked"
                )
            if response.content_type in {"text/html", "application/xhtml+xml", "application/json"}:
                raise WrongFormatError(f"{self.name}: expected CSV for {path}, found {response.content_type}")
            yield from self._checked(body, path)

    def _checked(self, body: Iterator[bytes], path: str) -> Iterator[bytes]:
        head = bytearray()
        sniffing = True
        for part in self._body(body, path):
            self._transport.check_time()
            if not sniffing:
                yield part
                continue
            head += part
            if len(head) >= MIN_SNIFFED_BYTES:
                sniffing = False
                self._reject_markup(head, path)
                yield bytes(head)
        if sniffing and head:
            self._reject_markup(head, path)
            yield bytes(head)

    def _reject_markup(self, head: bytearray, path: str) -> None:
        if _MARKUP.match(head):
            raise WrongFormatError(f"{self.name}: expected CSV for {path}, found HTML; check the base_url")

    def _body(self, body: Iterator[bytes], path: str) -> Iterator[bytes]:
        broken = None
        try:
            yield from body
        except BROKEN as error:
            broken = type(error).__name__
        if broken is not None:
            raise CopyBrokenError(f"{self.name} ended {path} early ({broken}); will fetch it again from the beginning")

    def _request(
        self, path: str, accept: str, max_bytes: int, params: Parameters, *, read_timeout_seconds: float | None = None
    ) -> ProviderRequest:
        options: dict[str, Any] = {} if read_timeout_seconds is None else {"read_timeout_seconds": read_timeout_seconds}
        return ProviderRequest(
            "GET",
            f"https://{self.host}{path}",
            bucket="user api",
            max_bytes=max_bytes,
            headers={"Accept": accept, **self._credentials.headers()},
            params=params,
            **options,
        )
