"""Faults that a test or a run can inject into a simulator's responses, and the record of its requests."""

from __future__ import annotations

import fnmatch
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.client import responses
from typing import TYPE_CHECKING, Any

from meibo_simulators.clock import SYSTEM_CLOCK, Clock
from meibo_simulators.server import ConnectionBrokenError

if TYPE_CHECKING:
    from collections import deque

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Headers = list[tuple[str, str]]
#: WSGI middleware between the server and the application: it responds itself or changes the response.
Action = Callable[["WSGIEnvironment", "StartResponse", "WSGIApplication"], Iterable[bytes]]
Match = str | Callable[["WSGIEnvironment"], bool]

HTML_ERROR = "<!DOCTYPE html><html><head><title>Error</title></head><body><h1>{reason}</h1></body></html>"


@dataclass
class Fault:
    """A rule: the requests that it matches, how many of them are served normally first, and how many then fail."""

    match: Match
    action: Action = field(repr=False)
    times: int | None = 1
    after: int = 0
    hits: int = 0

    def meets(self, environ: WSGIEnvironment) -> bool:
        """Return whether the request matches: a pattern such as ``"GET /api/v2/jobs/*"``, or a function of environ."""
        if callable(self.match):
            return self.match(environ)
        method, _, path = self.match.partition(" ")
        return fnmatch.fnmatchcase(environ["REQUEST_METHOD"], method) and fnmatch.fnmatchcase(
            environ["PATH_INFO"], path or "*"
        )


class Faults:
    """The faults of one simulator; the first match applies."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, match: Match, action: Action, *, times: int | None = 1, after: int = 0) -> Fault:
        """Apply the action to the next ``times`` matching requests (None: all), after skipping ``after`` of them."""
        fault = Fault(match, action, times, after)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Remove every fault."""
        with self._lock:
            self._faults.clear()

    def take(self, environ: WSGIEnvironment) -> Fault | None:
        """Return the fault for this request and decrement its counter, or return None."""
        with self._lock:
            for fault in self._faults:
                if fault.times == 0 or not fault.meets(environ):
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.hits += 1
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


@dataclass(frozen=True)
class Request:
    """The record of a request, without query, body or credentials. Status 0: no response was started."""

    method: str
    path: str
    status: int
    time: float
    range: str | None = None
    authorized: bool = False


