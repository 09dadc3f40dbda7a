"""One HTTPS request to a provider, repeated while the provider is busy.

What both clients share: time-outs, no redirects, no cookies, no credentials from ``~/.netrc``, bounded
answers, and waiting as the provider's headers say. What an answer means is the client's business.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, TypeGuard
from urllib.parse import quote

import requests
import urllib3
from requests.auth import AuthBase

from meibo.errors import (
    ConfigurationError,
    OutOfTimeError,
    ProviderBusyError,
    RequestRefusedError,
    WrongFormatError,
)
from meibo.http.ratelimit import PATIENCE_SECONDS, Clock, ConcurrencyLimiter, Deadline, RateLimiter

CONNECT_SECONDS: Final = 6.0
READ_SECONDS: Final = 30.0
# A whole answer; a server that sends a byte a second never meets a read time-out.
ANSWER_SECONDS: Final = 120.0
READ_BYTES: Final = 64 * 1024
# A host name that does not resolve this often is a typing error rather than a hiccup of the resolver.
UNKNOWN_HOST_ATTEMPTS: Final = 3
BUSY_STATUSES: Final = frozenset({408, 425, 429})

Parameters = Sequence[tuple[str, str]]
# A part's name, and its file name (None for a plain field), content and type.
Multipart = Mapping[str, tuple[str | None, bytes, str]]
BROKEN: Final = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError)


@dataclass(frozen=True)
class ProviderRequest:
    """A request and how it may be repeated.

    ``bucket`` names the rate limit it counts against. ``repeatable`` is False where a repetition does harm:
    then only answers that prove that nothing happened (429, no connection) are tried again. ``form`` is made
    anew for each attempt, because a signed assertion is good once.
    """

    method: str
    url: str
    bucket: str
    max_bytes: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: Parameters = field(default=(), repr=False)
    form: Callable[[], Mapping[str, str]] | None = field(default=None, repr=False)
    json: Any = field(default=None, repr=False)
    multipart: Multipart | None = field(default=None, repr=False)
    repeatable: bool = True
    read_seconds: float = READ_SECONDS


@dataclass(frozen=True)
class ProviderResponse:
    """A complete answer of a provider."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()[:60]

    def json(self) -> Any:
        """Parse the body; raises ValueError also for JSON that is nested too deep."""
        try:
            return json.loads(self.body.decode("utf-8-sig"))
        except RecursionError:
            raise ValueError("nested too deep") from None

    def members(self) -> dict[str, Any]:
        """Return the members of the JSON object that the body should be; none where it is something else."""
        try:
            document = self.json()
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


class HttpTransport:
    """Sends calls through one session, at the pace of one pacer.

    ``busy`` decides which statuses mean "later"; ``provider`` is how messages name the other side.
    """

    def __init__(
        self,
        provider: str,
        *,
        session: requests.Session | None,
        clock: Clock,
        deadline: Deadline | None,
        user_agent: str,
        busy: Callable[[int], bool],
        connections: int = 4,
        headroom: int = 0,
    ) -> None:
        self.provider = provider
        self.pacer = RateLimiter(provider, clock, deadline=deadline, headroom=headroom)
        self._session = session or new_session(connections)
        self._clock = clock
        self._user_agent = user_agent
        self._busy = busy
        self._gate = ConcurrencyLimiter(connections)

    def send(self, call: ProviderRequest) -> ProviderResponse:
        """Return the first answer that is not "busy"; raises ProviderBusyError when time is too short."""
        response, body = self._repeat(call, stream=False)
        return ProviderResponse(response.status_code, _lower(response.headers), body or b"")

    @contextmanager
    def stream(self, call: ProviderRequest) -> Iterator[tuple[ProviderResponse, Iterator[bytes] | None]]:
        """Give the first answer that is not "busy" and, for a 200, its body as it arrives.

        Any other body is read, up to ``call.max_bytes``. What the iterator raises when the connection
        breaks is in ``BROKEN``.
        """
        response, body = self._repeat(call, stream=True)
        try:
            answer = ProviderResponse(response.status_code, _lower(response.headers), body or b"")
            yield answer, (_chunks(response) if body is None else None)
        finally:
            response.close()

    def _repeat(self, call: ProviderRequest, *, stream: bool) -> tuple[requests.Response, bytes | None]:
        attempt, unknown_host, since = 0, 0, self._clock.now()
        while True:
            self.pacer.wait_for_turn(call.bucket)
            headers: Mapping[str, str] = {}
            with self._gate:
                outcome = self._once(call, stream=stream)
            if isinstance(outcome, _Failure):
                failure = outcome
            else:
                response, body = outcome
                headers = response.headers
                self.pacer.learn(call.bucket, headers)
                if not self._busy(response.status_code):
                    return response, body
                response.close()
                refused = response.status_code == 429
                if refused:
                    self._gate.narrow()
                failure = _Failure(f"answers {response.status_code}", nothing_happened=refused)
            unknown_host += failure.unknown_host
            if failure.never or unknown_host >= UNKNOWN_HOST_ATTEMPTS:
                raise ConfigurationError(f"{self.provider} {failure.reason}")
            if not call.repeatable and not failure.nothing_happened:
                raise ProviderBusyError(
                    f"{self.provider} {failure.reason}; it may have done the request, which is not repeated",
                    uncertain=True,
                )
            wait = self.pacer.busy_wait(headers, attempt)
            attempt += 1
            if self._clock.now() - since + wait > PATIENCE_SECONDS:
                raise ProviderBusyError(
                    f"{self.provider} {failure.reason}, also at attempt {attempt}; it is tried again later",
                    retry_after=wait,
                )
            self.pacer.hold(call.bucket, wait)

    def _once(self, call: ProviderRequest, *, stream: bool) -> tuple[requests.Response, bytes | None] | _Failure:
        form = call.form() if call.form else None
        try:
            response = self._session.request(
                call.method,
                call.url,
                params=list(call.params) or None,
                data=form,
                json=call.json,
                files=call.multipart,
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity", **call.headers},
                auth=_NoOtherCredentials(),
                allow_redirects=False,
                stream=True,
                timeout=(self._time_out(CONNECT_SECONDS), self._time_out(call.read_seconds)),
            )
            if stream and response.status_code == 200:
                return response, None
            return response, self._read(response, call.max_bytes)
        except UnicodeEncodeError:
            # For example half of a surrogate pair, which JSON can hold. The error itself holds the value.
            value_refused = RequestRefusedError(
                f"{self.provider}: the request holds text that is not valid Unicode; correct the id, code or address"
            )
        except BROKEN as error:
            # Only the kind is kept: the text of these errors holds the URL.
            return _failure(error)
        raise value_refused

    def _read(self, response: requests.Response, max_bytes: int) -> bytes:
        body, end = bytearray(), self._clock.now() + self._time_out(ANSWER_SECONDS)
        with response:
            for part in _chunks(response):
                body += part
                if len(body) > max_bytes:
                    raise WrongFormatError(f"{self.provider} answered more than {max_bytes} bytes where a page was due")
                if self._clock.now() > end:
                    raise urllib3.exceptions.TimeoutError
        return bytes(body)

    def _time_out(self, seconds: float) -> float:
        left = self.pacer.seconds_left()
        return seconds if left is None else max(0.1, min(seconds, left))

    def check_time(self) -> None:
        """Raise OutOfTimeError when the invocation ends too soon to read on."""
        left = self.pacer.seconds_left()
        if left is not None and left <= 0:
            raise OutOfTimeError(f"the time ended while {self.provider} was sending; it is started again")


