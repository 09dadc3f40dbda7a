"""Serve a WSGI application over HTTPS with keep-alive, and break connections on request.

werkzeug's development server closes every connection and waits 10 ms after each response. A benchmark with TLS on
two cores would then measure the server, not the client. Only its server loop and its environ are used.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING, Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

MAX_BODY = 4 << 20
IDLE_SECONDS = 75


class ConnectionBrokenError(Exception):
    """Raised by an application or its response body to end the connection immediately.

    ``reset`` sends a TCP reset; otherwise the connection is closed normally, as a proxy does after a timeout.
    """

    def __init__(self, *, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server_version = "simulator"

    def setup(self) -> None:
        context = self.server.ssl_context
        if context is None:
            raise RuntimeError("expected a server with a TLS context, got none: simulators serve HTTPS only")
        # The handshake runs in the connection's own thread, so that a stalled client does not block the others.
        self.request.settimeout(IDLE_SECONDS)
        self.request = context.wrap_socket(self.request, server_side=True)
        self._own_server.opened(self.request)
        super().setup()

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self._own_server.closed(self.request)
            self.request.close()

    @property
    def _own_server(self) -> _Server:
        if not isinstance(self.server, _Server):
            raise TypeError(f"expected a server of the simulators, got {type(self.server).__name__}")
        return self.server

    def run_wsgi(self) -> None:
        """Serve one request; keep the connection open unless the end of its body is unknown."""
        if self.headers.get("Expect", "").strip().lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = self.headers.get("Content-Length", "0")
        if not re.fullmatch(r"[0-9]{1,18}", length):
            self.send_error(400, "Bad Request", "Content-Length is not a number.")
            return
        environ = self._environ_with_body(int(length))
        response: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            response[:] = [(status, headers)]
            return None

        try:
            body = self.server.app(environ, start_response)
            try:
                self._send(body, response, environ["REQUEST_METHOD"])
            finally:
                close = getattr(body, "close", None)
                if close is not None:
                    close()
        except ConnectionBrokenError as broken:
            self.close_connection = True
            if broken.reset:
                # Linger 0 makes close() send RST instead of FIN.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        except (ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True

    def _environ_with_body(self, length: int) -> WSGIEnvironment:
        environ = self.make_environ()
        if not environ.get("wsgi.input_terminated"):
            if length > MAX_BODY:
                self.close_connection = True
            environ["wsgi.input"] = io.BytesIO(self.rfile.read(min(length, MAX_BODY)))
        return environ

    def _send(self, body: Iterable[bytes], response: list[tuple[str, list[tuple[str, str]]]], method: str) -> None:
        iterator = iter(body)
        first = next(iterator, b"")
        status, headers = response[0]
        number, _, reason = status.partition(" ")
        code = int(number)
        self.send_response_only(code, reason)
        names = {name.lower() for name, _ in headers}
        if "date" not in names:
            self.send_header("Date", self.date_time_string())
        for name, value in headers:
            self.send_header(name, value)
        sized = "content-length" in names
        bare = method == "HEAD" or code < 200 or code in {204, 304}
        chunked = not sized and not bare
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if bare:
            return
        while True:
            if first:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(first), first) if chunked else first)
            following = next(iterator, None)
            if following is None:
                break
            first = following
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Log nothing: a request line can contain a signature."""


class _Server(ThreadedWSGIServer):
    def __init__(self, port: int, app: WSGIApplication, context: ssl.SSLContext) -> None:
        super().__init__("127.0.0.1", port, app, _Handler)
        self.ssl_context = context
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()

    def opened(self, connection: socket.socket) -> None:
        """Register a connection, so that it can be closed when the server stops."""
        with self._open_lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """Unregister a connection."""
        with self._open_lock:
            self._open.discard(connection)

    def end_connections(self) -> None:
        """Shut down every connection; otherwise a stopped simulator would still serve open keep-alive connections."""
        with self._open_lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that reject the certificate or disconnect early."""


class HttpsServer:
    """One application on one port of 127.0.0.1, served by threads of this process."""

    def __init__(self, app: WSGIApplication, context: ssl.SSLContext, port: int = 0) -> None:
        self._server = _Server(port, app, context)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def port(self) -> int:
        """Return the port that the server listens on."""
        return self._server.port

    def start(self) -> None:
        """Serve until ``stop`` is called."""
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting connections and close the open ones."""
        self._server.shutdown()
        self._thread.join()
        self._server.end_connections()
        self._server.server_close()
