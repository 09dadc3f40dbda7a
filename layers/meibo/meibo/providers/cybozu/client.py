"""Requests to the User API of one cybozu.com domain, with its answers turned into Meibo's errors.

https://cybozu.dev/ja/common/docs/user-api/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import requests

from meibo import __version__
from meibo.errors import ConfigurationError, CopyBrokenError, WrongFormatError
from meibo.http.ratelimit import Clock, Deadline, SystemClock
from meibo.http.transport import BROKEN, BUSY_STATUSES, HttpTransport, Parameters, ProviderClient, ProviderRequest
from meibo.providers.cybozu.credentials import CybozuCredentials
from meibo.providers.cybozu.errors import OLD_REFUSAL_STATUS, error_from_response

# A page of 100 users with 50 custom items each stays far below.
MAX_PAGE_BYTES: Final = 32 * 1024 * 1024
MAX_REFUSAL_BYTES: Final = 1024 * 1024
# A whole directory as CSV is put together before its first byte comes.
CSV_READ_SECONDS: Final = 120.0
# Enough to tell a page of HTML from CSV behind a byte order mark and blank lines.
SNIFFED_BYTES: Final = 512
CONNECTIONS: Final = 16

_MARKUP: Final = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*<(?:!doctype|!--|html|head|body|\?xml)", re.IGNORECASE)


class CybozuClient(ProviderClient):
    """The User API of one domain.

    ``base_url`` is https with a host and perhaps a port; ``deadline`` tells how many seconds the invocation has
    left.
    """

    def __init__(
        self,
        base_url: str,
        credentials: CybozuCredentials,
        *,
        session: requests.Session | None = None,
        clock: Clock | None = None,
        deadline: Deadline | None = None,
        user_agent: str = f"meibo/{__version__}",
    ) -> None:
        host = re.fullmatch(r"https://([a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?)/?", base_url, re.IGNORECASE)
        if host is None:
            raise ConfigurationError(
                "the base_url of a cybozu source must be https with a host name only, like https://example.cybozu.com"
            )
        self.host = host[1].lower()
        self._credentials = credentials
        self._exchange = HttpTransport(
            f"cybozu.com ({self.host})",
            session=session,
            clock=clock or SystemClock(),
            deadline=deadline,
            user_agent=user_agent,
            busy=lambda status: status in BUSY_STATUSES or (status >= 500 and status != OLD_REFUSAL_STATUS),
            connections=CONNECTIONS,
        )

    def get_text(self, path: str, params: Parameters = ()) -> str:
        """Return the body of a JSON answer as text; threads may call this at the same time."""
        answer = self._exchange.send(self._call(path, "application/json", MAX_PAGE_BYTES, params))
        if answer.status != 200:
            raise error_from_response(answer, provider=self.name, path=path)
        if _MARKUP.match(answer.body[:SNIFFED_BYTES]):
            raise WrongFormatError(f"{self.name} answered HTML where JSON was due ({path}); check the base_url")
        try:
            return answer.body.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
        raise WrongFormatError(f"{self.name} answered {path} with bytes that are not UTF-8")

    def stream_csv(self, path: str) -> Iterator[bytes]:
        """Yield a CSV file as delivered, after its status, type and first bytes were found to be CSV's.

        Raises CopyBrokenError when the connection breaks or the body is shorter than announced; the file cannot
        be continued, only fetched again.
        """
        call = self._call(path, "text/csv, */*;q=0.5", MAX_REFUSAL_BYTES, (), read_seconds=CSV_READ_SECONDS)
        with self._exchange.stream(call) as (answer, body):
            if body is None:
                raise error_from_response(answer, provider=self.name, path=path)
            if "content-length" not in answer.headers and "chunked" not in answer.headers.get("transfer-encoding", ""):
                raise WrongFormatError(
                    f"{self.name} sends {path} without its length, so nobody can tell whether it is complete"
                )
            if answer.content_type in {"text/html", "application/xhtml+xml", "application/json"}:
                raise WrongFormatError(f"{self.name} answered {answer.content_type} where CSV was due ({path})")
            yield from self._checked(body, path)

    def _checked(self, body: Iterator[bytes], path: str) -> Iterator[bytes]:
        head = bytearray()
        sniffing = True
        for part in self._unbroken(body, path):
            self._exchange.check_time()
            if not sniffing:
                yield part
                continue
            head += part
            if len(head) >= SNIFFED_BYTES:
                sniffing = False
                self._refuse_markup(head, path)
                yield bytes(head)
        if sniffing and head:
            self._refuse_markup(head, path)
            yield bytes(head)

    def _refuse_markup(self, head: bytearray, path: str) -> None:
        if _MARKUP.match(head):
            raise WrongFormatError(f"{self.name} answered HTML where CSV was due ({path}); check the base_url")

    def _unbroken(self, body: Iterator[bytes], path: str) -> Iterator[bytes]:
        broken = None
        try:
            yield from body
        except BROKEN as error:
            broken = type(error).__name__
        if broken is not None:
            raise CopyBrokenError(f"{self.name} broke off {path} ({broken}); it is fetched again from its start")

    def _call(
        self, path: str, accept: str, max_bytes: int, params: Parameters, *, read_seconds: float | None = None
    ) -> ProviderRequest:
        more: dict[str, Any] = {} if read_seconds is None else {"read_seconds": read_seconds}
        return ProviderRequest(
            "GET",
            f"https://{self.host}{path}",
            bucket="user api",
            max_bytes=max_bytes,
            headers={"Accept": accept, **self._credentials.headers()},
            params=params,
            **more,
        )
