"""S3 over HTTP on loopback: moto's server, which shares the data of moto in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

#: Called with the key and the number of bytes of each upload.
Received = Callable[[str, int], None]


class _QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Log nothing: the URLs contain signatures."""


class _Dispatcher(DomainDispatcherApplication):
    """A dispatcher that caches the service of each host. moto's dispatcher searches its packages for each request."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)
        self._services: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        """Return the name of the service, or None."""
        if host not in self._services:
            self._services[host] = super().get_backend_for_host(host)
        return self._services[host]


@contextmanager
def serve_s3(received: Received | None = None) -> Iterator[str]:
    """Serve S3 until the context ends, and yield the URL of the endpoint."""
    dispatcher = _Dispatcher()

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body: Iterable[bytes] = dispatcher(environ, start_response)
        if received and environ["REQUEST_METHOD"] == "PUT":
            key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")[2]
            received(key, int(environ.get("CONTENT_LENGTH") or 0))
        return body

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_QuietHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
