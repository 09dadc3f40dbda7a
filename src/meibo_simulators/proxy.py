"""A simulated company proxy on loopback: an HTTP proxy that accepts CONNECT requests only."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

_CONNECT_SECONDS = 10
_CHUNK_BYTES = 64 * 1024


class SimulatedProxy(ThreadingTCPServer):
    """A proxy; a context manager that serves until the end of the context.

    ``credentials`` are the user and password that it requires; ``denied_hosts`` are rejected with 403. ``connections``
    counts the connections by host and port.
    """

    daemon_threads = True

    def __init__(self, *, credentials: tuple[str, str] | None = None, denied_hosts: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        encoded = base64.b64encode(":".join(credentials or ()).encode()).decode()
        self.authorization = f"Basic {encoded}" if credentials else None
        self.denied_hosts = denied_hosts
        self.connections: Counter[str] = Counter()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """The URL of the proxy, without credentials."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> SimulatedProxy:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: SimulatedProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_CONNECT(self) -> None:  # the name in the base class
        """Connect to the host of the request, and forward all bytes until both sides close."""
        authorization = self.server.authorization
        host, _, port = self.path.rpartition(":")
        if authorization not in (None, self.headers.get("Proxy-Authorization")):
            self.send_error(407)
            return
        if host in self.server.denied_hosts:
            self.send_error(403)
            return
        try:
            upstream = socket.create_connection((host, int(port)), _CONNECT_SECONDS)
        except (OSError, ValueError):
            self.send_error(502)
            return
        self.server.connections[self.path] += 1
        self.send_response_only(200, "Connection established")
        self.end_headers()
        self.close_connection = True
        with upstream:
            upstream.settimeout(None)
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            downloads = threading.Thread(target=_forward, args=(upstream, self.connection), daemon=True)
            downloads.start()
            _forward(self.connection, upstream)
            downloads.join()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def _forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
