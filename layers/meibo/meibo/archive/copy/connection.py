"""HTTP connections that receive into a part's buffer and that another thread can interrupt."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import meibo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meibo.archive.copy.cancellation import CancelToken
    from meibo.archive.copy.model import CopyOptions

SEND_BYTES = 256 * 1024
"""Bytes of one send. A send fails as a whole after ``stall_seconds``, so it must be much smaller than a part."""

MAX_ERROR_BYTES = 64 * 1024

BROKEN = (OSError, HTTPException)
"""Errors of a broken connection. TLS errors and timeouts are OSErrors."""


def trust() -> ssl.SSLContext:
    """Return a context with the platform's certificates, or with those of SSL_CERT_FILE and SSL_CERT_DIR."""
    return _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _trust(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    # Cached for the values of the variables, because loading the certificates takes 20 ms and 2 MiB.
    return ssl.create_default_context()


class Response:
    """A response whose body is received into memory of the caller."""

    def __init__(self, raw: HTTPResponse, connection: HTTPConnection, pool: ConnectionPool) -> None:
        self._raw = raw
        self._connection = connection
        self._pool = pool
        self.status = raw.status
        self.headers = raw.headers

    @property
    def remaining(self) -> int | None:
        """Bytes of the body that were not received yet; None if the body is chunked."""
        return self._raw.length

    @property
    def is_chunked(self) -> bool:
        """True if the body has no length but an end."""
        return self._raw.chunked

    @property
    def is_complete(self) -> bool:
        """True if the whole body was received."""
        return self._raw.isclosed() and not self._raw.length

    def readinto(self, view: memoryview) -> int:
        """Fill the view; return fewer bytes at the end of the body, even if it ends too early."""
        return self._raw.readinto(view)

    def read(self) -> bytes:
        """Return the beginning of a short body, such as that of an error, and close the response."""
        body = self._raw.read(MAX_ERROR_BYTES)
        self.close()
        return body

    def close(self) -> None:
        """Return the connection to the pool, or close it if the body was not received completely."""
        self._pool.release(self._connection, reuse=self.is_complete)


class ConnectionPool:
    """Kept-alive connections to one side of a copy, shared by its workers.

    urllib3's pool is not used because its responses return bytes, which must then be copied into the part's buffer
    (1.06 CPU seconds per GiB received instead of 0.84), and because it does not expose the sockets of requests in
    progress, which a cancelled copy shuts down so that no thread waits for a stalled server.
    """

    def __init__(self, tls: ssl.SSLContext, options: CopyOptions, token: CancelToken) -> None:
        self._tls = tls
        self._options = options
        self._token = token
        self._idle: list[HTTPConnection] = []
        self._open: set[HTTPConnection] = set()
        token.on_cancel(self._interrupt)

    def request(self, method: str, url: str, headers: Mapping[str, str], body: memoryview | None = None) -> Response:
        """Send a request and return its response, whose body is not received yet. Redirects are not followed."""
        parts = urlsplit(url)
        connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
        try:
            self._send(
                connection, method, f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", headers, body
            )
            return Response(connection.getresponse(), connection, self)
        except BaseException:
            self.release(connection, reuse=False)
            raise

    def _connection(self, scheme: str, host: str, port: int | None) -> HTTPConnection:
        """Return an idle connection to the host, or a new one."""
        kind: type[HTTPConnection] = HTTPSConnection if scheme == "https" else HTTPConnection
        tls: Any = {"context": self._tls} if scheme == "https" else {}
        connection = kind(host, port, timeout=self._options.connect_seconds, **tls)
        with self._token.changed:
            for idle in reversed(self._idle):
                if (type(idle), idle.host, idle.port) == (kind, connection.host, connection.port):
                    self._idle.remove(idle)
                    return idle
            self._open.add(connection)
        return connection

    def _send(
        self,
        connection: HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: memoryview | None,
    ) -> None:
        if connection.sock is None:
            connection.connect()
            connection.sock.settimeout(self._options.stall_seconds)  # type: ignore[attr-defined]  # connect sets it
        self._token.check()
        headers = {"User-Agent": f"meibo/{meibo.__version__}", **headers}
        if body is None:
            connection.request(method, target, headers=headers)
            return
        pieces = (body[start : start + SEND_BYTES] for start in range(0, len(body), SEND_BYTES))
        # A server that rejects a request early stops receiving, but its response can still be read.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, target, body=pieces, headers={**headers, "Content-Length": str(len(body))})

    def release(self, connection: HTTPConnection, *, reuse: bool) -> None:
        """Keep a connection for the next request, or close it."""
        if reuse and connection.sock is not None:
            self._idle.append(connection)
            return
        with self._token.changed:
            self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close all connections."""
        with self._token.changed:
            connections, self._open, self._idle = self._open, set(), []
        for connection in connections:
            connection.close()

    def _interrupt(self) -> None:
        """Make threads that wait for a connection fail at once."""
        with self._token.changed:
            sockets = [connection.sock for connection in self._open]
        for sock in sockets:
            if sock is not None:
                with suppress(OSError):
                    # SSLSocket.shutdown removes the TLS state first, so the other thread would send plain text.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


def error_name(error: BaseException) -> str:
    """Return the class name of an error whose message may contain a signed URL."""
    return type(error).__name__


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, or None if it is absent, a date or malformed."""
    # Not isdigit() alone: it also accepts digits such as "²", which float() rejects.
    return float(value) if value and value.isascii() and value.isdigit() else None
