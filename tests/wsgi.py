"""A session of requests whose other side is a WSGI application in this thread, on a clock that tests move."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from werkzeug.test import EnvironBuilder, run_wsgi_app

from local.simulators.server import ConnectionBrokenError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


@dataclass(frozen=True)
class Instead:
    """An answer that comes in place of the application's."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class WsgiAdapter(HTTPAdapter):
    """Calls the application where a socket would be; ``pause`` is told how long the way there and back takes."""

    def __init__(self, application: WSGIApplication, pause: Callable[[float], None], seconds: float = 0.0) -> None:
        super().__init__()
        self._application = application
        self._pause = pause
        self._seconds = seconds
        #: Called before each request; may answer itself, or raise what breaks the connection.
        self.before: Callable[[requests.PreparedRequest], Instead | None] = lambda _request: None
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
        instead = self.before(request)
        if instead is not None:
            return self._response(request, instead.status, dict(instead.headers), instead.body)
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
        return self._response(request, int(status.split(" ", 1)[0]), dict(headers), content)

    def _response(
        self, request: requests.PreparedRequest, status: int, headers: dict[str, str], body: bytes
    ) -> requests.Response:
        answer = urllib3.HTTPResponse(
            body=io.BytesIO(body),
            headers=headers,
            status=status,
            preload_content=False,
            request_method=request.method,
        )
        return self.build_response(request, answer)
