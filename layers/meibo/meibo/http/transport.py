"""HTTPS requests to a provider, retried while the provider is busy.

All providers' clients share it: time-outs, no redirects, no cookies, no credentials from ``~/.netrc``, responses of
limited size, and waits as the provider's headers require. The client interprets the responses.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
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
from meibo.http.proxy import proxy_failure, proxy_for
from meibo.http.ratelimit import MAX_RETRY_SECONDS, Clock, ConcurrencyLimiter, RateLimiter, TimeLeft

CONNECT_TIMEOUT_SECONDS: Final = 6.0
READ_TIMEOUT_SECONDS: Final = 30.0
# Limit of a complete response, because a server that sends a byte per second never exceeds the read time-out.
MAX_RESPONSE_SECONDS: Final = 120.0
CHUNK_BYTES: Final = 64 * 1024
# After this number of failures to resolve a host name, it is considered misspelled. Resolvers can fail temporarily.
MAX_UNKNOWN_HOST_ATTEMPTS: Final = 3
# TLS alerts of a server that requires a client certificate, by OpenSSL's names.
CERTIFICATE_ALERTS: Final = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)
BUSY_STATUSES: Final = frozenset({408, 425, 429})

Parameters = Sequence[tuple[str, str]]
# A part's name, and its file name (None for a plain field), content and type.
Multipart = Mapping[str, tuple[str | None, bytes, str]]
CONNECTION_ERRORS: Final = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError)


@dataclass(frozen=True)
class ProviderRequest:
    """A request and the rules of its retries.

    ``bucket`` names the rate limit that it counts against. ``repeatable`` is False if the request must not be executed
    twice: it is then retried only after a failure that had no effect (429, no connection). Retries end after
    ``max_retry_seconds``. ``form`` is called for each attempt, because a signed assertion is valid once.
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
    max_retry_seconds: float = MAX_RETRY_SECONDS
    read_timeout_seconds: float = READ_TIMEOUT_SECONDS


@dataclass(frozen=True)
class ProviderResponse:
    """A complete response of a provider."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """The media type in lower case; empty if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()[:60]

    def json(self) -> Any:
        """Parse the body, raising ValueError if it is not JSON or has too many levels."""
        try:
            return json.loads(self.text())
        except RecursionError:
            raise ValueError("expected fewer levels") from None

    def text(self) -> str:
        """Return the body as text, raising ValueError if it is not UTF-8."""
        return self.body.decode("utf-8-sig")

    def members(self) -> dict[str, Any]:
        """Return the members of the JSON object in the body; none if it is something else."""
        try:
            document = self.json()
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