class Instrumented:
    """Wrap an application: record each request and apply the faults.

    ``hook`` is for tests that need more than the record contains; it is called with environ before the response.
    """

    def __init__(
        self, app: WSGIApplication, faults: Faults, requests: deque[Request], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._app = app
        self._faults = faults
        self._requests = requests
        self.clock = clock
        self.hook: Callable[[WSGIEnvironment], None] | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.hook is not None:
            self.hook(environ)
        recorded = False

        def record(status: int) -> None:
            nonlocal recorded
            if not recorded:
                recorded = True
                request = Request(
                    environ["REQUEST_METHOD"],
                    environ["PATH_INFO"],
                    status,
                    self.clock(),
                    environ.get("HTTP_RANGE"),
                    "HTTP_AUTHORIZATION" in environ,
                )
                self._requests.append(request)

        def recording(status: str, headers: Headers, exc_info: Any = None) -> Any:
            record(int(status.split(" ", 1)[0]))
            if not any(name.lower() == "date" for name, _ in headers):
                # Clients compare rate limits and expiry times with this header, so it uses the same clock.
                headers = [*headers, ("Date", formatdate(self.clock(), usegmt=True))]
            return start_response(status, headers)

        fault = self._faults.take(environ)
        try:
            if fault is None:
                return self._app(environ, recording)
            return fault.action(environ, recording, self._app)
        except ConnectionBrokenError:
            record(0)
            raise


# -- actions ------------------------------------------------------------------------------------------------


def _reason(status: int) -> str:
    # The 520 of cybozu.com is not a registered status code.
    return responses.get(status, "Unknown Error")


def _status_line(status: int) -> str:
    return f"{status} {_reason(status)}"


def respond(status: int, body: bytes | str = b"", headers: dict[str, str] | None = None) -> Action:
    """Send this response without calling the application."""
    content = body.encode() if isinstance(body, str) else body

    def action(environ: WSGIEnvironment, start_response: StartResponse, app: WSGIApplication) -> list[bytes]:
        fields = {"Content-Type": "text/plain", "Content-Length": str(len(content)), **(headers or {})}
        start_response(_status_line(status), list(fields.items()))
        return [content]

    return action


def html(status: int = 502, text: str | None = None) -> Action:
    """Send the HTML error page of a gateway."""
    page = HTML_ERROR.format(reason=text or _reason(status))
    return respond(status, page, {"Content-Type": "text/html; charset=utf-8"})


def too_many_requests(
    *, retry_after: float | str | None = None, reset: float | None = None, limit: int = 50, remaining: int = 0
) -> Action:
    """Send Auth0's 429 of an empty bucket; ``reset`` (Unix seconds) adds the rate-limit headers."""
    body = {
        "statusCode": 429,
        "error": "Too Many Requests",
        "message": "Global limit has been reached",
        "errorCode": "too_many_requests",
    }
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    if reset is not None:
        headers |= {
            "x-ratelimit-limit": str(limit),
            "x-ratelimit-remaining": str(remaining),
            "x-ratelimit-reset": str(int(reset)),
        }
    return respond(429, json.dumps(body), headers)


def redirect(location: str, status: int = 302) -> Action:
    """Redirect the client to another location."""
    return respond(status, b"", {"Location": location})


def reset(*, after_processing: bool = False) -> Action:
    """Reset the connection before any response; with ``after_processing``, the request takes effect first."""

    def action(environ: WSGIEnvironment, start_response: StartResponse, app: WSGIApplication) -> list[bytes]:
        if after_processing:
            body = app(environ, lambda *_: lambda _data: None)
            close = getattr(body, "close", None)
            if close is not None:
                close()
        raise ConnectionBrokenError(reset=True)

    return action


def break_body(after_bytes: int, *, reset: bool = True) -> Action:
    """Declare the full Content-Length, send ``after_bytes`` of the body, then reset or close the connection."""

    def action(environ: WSGIEnvironment, start_response: StartResponse, app: WSGIApplication) -> Iterator[bytes]:
        left = after_bytes
        for chunk in app(environ, start_response):
            if len(chunk) >= left:
                yield chunk[:left]
                raise ConnectionBrokenError(reset=reset)
            left -= len(chunk)
            yield chunk

    return action


def stall(seconds: float, *, after_bytes: int = 0, stop: threading.Event | None = None) -> Action:
    """Pause for ``seconds`` after ``after_bytes`` of the body (0: before the headers), then send the rest."""
    wait = stop.wait if stop is not None else time.sleep

    def action(environ: WSGIEnvironment, start_response: StartResponse, app: WSGIApplication) -> Iterator[bytes]:
        if not after_bytes:
            wait(seconds)
        left = after_bytes
        for chunk in app(environ, start_response):
            if 0 < left <= len(chunk):
                yield chunk[:left]
                wait(seconds)
                yield chunk[left:]
            else:
                yield chunk
            left -= len(chunk)

    return action


def drip(bytes_per_second: float, *, stop: threading.Event | None = None) -> Action:
    """Send the body one byte at a time."""
    wait = stop.wait if stop is not None else time.sleep

    def action(environ: WSGIEnvironment, start_response: StartResponse, app: WSGIApplication) -> Iterator[bytes]:
        for chunk in app(environ, start_response):
            for position in range(len(chunk)):
                yield chunk[position : position + 1]
                wait(1 / bytes_per_second)

    return action


def change_body(change: Callable[[bytes], bytes]) -> Action:
    """Send the application's response with a changed body and the matching Content-Length."""

    def action(environ: WSGIEnvironment, start_response: StartResponse, app: WSGIApplication) -> list[bytes]:
        response: list[tuple[str, Headers]] = []

        def keep(status: str, headers: Headers, exc_info: Any = None) -> Any:
            response[:] = [(status, headers)]

        body = change(b"".join(app(environ, keep)))
        status, headers = response[0]
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*kept, ("Content-Length", str(len(body)))])
        return [body]

    return action


def truncate(size: int) -> Action:
    """Serve only the first ``size`` bytes of the file, with the matching Content-Length."""
    return change_body(lambda body: body[:size])


def corrupt(offset: int) -> Action:
    """Flip one bit of the file; a negative offset counts from its end."""

    def change(body: bytes) -> bytes:
        changed = bytearray(body)
        changed[offset] ^= 0x10
        return bytes(changed)

    return change_body(change)


def empty() -> Action:
    """Serve an empty file."""
    return change_body(lambda _body: b"")


def headers(extra: dict[str, str]) -> Action:
    """Add headers to the response, or replace existing ones."""

    def action(environ: WSGIEnvironment, start_response: StartResponse, app: WSGIApplication) -> Iterable[bytes]:
        replaced = {name.lower() for name in extra}

        def changed(status: str, given: Headers, exc_info: Any = None) -> Any:
            kept = [(name, value) for name, value in given if name.lower() not in replaced]
            return start_response(status, [*kept, *extra.items()])

        return app(environ, changed)

    return action


def stream(
    chunks: Callable[[], Iterable[bytes]], headers: dict[str, str] | None = None, *, status: int = 200
) -> Action:
    """Send a body that is generated while it is sent, for bodies that do not fit in memory."""

    def action(environ: WSGIEnvironment, start_response: StartResponse, app: WSGIApplication) -> Iterator[bytes]:
        start_response(
            _status_line(status), list({"Content-Type": "application/octet-stream", **(headers or {})}.items())
        )
        yield from chunks()

    return action


def endless(chunk: bytes = b"\0" * 65536, content_type: str = "application/octet-stream") -> Action:
    """Send 200 with an infinite body."""

    def action(environ: WSGIEnvironment, start_response: StartResponse, app: WSGIApplication) -> Iterator[bytes]:
        start_response(_status_line(200), [("Content-Type", content_type)])
        while True:
            yield chunk

    return action
