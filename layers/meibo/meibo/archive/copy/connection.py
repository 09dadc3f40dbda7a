"""HTTP connections that receive into a buffer and can be interrupted by another thread."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import meibo
from meibo.errors import ConfigurationError
from meibo.http.failures import proxy_failure
from meibo.http.proxy import proxy_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meibo.archive.copy.cancellation import CancelToken
    from meibo.archive.copy.model import CopyOptions

SEND_BYTES = 256 * 1024
"""Size of one send. A send must finish within ``stall_seconds``, so it must be much smaller than a part."""

BROKEN = (OSError, HTTPException)
"""Errors of a broken connection; TLS errors and timeouts are OSErrors.

Only their class names are reported, because their messages may contain a signed URL.
"""


def trust() -> ssl.SSLContext:
    """Return an SSL context that trusts the platform's certificates, or those in SSL_CERT_FILE and SSL_CERT_DIR."""
    return _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _trust(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    # Cached per value of these variables: loading the certificates takes 20 ms and 2 MiB.
    return ssl.create_default_context()


class Connection:
    """A keep-alive HTTP connection of one worker. Another thread can interrupt it to cancel the copy.

    http.client receives directly into the buffer of a part. urllib3 returns bytes that must then be copied, which takes
    1.06 CPU seconds per GiB instead of 0.84. urllib3 also hides the sockets. They must be shut down on cancellation, so
    that no thread waits for a stalled server. Redirects are not followed.
    """

    def __init__(self, tls: ssl.SSLContext | None, options: CopyOptions, token: CancelToken) -> None:
        self._tls = tls or trust()
        self._options = options
        self._token = token
        self._http = HTTPConnection("")
        self._origin = ""
        self._is_proxied = False
        self._response: HTTPResponse | None = None
        token.on_cancel(self._interrupt)

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: memoryview | None = None
    ) -> HTTPResponse:
        """Send a request and return the response, whose body is not received yet.

        If the response is not read completely, the next request opens a new connection.
        """
        parts = urlsplit(url)
        if self._response is not None and not self._response.isclosed():
            self.close()
        self._connect(f"{parts.scheme}://{parts.netloc}", parts.netloc)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        headers = {"User-Agent": f"meibo/{meibo.__version__}", **headers}
        if body is None:
            self._http.request(method, target, headers=headers)
        else:
            pieces = (body[start : start + SEND_BYTES] for start in range(0, len(body), SEND_BYTES))
            # A server that rejects a request stops receiving it, but its response can still be read.
            with suppress(BrokenPipeError, ConnectionResetError):
                self._http.request(method, target, pieces, {**headers, "Content-Length": str(len(body))})
        self._response = self._http.getresponse()
        return self._response

    def _connect(self, origin: str, host: str) -> None:
        """Connect to the origin of a URL, directly or through the proxy of the environment."""
        if origin != self._origin:
            self.close()
            self._origin, self._is_proxied = origin, False
            if not origin.startswith("https:"):
                self._http = HTTPConnection(host)
            elif proxy := proxy_for(origin):
                self._http = HTTPSConnection(proxy.host, proxy.port, context=self._tls)
                self._http.set_tunnel(host, headers=proxy.headers)
                self._is_proxied = True
            else:
                self._http = HTTPSConnection(host, context=self._tls)
        if self._http.sock is None:
            self._http.timeout = self._options.connect_seconds
            try:
                self._http.connect()
            except OSError as error:
                failure = proxy_failure([error])
                if self._is_proxied and failure.permanent:
                    raise ConfigurationError(f"{urlsplit(origin).hostname} {failure.reason}") from None
                raise
            self._http.sock.settimeout(self._options.stall_seconds)  # type: ignore[attr-defined]  # set by connect
        self._token.check()

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        self._response = None
        self._http.close()

    def _interrupt(self) -> None:
        sock = self._http.sock
        if sock is not None:
            with suppress(OSError):
                # SSLSocket.shutdown removes the TLS state first, so the other thread would send plain text.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def retry_after(value: str | None) -> float:
    """Return the seconds of a Retry-After header, or 0 if it is absent, a date or malformed."""
    # Not isdigit() alone: it also accepts digits such as "²", which float() rejects.
    return float(value) if value and value.isascii() and value.isdigit() else 0.0