class HttpTransport:
    """Sends requests through one session and one rate limiter.

    ``busy`` decides which statuses are retried; ``provider`` names the host in messages.
    """

    def __init__(
        self,
        provider: str,
        *,
        session: requests.Session | None,
        clock: Clock,
        time_left: TimeLeft | None,
        user_agent: str,
        busy: Callable[[int], bool],
        connections: int = 4,
        headroom: int = 0,
    ) -> None:
        self.provider = provider
        self.rate_limiter = RateLimiter(provider, clock, time_left=time_left, headroom=headroom)
        self._session = session or new_session(connections)
        self._clock = clock
        self._user_agent = user_agent
        self._busy = busy
        self._concurrency_limiter = ConcurrencyLimiter(connections)

    def close(self) -> None:
        """Close the idle connections of the session."""
        self._session.close()

    def send(self, request: ProviderRequest) -> ProviderResponse:
        """Return the first response that is not "busy", raising ProviderBusyError if the time is too short."""
        response, body = self._send_with_retries(request, stream=False)
        return ProviderResponse(response.status_code, _lower_names(response.headers), body or b"")

    @contextmanager
    def stream(self, request: ProviderRequest) -> Iterator[tuple[ProviderResponse, Iterator[bytes] | None]]:
        """Yield the first response that is not "busy" and, for a 200, its body as it arrives.

        Any other body is read, up to ``request.max_bytes``. If the connection breaks, the body's iterator raises one of
        ``CONNECTION_ERRORS``.
        """
        response, body = self._send_with_retries(request, stream=True)
        try:
            head = ProviderResponse(response.status_code, _lower_names(response.headers), body or b"")
            yield head, (_chunks(response) if body is None else None)
        finally:
            response.close()

    def _send_with_retries(self, request: ProviderRequest, *, stream: bool) -> tuple[requests.Response, bytes | None]:
        proxy_for(request.url)
        attempt, unknown_host, start = 0, 0, self._clock.now()
        while True:
            self.rate_limiter.wait_for_turn(request.bucket)
            headers: Mapping[str, str] = {}
            with self._concurrency_limiter:
                outcome = self._attempt(request, stream=stream)
            if isinstance(outcome, _Failure):
                failure = outcome
            else:
                response, body = outcome
                headers = response.headers
                self.rate_limiter.read_headers(request.bucket, headers)
                if not self._busy(response.status_code):
                    return response, body
                response.close()
                throttled = response.status_code == 429
                if throttled:
                    self._concurrency_limiter.lower_limit()
                failure = _Failure(f"returned {response.status_code}", had_no_effect=throttled)
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
            if self._clock.now() - start + wait > request.max_retry_seconds:
                raise ProviderBusyError(
                    f"{self.provider} {failure.reason} at each of {attempt} attempts; the request is retried later",
                    retry_after=wait,
                )
            self.rate_limiter.hold(request.bucket, wait)

    def _attempt(self, request: ProviderRequest, *, stream: bool) -> tuple[requests.Response, bytes | None] | _Failure:
        form = request.form() if request.form else None
        try:
            response = self._session.request(
                request.method,
                request.url,
                params=list(request.params) or None,
                data=form,
                json=request.json,
                files=request.multipart,
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity", **request.headers},
                auth=_NoOtherCredentials(),
                allow_redirects=False,
                stream=True,
                timeout=(self._time_out(CONNECT_TIMEOUT_SECONDS), self._time_out(request.read_timeout_seconds)),
            )
            if stream and response.status_code == 200:
                return response, None
            return response, self._read(response, request.max_bytes)
        except UnicodeEncodeError:
            # For example half of a surrogate pair, which JSON can contain. The error itself contains the value.
            invalid_text = RequestRefusedError(
                f"{self.provider}: the request contains text that is not valid Unicode; correct the id, code or address"
            )
        except CONNECTION_ERRORS as error:
            # Only the type is used: the text of these errors contains the URL.
            return _failure(error)
        raise invalid_text

    def _read(self, response: requests.Response, max_bytes: int) -> bytes:
        body, end = bytearray(), self._clock.now() + self._time_out(MAX_RESPONSE_SECONDS)
        with response:
            for part in _chunks(response):
                body += part
                if len(body) > max_bytes:
                    raise WrongFormatError(
                        f"{self.provider}: expected a response of at most {max_bytes} bytes, found more"
                    )
                if self._clock.now() > end:
                    raise urllib3.exceptions.TimeoutError
        return bytes(body)

    def _time_out(self, seconds: float) -> float:
        left = self.rate_limiter.seconds_left()
        return seconds if left is None else max(0.1, min(seconds, left))

    def check_time(self) -> None:
        """Raise OutOfTimeError if the invocation ends too soon to read more."""
        left = self.rate_limiter.seconds_left()
        if left is not None and left <= 0:
            raise OutOfTimeError(
                f"the invocation ends before {self.provider} has sent the complete file; a later invocation fetches it"
                " again"
            )


def check_connection(provider: str, url: str, session: requests.Session) -> None:
    """Send one request without credentials, and return if there is any response.

    A response shows that the host name resolves and that the certificate is trusted. Raises ConfigurationError if it
    does not resolve or is not trusted, and ProviderBusyError if the host does not respond.
    """
    try:
        with session.get(
            url,
            auth=_NoOtherCredentials(),
            allow_redirects=False,
            stream=True,
            timeout=(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS),
        ):
            return
    except CONNECTION_ERRORS as error:
        failure = _failure(error)
    message = f"{provider} {failure.reason}"
    if failure.permanent or failure.unknown_host:
        raise ConfigurationError(message)
    raise ProviderBusyError(f"{message}; check the host name, the port, and the firewall or proxy of this network")


