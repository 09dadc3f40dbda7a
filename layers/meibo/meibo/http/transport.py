"""Send HTTPS requests to a provider, and retry them while the provider is busy.

The transport limits the duration and the size of responses, and the rate of requests. It does not follow redirects, and
does not use cookies or credentials from ``~/.netrc``. The client of each provider interprets the responses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard
from urllib.parse import quote

import requests
import urllib3

from meibo import __version__
from meibo.clock import Clock, SystemClock, TimeLeft
from meibo.errors import (
    ConfigurationError,
    OutOfTimeError,
    ProviderBusyError,
    RequestRefusedError,
    WrongFormatError,
)
from meibo.http.failures import CONNECTION_ERRORS, Failure, connection_failure
from meibo.http.proxy import proxy_for
from meibo.http.ratelimit import MAX_RETRY_SECONDS, ConcurrencyLimiter, RateLimiter
from meibo.http.session import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, new_session

# Maximum duration of a response. A server that sends one byte per second never exceeds the read timeout.
MAX_RESPONSE_SECONDS: Final = 120.0
CHUNK_BYTES: Final = 64 * 1024
# Number of attempts after which a host name is considered invalid. Name resolution can fail temporarily.
MAX_UNKNOWN_HOST_ATTEMPTS: Final = 3
BUSY_STATUSES: Final = frozenset({408, 425, 429})

Parameters = Sequence[tuple[str, str]]
# The file name (None for a field), the content and the type of each part, by the name of the part.
Multipart = Mapping[str, tuple[str | None, bytes, str]]


@dataclass(frozen=True)
class ProviderRequest:
    """A request and the rules for its retries.

    ``bucket`` names the rate limit that applies to the request. If ``repeatable`` is False, the request must not be
    executed twice: it is retried only if the provider did not execute it (429, no connection). Retries end after
    ``max_retry_seconds``. ``form`` is called for each attempt, because a signed assertion can be used only once.
    """

    method: str
    path: str
    bucket: str
    max_bytes: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: Parameters = field(default=(), repr=False)
    form: Callable[[], Mapping[str, str]] | None = field(default=None, repr=False)
    json: Any = field(default=None, repr=False)
    multipart: Multipart | None = field(default=None, repr=False)
    repeatable: bool = True
    max_retry_seconds: float = MAX_RETRY_SECONDS
    read_timeout_seconds: float = READ_TIMEOUT_SECONDS


@dataclass(frozen=True)
class ProviderResponse:
    """A response of a provider. ``body`` is empty if the response is streamed."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """The media type in lower case, or an empty string if the header is missing."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()[:60]

    def json(self) -> Any:
        """Return the JSON value of the body, raising ValueError if the body is not JSON or is nested too deeply."""
        try:
            return json.loads(self.text())
        except RecursionError:
            raise ValueError("the JSON document is nested too deeply") from None

    def text(self) -> str:
        """Return the body as a string, raising ValueError if it is not UTF-8."""
        return self.body.decode("utf-8-sig")

    def members(self) -> dict[str, Any]:
        """Return the JSON object in the body, or an empty dict if the body is not a JSON object."""
        try:
            document = self.json()
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


