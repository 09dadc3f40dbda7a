"""An HTTPS server with keep-alive that records requests and applies faults.

werkzeug's development server closes every connection and waits 10 ms after each response, so a benchmark would measure
the server instead of the client. This module uses only its server loop and its WSGI environment.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterable
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Response

from meibo_simulators.faults import ConnectionBrokenError, RawResponse
from meibo_simulators.site import Request, Site

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAX_BODY = 4 << 20
IDLE_SECONDS = 75
NAMES = ("localhost", "127.0.0.1", "::1")


@functools.cache
def _certificates() -> tuple[trustme.CA, trustme.LeafCert]:
    authority = trustme.CA(organization_name="Meibo simulators")
    return authority, authority.issue_cert(*NAMES)


def server_context() -> ssl.SSLContext:
    """Return a new TLS context with the server's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _certificates()[1].configure_cert(context)
    return context


def write_authority(directory: Path) -> Path:
    """Write the certificate of the authority that clients must trust, and return the path of the PEM file."""
    ca_file = directory / "ca.pem"
    ca_file.write_bytes(_certificates()[0].cert_pem.bytes())
    return ca_file


class InstrumentedApplication:
    """A WSGI application that applies the faults of a site and records each request in ``site.requests``."""

    def __init__(self, application: WSGIApplication, site: Site) -> None:
        self._application = application
        self._site = site

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.respond(environ)(environ, start_response)

    def respond(self, environ: WSGIEnvironment) -> Response:
        """Return the response to a request. Raise ConnectionBrokenError if a fault breaks the connection."""
        site = self._site
        fault = site.faults.take(environ)

        def process() -> Response:
            return RawResponse.from_app(self._application, environ)

        try:
            response = process() if fault is None else fault.action(process)
        except ConnectionBrokenError:
            self._record(environ, 0)
            raise
        self._record(environ, response.status_code)
        # Clients compare rate limits and expiry times with this header, so it uses the clock of the site.
        response.headers.setdefault("Date", formatdate(site.now(), usegmt=True))
        return response

    def _record(self, environ: WSGIEnvironment, status: int) -> None:
        request = Request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            status,
            self._site.now(),
            int(environ.get("REMOTE_PORT", 0)),
            environ.get("HTTP_RANGE"),
            "HTTP_AUTHORIZATION" in environ,
        )
        self._site.requests.append(request)


class _Handler(WSGIRequestHandler):
    server: HttpsServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server_version = "simulator"

    def setup(self) -> None:
        # The handshake runs in the thread of the connection, so that a stalled client does not block other clients.
        self.request.settimeout(IDLE_SECONDS)
        self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.server.connections.add(self.request)
        super().setup()

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.server.connections.discard(self.request)
            self.request.close()

    def run_wsgi(self) -> None:
        """Serve a request, and keep the connection open unless the request is too large or the response fails."""
        if self.headers.get("Expect", "").strip().lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = self.headers.get("Content-Length", "0")
        if not re.fullmatch(r"[0-9]{1,18}", length):
            self.send_error(400, "Bad Request", "Content-Length is not a number.")
            return
        environ = self._environ_with_body(int(length))
        try:
            with self.server.application.respond(environ) as response:
                self._send(response, environ)
        except ConnectionBrokenError as broken:
            self.close_connection = True
            if broken.reset:
                # With a linger time of 0, close() sends RST instead of FIN.
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

    def _send(self, response: Response, environ: WSGIEnvironment) -> None:
        headers = response.get_wsgi_headers(environ)
        status = response.status_code
        without_body = environ["REQUEST_METHOD"] == "HEAD" or status < 200 or status in {204, 304}
        chunked = "Content-Length" not in headers and not without_body
        self.send_response_only(status, response.status.partition(" ")[2])
        for name, value in headers:
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in response.get_app_iter(environ):
            # In chunked encoding, an empty chunk would end the body.
            if chunk:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Log nothing: a request line can contain a signature."""


class HttpsServer(ThreadedWSGIServer):
    """A server on a free port of 127.0.0.1, with a thread per connection."""

    def __init__(self, application: InstrumentedApplication, context: ssl.SSLContext) -> None:
        super().__init__("127.0.0.1", 0, application, _Handler)
        self.application = application
        self.ssl_context = self.tls = context
        #: The open connections, which are closed when the server stops.
        self.connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def start(self) -> None:
        """Serve until ``stop`` is called."""
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting connections, and close the open connections."""
        self.shutdown()
        self._thread.join()
        for connection in self.connections.copy():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that reject the certificate or disconnect early."""
