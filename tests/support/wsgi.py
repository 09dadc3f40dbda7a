"""A transport adapter for ``requests`` that calls a WSGI application in the same thread, on a fake clock."""

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

from meibo_simulators.faults import ConnectionBrokenError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


@dataclass(frozen=True)
class ReplacedResponse:
    """A response that replaces the response of the application."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class WsgiAdapter(HTTPAdapter):
    """Call the application instead of opening a socket. ``pause`` is called with the latency of each direction."""

    def __init__(self, application: WSGIApplication, pause: Callable[[float], None], seconds: float = 0.0) -> None:
        super().__init__()
        self._application = application
        self._pause = pause
        self._seconds = seconds
        #: Called before each request. It may return a response, or raise a connection error.
        self.before: Callable[[requests.PreparedRequest], ReplacedResponse | None] = lambda _request: None
        #: Called after the application responded and before the client receives the response.
        self.after: Callable[[requests.PreparedRequest], None] = lambda _request: None

    def session(self) -> requests.Session:
        session = requests.Session()
        # With trust_env, requests looks up the proxy settings for each request, which is slow.
        session.trust_env = False
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
        replaced = self.before(request)
        if replaced is not None:
            return self._response(request, replaced.status, dict(replaced.headers), replaced.body)
        url = urlsplit(str(request.url))
        environ = EnvironBuilder(
            url.path,
            f"{url.scheme}://{url.netloc}",
            url.query,
            method=str(request.method),
            headers=request.headers.items(),
            data=request.body or b"",
            environ_base={"REMOTE_ADDR": "127.0.0.1"},
        ).get_environ()
        try:
            chunks, status, headers = run_wsgi_app(self._application, environ, buffered=True)
            content = b"".join(chunks)
        except ConnectionBrokenError:
            raise requests.ConnectionError from None
        self._pause(self._seconds / 2)
        self.after(request)
        return self._response(request, int(status.split(" ", 1)[0]), dict(headers), content)

    def _response(
        self, request: requests.PreparedRequest, status: int, headers: dict[str, str], body: bytes
    ) -> requests.Response:
        response = urllib3.HTTPResponse(
            body=io.BytesIO(body),
            headers=headers,
            status=status,
            preload_content=False,
            request_method=request.method,
        )
        return self.build_response(request, response)