class ProviderClient:
    """What the clients of all providers have in common: their side's name in messages, and the time that is left."""

    _exchange: HttpTransport

    @property
    def name(self) -> str:
        """Return how messages name this tenant or domain."""
        return self._exchange.provider

    @property
    def deadline(self) -> Deadline | None:
        """Return what tells how many seconds the invocation has left."""
        return self._exchange.pacer.deadline

    @deadline.setter
    def deadline(self, deadline: Deadline | None) -> None:
        self._exchange.pacer.deadline = deadline


@dataclass(frozen=True)
class _Failure:
    """Why there was no answer, in words that hold no URL."""

    reason: str
    nothing_happened: bool
    unknown_host: bool = False
    never: bool = False


class _NoOtherCredentials(AuthBase):
    """Keeps requests from taking credentials out of ``~/.netrc`` in place of ours."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Session(requests.Session):
    """A session that never looks at a redirect.

    Without this, requests prepares the next request even with ``allow_redirects=False``: it reads the whole body into
    memory and raises ValueError if the Location header is not a URL.
    """

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return None for every response."""
        del resp
        return None


def new_session(connections: int) -> requests.Session:
    """Return a session that stores no cookies and neither retries nor follows redirects."""
    # At DEBUG urllib3 logs each address, and an address may hold an e-mail address or a signature.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
    session = _Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=connections, max_retries=0))
    return session


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives; raises what urllib3 raises, also for a body that ends early."""
    while part := response.raw.read1(READ_BYTES, decode_content=True):
        yield part


def _lower(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Copy headers so that their names are found in lower case, as the pacer and the clients ask for them."""
    return {name.lower(): value for name, value in headers.items()}


def segment(value: str) -> str:
    """Quote an id as one segment of a path; raises RequestRefusedError for one that no path can hold."""
    if not value or value in {".", ".."}:
        raise RequestRefusedError("an id is empty or made of dots only; nothing can have this id")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        pass
    raise RequestRefusedError("an id holds text that is not valid Unicode; nothing can have this id")


def is_id(value: object) -> TypeGuard[str]:
    """Tell whether what a provider calls an id looks like one: letters, digits, ``_`` and ``-``.

    Ids go into logs, messages and keys of the archive, so nothing else may call itself one there.
    """
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value) is not None


def error_code(text: object) -> str | None:
    """Return an error code if it looks like one, so that no free text reaches a message."""
    return text if isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text) else None


def _failure(error: BaseException) -> _Failure:
    causes = list(_causes(error))
    kinds = {type(cause).__name__ for cause in causes}
    text = " ".join(str(cause) for cause in causes)
    if "SSLCertVerificationError" in kinds or "CERTIFICATE_VERIFY_FAILED" in text:
        return _Failure(
            "shows a certificate that is not trusted here; check the host name",
            nothing_happened=True,
            never=True,
        )
    if kinds & {"InvalidURL", "MissingSchema", "InvalidSchema", "LocationParseError", "InvalidHeader"}:
        return _Failure(
            "cannot be asked: its address or a header value is not valid", nothing_happened=True, never=True
        )
    if "NameResolutionError" in kinds:
        return _Failure(
            "has a host name that does not resolve; check its spelling",
            nothing_happened=True,
            unknown_host=True,
        )
    unconnected = kinds & {"NewConnectionError", "ConnectTimeout", "ConnectTimeoutError"}
    return _Failure(
        f"does not answer properly ({', '.join(dict.fromkeys(type(cause).__name__ for cause in causes))})",
        nothing_happened=bool(unconnected),
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[object] = []
    waiting: list[object] = [error]
    while waiting and len(seen) < 20:
        one = waiting.pop()
        if not isinstance(one, BaseException) or any(one is other for other in seen):
            continue
        seen.append(one)
        yield one
        waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
