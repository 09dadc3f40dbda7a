"""One kept-alive HTTP connection of a lane, read into and written from the lane's own memory."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import urllib3.exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from meibo.archive.copy.tls import TlsConnection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from urllib3 import BaseHTTPResponse

    from meibo.archive.copy.model import CopyOptions

SEND_BYTES = 256 * 1024
"""What one call sends: it may take as long as a stall, so it must not be a whole part."""

CHUNKED_BYTES = 64 * 1024
"""What a break may cost of a body of unknown length, whose bytes are counted a call later."""

BROKEN = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError)
"""What a connection raises when it breaks; TLS errors and timeouts are OSErrors."""

DEFAULT_PORTS = {"https": 443, "http": 80}


def trust() -> ssl.SSLContext:
    """Return the platform's trust; SSL_CERT_FILE and SSL_CERT_DIR are honoured, also when they change."""
    return _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _trust(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    # It takes 20 ms and a MiB or two to load, so it is kept for the variables that it was loaded by.
    return ssl.create_default_context()


class Body:
    """The body of a response, read straight from the TLS layer into the lane's memory."""

    def __init__(self, response: BaseHTTPResponse, sock: socket.socket | None) -> None:
        self._response = response  # it closes the original when it is collected
        self.status = response.status
        self.headers = response.headers
        original: http.client.HTTPResponse = response._original_response  # type: ignore[attr-defined]
        self._original = original
        self.length: int | None = original.length
        self.chunked = original.chunked
        self.filled = 0
        self._receive = None if sock is None else sock.recv_into
        self._buffered = True

    def readinto(self, view: memoryview) -> int:
        """Fill the view; fewer bytes only at the end, also where that is too early.

        ``filled`` tells what arrived, also when this raises: a break loses no byte that was received.
        """
        self.filled = 0
        if self.length is None:
            # Chunks are http.client's to undo; it forgets what it read when it raises, so it reads little.
            while self.filled < len(view):
                count = self._original.readinto(view[self.filled : self.filled + CHUNKED_BYTES])
                if not count:
                    break
                self.filled += count
            return self.filled
        size = min(len(view), self.length)
        filled = 0
        try:
            while filled < size:
                if self._buffered:
                    count = self._original.fp.readinto1(view[filled:size])
                    # What came with the headers is used up when less than asked for is there.
                    self._buffered = self._receive is None or count == size - filled
                else:
                    count = self._receive(view[filled:size])  # type: ignore[misc]  # set where it is not buffered
                if not count:
                    break
                filled += count
        finally:
            self.filled = filled
            self.length -= filled
        if self.length == 0:
            self._original.close()  # the connection may be used again
        return filled

    def text(self, limit: int = 65536) -> bytes:
        """Read a short body, such as an error's."""
        buffer = bytearray(limit)
        view = memoryview(buffer)
        return bytes(buffer[: self.readinto(view)])

    @property
    def ended(self) -> bool:
        """Whether nothing is left, so that the connection can be used again."""
        return self._original.isclosed()


class Connection:
    """Sends requests one after the other, connecting when it has to; another thread may interrupt it.

    ``wire_bytes`` is what it receives at once where a file comes in. Without it Python's own TLS is used, which sends
    in large pieces as well, and with less memory.
    """

    def __init__(self, options: CopyOptions, tls: ssl.SSLContext, *, wire_bytes: int | None = None) -> None:
        self._wire_bytes = wire_bytes
        self._options = options
        self._tls = tls
        self._origin: tuple[str, str, int] | None = None
        self._connection: HTTPConnection | None = None
        self._last: Body | None = None
        self._interrupted = False

    def send(self, method: str, url: str, headers: Mapping[str, str], body: memoryview | None = None) -> Body:
        """Send a request and return its response with the body unread."""
        parts = urlsplit(url)
        origin = (parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0))
        if self._last is not None and not self._last.ended:
            self.close()
        if origin != self._origin:
            self.close()
            self._connection, self._origin = self._make(*origin), origin
        connection = self._connection
        assert connection is not None  # noqa: S101  (told to mypy)
        if self._interrupted:
            raise ConnectionAbortedError("interrupted")
        if connection.sock is None:
            connection.timeout = self._options.connect_seconds
            connection.connect()
            connection.timeout = self._options.stall_seconds
        if self._interrupted:
            raise ConnectionAbortedError("interrupted")
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        length = {} if body is None else {"Content-Length": str(len(body))}
        try:
            connection.request(
                method,
                target,
                body=None if body is None else slices(body),
                headers={**headers, **length},
                preload_content=False,
                decode_content=False,
            )
        except (BrokenPipeError, ConnectionResetError):
            if body is None:
                raise
            # A server that refuses early closes its reading side; its answer tells why.
        self._last = Body(connection.getresponse(), connection.sock)
        return self._last

    def _make(self, scheme: str, host: str, port: int) -> HTTPConnection:
        seconds = self._options.stall_seconds
        if scheme != "https":
            return HTTPConnection(host, port, timeout=seconds)
        if self._wire_bytes is None:
            return HTTPSConnection(host, port, timeout=seconds, ssl_context=self._tls)
        return TlsConnection(host, port, self._tls, timeout=seconds, wire_bytes=self._wire_bytes)

    def interrupt(self) -> None:
        """Make the thread that sits in a call of this connection fail at once."""
        self._interrupted = True
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with suppress(OSError):
                if isinstance(sock, ssl.SSLSocket):
                    # Its own shutdown forgets the TLS first, and the other thread would go on in the clear.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                else:
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Drop the connection; the next request makes a new one."""
        self._last = None
        if self._connection is not None:
            self._connection.close()


def slices(body: memoryview) -> Iterable[Any]:
    """Cut a body into what one send call takes."""
    return (body[at : at + SEND_BYTES] for at in range(0, len(body), SEND_BYTES))


def told(error: BaseException) -> str:
    """Name an error without its text, which may hold a signed URL."""
    return type(error).__name__


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, or None if it is absent, a date or malformed."""
    value = headers.get("Retry-After", "")
    # Not isdigit() alone: it also accepts digits such as "²", which float() rejects.
    return float(value) if value.isascii() and value.isdigit() else None