@dataclass(frozen=True)
class _Failure:
    """The reason of a failed attempt, without a URL."""

    reason: str
    had_no_effect: bool
    unknown_host: bool = False
    permanent: bool = False


class _NoOtherCredentials(AuthBase):
    """Prevents requests from using the credentials in ``~/.netrc``."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Session(requests.Session):
    """A session that ignores redirects.

    Without this, requests prepares the next request even with ``allow_redirects=False``: it reads the whole body into
    memory and raises ValueError if the Location header is not a URL.
    """

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return None for every response."""
        del resp
        return None


def new_session(connections: int) -> requests.Session:
    """Return a session that stores no cookies and neither retries nor follows redirects."""
    # At DEBUG urllib3 logs each URL, which may contain an e-mail address or a signature.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
    session = _Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=connections, max_retries=0))
    return session


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives, raising the errors of urllib3, also for a body that ends early."""
    while part := response.raw.read1(CHUNK_BYTES, decode_content=True):
        yield part


def _lower_names(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers with names in lower case, which the rate limiter and the clients use."""
    return {name.lower(): value for name, value in headers.items()}


def segment(value: str) -> str:
    """Quote an id as a segment of a path, raising RequestRefusedError if no path can contain it."""
    if not value or value in {".", ".."}:
        raise RequestRefusedError("expected an id, found an empty string or dots only; correct the id")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        pass
    raise RequestRefusedError("expected an id, found text that is not valid Unicode; correct the id")


def is_id(value: object) -> TypeGuard[str]:
    """Return whether a value is an id: a string of letters, digits, ``_`` and ``-``.

    Ids are written to logs, messages and keys of the archive, so no other text is accepted as an id.
    """
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value) is not None


def error_code(text: object) -> str | None:
    """Return an error code, or None if it does not look like one, so that no free text reaches a message."""
    return text if isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text) else None


def _failure(error: BaseException) -> _Failure:
    causes = list(_causes(error))
    kinds = {type(cause).__name__ for cause in causes}
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return _Failure(
            "has a certificate that is not trusted here; check the host name",
            had_no_effect=True,
            permanent=True,
        )
    alert = next((cause.reason for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if alert in CERTIFICATE_ALERTS:
        return _Failure(
            f"requires a client certificate or rejected the certificate in the secret ({alert}); issue a new"
            ' certificate and replace "client_certificate" in the secret',
            had_no_effect=True,
            permanent=True,
        )
    if "ProxyError" in kinds:
        failure = proxy_failure(causes)
        return _Failure(failure.reason, had_no_effect=True, permanent=failure.permanent)
    if kinds & {"InvalidURL", "MissingSchema", "InvalidSchema", "LocationParseError", "InvalidHeader"}:
        return _Failure(
            "cannot be called: its URL or a header value is not valid; check the domain and the secret",
            had_no_effect=True,
            permanent=True,
        )
    if "NameResolutionError" in kinds:
        return _Failure(
            "has a host name that does not resolve; check its spelling",
            had_no_effect=True,
            unknown_host=True,
        )
    timed_out = kinds & {"ConnectTimeout", "ConnectTimeoutError"}
    reason = f"did not return a response ({', '.join(dict.fromkeys(type(cause).__name__ for cause in causes))})"
    if timed_out:
        reason = (
            "does not accept connections (time-out); check the domain and, for functions in a VPC, the route to the"
            " internet and the outbound rules of the security groups"
        )
    return _Failure(reason, had_no_effect=bool(timed_out) or "NewConnectionError" in kinds)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[object] = []
    waiting: list[object] = [error]
    while waiting and len(seen) < 20:
        cause = waiting.pop()
        if not isinstance(cause, BaseException) or any(cause is other for other in seen):
            continue
        seen.append(cause)
        yield cause
        waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
