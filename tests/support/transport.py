"""A transport adapter for ``requests`` that returns prepared responses and records the requests."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from meibo.http.session import new_session


@dataclass(frozen=True)
class RecordedRequest:
    """A request that the transport received."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout: Any

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """A response with either a JSON document, a body or a stream.

    ``breaks_after`` truncates the body after that number of bytes. ``length`` adds a Content-Length header.
    """

    status: int = 200
    json: Any = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    breaks_after: int | None = None
    length: bool = True
    stream: io.RawIOBase | None = None


#: A reply, an error to raise, or a function that returns one of them for a request.
Responder = Reply | Exception | Callable[[RecordedRequest], "Reply | Exception"]


class Transport(HTTPAdapter):
    """Respond to each route with its responders in order, and repeat the last responder."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[RecordedRequest] = []
        self._routes: dict[tuple[str, str], list[Responder]] = {}

    def on(self, method: str, path: str, *responders: Responder) -> Transport:
        self._routes[method, path] = list(responders)
        return self

    def session(self) -> requests.Session:
        session = new_session(1)
        # With trust_env, requests looks up the proxy settings for each request, which is slow.
        session.trust_env = False
        session.mount("https://", self)
        return session

    def calls(self, method: str, path: str) -> list[RecordedRequest]:
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        body = request.body or b""
        recorded = RecordedRequest(
            str(request.method),
            str(request.url),
            request.headers,
            body if isinstance(body, bytes) else str(body).encode(),
            timeout,
        )
        self.requests.append(recorded)
        responders = self._routes.get((recorded.method, recorded.path))
        assert responders, f"no response for {recorded.method} {recorded.path}"
        reply = responders.pop(0) if len(responders) > 1 else responders[0]
        if callable(reply):
            reply = reply(recorded)
        if isinstance(reply, Exception):
            raise reply
        return self.build_response(request, _raw(reply, recorded.method))


def at(moment: float) -> dict[str, str]:
    """Return the headers of a response with a Date, which has a resolution of one second."""
    return {"Date": formatdate(int(moment), usegmt=True)}


def _raw(reply: Reply, method: str) -> urllib3.HTTPResponse:
    body, headers = reply.body, {"content-type": "application/octet-stream"}
    if reply.json is not None:
        body, headers = json.dumps(reply.json).encode(), {"content-type": "application/json; charset=utf-8"}
    if reply.length and reply.stream is None:
        headers["content-length"] = str(len(body))
    headers |= {name.lower(): value for name, value in reply.headers.items()}
    return urllib3.HTTPResponse(
        body=reply.stream or io.BytesIO(body[: reply.breaks_after]),
        headers=headers,
        status=reply.status,
        preload_content=False,
        request_method=method,
    )
