"""Faults in the responses of a simulator."""

from __future__ import annotations

import fnmatch
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Returns the response to a request. The parameter is a function that processes it and returns the normal response.
Action = Callable[[Callable[[], Response]], Response]
Match = str | Callable[["WSGIEnvironment"], bool]

HTML_ERROR = "<!DOCTYPE html><html><head><title>Error</title></head><body><h1>{reason}</h1></body></html>"


class RawResponse(Response):
    """A response whose headers are sent unchanged, without the defaults and the checks of werkzeug."""

    default_mimetype = None

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:  # noqa: ARG002 - the signature of werkzeug
        """Return the headers, and add Content-Length unless the body is generated."""
        headers = Headers(self.headers)
        if self.is_sequence:
            headers.setdefault("Content-Length", str(self.calculate_content_length()))
        return headers


class ConnectionBrokenError(Exception):
    """Raised to end the connection immediately, either before a response or while its body is sent.

    If ``reset`` is set, the server sends a TCP reset. Otherwise, it closes the connection normally, as a proxy does
    after a timeout.
    """

    def __init__(self, *, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


@dataclass
class Fault:
    """A rule for matching requests.

    The first ``after`` requests are served normally. The action applies to the next ``times`` requests, or to all of
    them if ``times`` is None.
    """

    match: Match
    action: Action = field(repr=False)
    times: int | None = 1
    after: int = 0
    hits: int = 0

    def matches(self, environ: WSGIEnvironment) -> bool:
        """Return whether the request matches a pattern, such as ``"GET /api/v2/jobs/*"``, or a function of environ."""
        if callable(self.match):
            return self.match(environ)
        method, _, path = self.match.partition(" ")
        return fnmatch.fnmatchcase(environ["REQUEST_METHOD"], method) and fnmatch.fnmatchcase(
            environ["PATH_INFO"], path or "*"
        )


class Faults:
    """The faults of a simulator. The first fault that matches a request applies."""

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
        """Return the fault that applies to a request, or None. Update the counters of the matching faults."""
        with self._lock:
            for fault in self._faults:
                if fault.times == 0 or not fault.matches(environ):
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.hits += 1
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


# -- actions ------------------------------------------------------------------------------------------------


def respond(status: int, body: bytes | str = b"", headers: dict[str, str] | None = None) -> Action:
    """Send this response without processing the request."""
    return lambda _process: RawResponse(body, status, {"Content-Type": "text/plain", **(headers or {})})


def html(status: int = 502, text: str | None = None) -> Action:
    """Send the HTML error page of a gateway."""

    def action(_process: Callable[[], Response]) -> Response:
        response = RawResponse(status=status, mimetype="text/html")
        response.set_data(HTML_ERROR.format(reason=text or response.status.partition(" ")[2].title()))
        return response

    return action


def too_many_requests(*, retry_after: float | str | None = None, reset: float | None = None) -> Action:
    """Send Auth0's 429 response to an exceeded rate limit. ``reset``, in Unix time, adds the rate-limit headers."""
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
        headers |= {"x-ratelimit-limit": "50", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(reset))}
    return respond(429, json.dumps(body), headers)


def redirect(location: str, status: int = 302) -> Action:
    """Redirect the client to another location."""
    return respond(status, b"", {"Location": location})


def stream(
    chunks: Callable[[], Iterable[bytes]], headers: dict[str, str] | None = None, *, status: int = 200
) -> Action:
    """Send a generated body, which may be larger than the memory."""
    fields = {"Content-Type": "application/octet-stream", **(headers or {})}
    return lambda _process: RawResponse(chunks(), status, fields)


def endless(chunk: bytes = b"\0" * 65536, content_type: str = "application/octet-stream") -> Action:
    """Send an infinite body."""
    return stream(lambda: itertools.repeat(chunk), {"Content-Type": content_type})


def headers(extra: dict[str, str]) -> Action:
    """Add headers to the response, or replace existing headers."""

    def action(process: Callable[[], Response]) -> Response:
        response = process()
        response.headers.update(extra)
        return response

    return action


def reset(*, after_processing: bool = False) -> Action:
    """Reset the connection before the response. With ``after_processing``, the request is processed first."""

    def action(process: Callable[[], Response]) -> Response:
        if after_processing:
            process().close()
        raise ConnectionBrokenError(reset=True)

    return action


def _change_chunks(change: Callable[[Iterator[bytes]], Iterator[bytes]]) -> Action:
    """Send the normal response with changed chunks and the original Content-Length."""

    def action(process: Callable[[], Response]) -> Response:
        response = process()
        response.response = change(response.iter_encoded())
        return response

    return action


def break_body(after_bytes: int, *, reset: bool = True) -> Action:
    """Declare the full Content-Length, send ``after_bytes`` of the body, then reset or close the connection."""

    def cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
        remaining = after_bytes
        for chunk in chunks:
            if len(chunk) >= remaining:
                yield chunk[:remaining]
                raise ConnectionBrokenError(reset=reset)
            remaining -= len(chunk)
            yield chunk

    return _change_chunks(cut)


def stall(seconds: float, *, after_bytes: int, stop: threading.Event | None = None) -> Action:
    """Pause for ``seconds`` after the first ``after_bytes`` (1 or more) of the body. ``stop`` ends the pause."""
    wait = stop.wait if stop is not None else time.sleep

    def pause(chunks: Iterator[bytes]) -> Iterator[bytes]:
        remaining = after_bytes
        for chunk in chunks:
            if 0 < remaining <= len(chunk):
                yield chunk[:remaining]
                wait(seconds)
                yield chunk[remaining:]
            else:
                yield chunk
            remaining -= len(chunk)

    return _change_chunks(pause)


def drip(bytes_per_second: float, *, stop: threading.Event) -> Action:
    """Send the body byte by byte, with a pause after each byte. ``stop`` ends the pauses."""

    def slow(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            for position in range(len(chunk)):
                yield chunk[position : position + 1]
                stop.wait(1 / bytes_per_second)

    return _change_chunks(slow)


def change_body(change: Callable[[bytes], bytes]) -> Action:
    """Send the normal response with a changed body and a matching Content-Length."""

    def action(process: Callable[[], Response]) -> Response:
        response = process()
        response.set_data(change(response.get_data()))
        return response

    return action


def truncate(size: int) -> Action:
    """Send only the first ``size`` bytes of the body, with a matching Content-Length."""
    return change_body(lambda body: body[:size])


def corrupt(offset: int) -> Action:
    """Flip one bit of the byte at an offset. A negative offset counts from the end."""

    def change(body: bytes) -> bytes:
        changed = bytearray(body)
        changed[offset] ^= 0x10
        return bytes(changed)

    return change_body(change)