class HttpTransport:
    """Sends the requests of one client with one session and one rate limiter.

    ``provider`` names the provider in messages. ``base_url`` precedes the path of each request. ``busy`` returns
    whether the request is retried after a response with this status.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        session: requests.Session | None,
        clock: Clock | None,
        time_left: TimeLeft | None,
        busy: Callable[[int], bool],
        connections: int = 4,
        headroom: int = 0,
    ) -> None:
        # This call only validates the proxy. requests reads the environment variables of the proxy for each request.
        proxy_for(base_url)
        self.provider = provider
        self.base_url = base_url
        self.clock = clock or SystemClock()
        self.rate_limiter = RateLimiter(provider, self.clock, time_left=time_left, headroom=headroom)
        self._session = session or new_session(connections)
        self._busy = busy
        self._concurrency_limiter = ConcurrencyLimiter(connections)

    def close(self) -> None:
        """Close the idle connections of the session."""
        self._session.close()

    def send(self, request: ProviderRequest) -> ProviderResponse:
        """Return the first response that does not require a retry.

        Raises ProviderBusyError if the provider remains busy or the remaining time is too short, and ConfigurationError
        if a retry cannot succeed, for example because the certificate is not trusted.
        """
        return self._send_with_retries(request, stream=False)[1]

    @contextmanager
    def stream(self, request: ProviderRequest) -> Iterator[tuple[ProviderResponse, Iterator[bytes] | None]]:
        """Yield the first response that does not require a retry and, if its status is 200, an iterator of its body.

        If the status is not 200, the body is read completely, up to ``request.max_bytes``. If the connection breaks,
        the iterator raises one of ``CONNECTION_ERRORS``.
        """
        raw, response = self._send_with_retries(request, stream=True)
        with raw:
            yield response, _chunks(raw) if response.status == 200 else None

    def check_time(self) -> None:
        """Raise OutOfTimeError if no time remains for reading."""
        left = self.rate_limiter.seconds_left()
        if left is not None and left <= 0:
            raise OutOfTimeError(
                f"the invocation ends before {self.provider} has sent the complete file; a later invocation fetches it"
                " again"
            )

    def _send_with_retries(
        self, request: ProviderRequest, *, stream: bool
    ) -> tuple[requests.Response, ProviderResponse]:
        attempt, unknown_host, start = 0, 0, self.clock.now()
        while True:
            self.rate_limiter.wait_for_turn(request.bucket)
            headers: Mapping[str, str] = {}
            with self._concurrency_limiter:
                result = self._attempt(request, stream=stream)
            if isinstance(result, Failure):
                failure = result
            else:
                status, headers = result[1].status, result[1].headers
                self.rate_limiter.read_headers(request.bucket, headers)
                if not self._busy(status):
                    return result
                if status == 429:
                    self._concurrency_limiter.lower_limit()
                failure = Failure(f"returned {status}", had_no_effect=status == 429)
            unknown_host += failure.unknown_host
            if failure.permanent or unknown_host >= MAX_UNKNOWN_HOST_ATTEMPTS:
                raise ConfigurationError(f"{self.provider} {failure.reason}")
            if not request.repeatable and not failure.had_no_effect:
                raise ProviderBusyError(
                    f"{self.provider} {failure.reason}; the request may have taken effect, so it is not repeated",
                    uncertain=True,
                )
            wait = self.rate_limiter.retry_delay(headers, attempt)
            attempt += 1
            if self.clock.now() - start + wait > request.max_retry_seconds:
                raise ProviderBusyError(
                    f"{self.provider} {failure.reason} at each of {attempt} attempts; the request is retried later",
                    retry_after=wait,
                )
            self.rate_limiter.hold(request.bucket, wait)

    def _attempt(
        self, request: ProviderRequest, *, stream: bool
    ) -> tuple[requests.Response, ProviderResponse] | Failure:
        """Send the request once. If the response is streamed, its body is empty."""
        form = request.form() if request.form else None
        try:
            response = self._session.request(
                request.method,
                self.base_url + request.path,
                params=list(request.params) or None,
                data=form,
                json=request.json,
                files=request.multipart,
                headers={"User-Agent": f"meibo/{__version__}", "Accept-Encoding": "identity", **request.headers},
                allow_redirects=False,
                stream=True,
                timeout=(self._time_out(CONNECT_TIMEOUT_SECONDS), self._time_out(request.read_timeout_seconds)),
            )
            is_streamed = stream and response.status_code == 200
            body = b"" if is_streamed else self._read(response, request.max_bytes)
            return response, ProviderResponse(response.status_code, response.headers, body)
        except UnicodeEncodeError:
            # JSON can contain a lone surrogate. The UnicodeEncodeError contains the text, so it is not chained.
            invalid_text = RequestRefusedError(
                f"{self.provider}: the request contains text that is not valid Unicode; correct the id, code or address"
            )
        except CONNECTION_ERRORS as error:
            return connection_failure(error)
        raise invalid_text

    def _read(self, response: requests.Response, max_bytes: int) -> bytes:
        body, end = bytearray(), self.clock.now() + self._time_out(MAX_RESPONSE_SECONDS)
        with response:
            for part in _chunks(response):
                body += part
                if len(body) > max_bytes:
                    raise WrongFormatError(
                        f"{self.provider}: expected a response of at most {max_bytes} bytes, found more"
                    )
                if self.clock.now() > end:
                    raise urllib3.exceptions.TimeoutError
        return bytes(body)

    def _time_out(self, seconds: float) -> float:
        left = self.rate_limiter.seconds_left()
        return seconds if left is None else max(0.1, min(seconds, left))


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it is received. Raises an error of urllib3 if the body is incomplete."""
    while part := response.raw.read1(CHUNK_BYTES, decode_content=True):
        yield part


def segment(value: str) -> str:
    """Return an id as a quoted segment of a path, raising RequestRefusedError if a path cannot contain it."""
    if not value or value in {".", ".."}:
        raise RequestRefusedError("expected an id, found an empty string or dots only; correct the id")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        pass
    raise RequestRefusedError("expected an id, found text that is not valid Unicode; correct the id")


def is_id(value: object) -> TypeGuard[str]:
    """Return whether a value is an id: a string of letters, digits, ``_`` and ``-``.

    Ids are written to logs, messages and keys of the archive, so other strings are not accepted.
    """
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value) is not None


def error_code(text: object) -> str | None:
    """Return the text if it has the format of an error code, otherwise None. Messages must not contain other text."""
    return text if isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text) else None
