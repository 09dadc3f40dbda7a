"""An HTTP proxy on loopback that accepts only CONNECT requests."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import quote

_CONNECT_SECONDS = 10
_CHUNK_BYTES = 64 * 1024


class SimulatedProxy(ThreadingTCPServer):
    """A proxy that serves while its context is active.

    It requires the user and password in ``credentials``, and rejects connections to ``denied_hosts`` with 403.
    ``connections`` counts the established connections by host and port.
    """

    daemon_threads = True

    def __init__(self, *, credentials: tuple[str, str] | None = None, denied_hosts: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{self.address}"
        self.authorization: str | None = None
        if credentials:
            user, password = credentials
            self.url = f"http://{quote(user)}:{quote(password)}@{self.address}"
            self.authorization = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
        self.denied_hosts = denied_hosts
        self.connections: Counter[str] = Counter()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

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
        """Connect to the requested host, and forward data in both directions until both sides close."""
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
