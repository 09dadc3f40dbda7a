"""S3 over HTTP on loopback: moto's own server, on the same data as moto in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

# Told the key and the number of bytes of each upload.
Received = Callable[[str, int], None]


class _Quiet(WSGIRequestHandler):
    """Keeps connections open, as S3 does, and logs nothing: the URLs hold signatures."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  # werkzeug's own name
        """Leave requests out of every log."""


class _Dispatcher(DomainDispatcherApplication):
    """Remembers which service a host is; moto's own looks through its folders at each request."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)
        self._services: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        """Return the service's name, or None."""
        if host not in self._services:
            self._services[host] = super().get_backend_for_host(host)
        return self._services[host]


class _Counting:
    """Tells who listens how many bytes arrive for which key."""

    def __init__(self, application: Any, received: Received | None) -> None:
        self._application = application
        self._received = received

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._application(environ, start_response)
        if self._received and environ["REQUEST_METHOD"] == "PUT":
            key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")[2]
            self._received(key, int(environ.get("CONTENT_LENGTH") or 0))
        return answer


@contextmanager
def serve_s3(received: Received | None = None) -> Iterator[str]:
    """Serve until left; the value is the endpoint's URL."""
    application = _Counting(_Dispatcher(), received)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
