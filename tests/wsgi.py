"""A session of requests whose other side is a WSGI application in this thread, on a clock that tests move."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from werkzeug.test import EnvironBuilder, run_wsgi_app

from local.simulators.server import ConnectionBrokenError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class WsgiAdapter(HTTPAdapter):
    """Calls the application where a socket would be; ``pause`` is told how long the way there and back takes."""

    def __init__(self, application: WSGIApplication, pause: Callable[[float], None], seconds: float = 0.0) -> None:
        super().__init__()
        self._application = application
        self._pause = pause
        self._seconds = seconds
        #: Called before each request; raises what breaks the connection.
        self.before: Callable[[requests.PreparedRequest], None] = lambda _request: None
        #: Called after the application has answered and before the client sees it.
        self.after: Callable[[requests.PreparedRequest], None] = lambda _request: None

    def session(self) -> requests.Session:
        session = requests.Session()
        session.mount("https://", self)
        return session

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        self._pause(self._seconds / 2)
        self.before(request)
        url = urlsplit(str(request.url))
        body = request.body or b""
        builder = EnvironBuilder(
            method=str(request.method),
            base_url=f"{url.scheme}://{url.netloc}",
            path=url.path,
            query_string=url.query,
            headers=list(request.headers.items()),
            data=body if isinstance(body, bytes) else str(body).encode(),
        )
        try:
            chunks, status, headers = run_wsgi_app(self._application, builder.get_environ(), buffered=True)
            content = b"".join(chunks)
        except ConnectionBrokenError:
            raise requests.ConnectionError from None
        self._pause(self._seconds / 2)
        self.after(request)
        answer = urllib3.HTTPResponse(
            body=io.BytesIO(content),
            headers=dict(headers),
            status=int(status.split(" ", 1)[0]),
            preload_content=False,
            request_method=request.method,
        )
        return self.build_response(request, answer)
