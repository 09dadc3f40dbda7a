"""A provider in memory: an adapter for requests that answers from a table instead of a socket."""

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
class Seen:
    """A received request."""

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
    """A response; ``json`` becomes its body. ``breaks_after`` cuts the body after that many bytes.

    If ``stream`` is set, it is read instead of the body.
    """

    status: int = 200
    json: Any = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    breaks_after: int | None = None
    length: bool = True
    stream: io.RawIOBase | None = None


Answering = Reply | Exception | Callable[[Seen], "Reply | Exception"]


class Transport(HTTPAdapter):
    """Answers each route with its replies in order, and repeats the last reply."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self._routes: dict[tuple[str, str], list[Answering]] = {}

    def on(self, method: str, path: str, *answers: Answering) -> Transport:
        self._routes[method, path] = list(answers)
        return self

    def session(self) -> requests.Session:
        session = new_session(1)
        # Looking up a proxy at each request takes time.
        session.trust_env = False
        session.mount("https://", self)
        return session

    def calls(self, method: str, path: str) -> list[Seen]:
        return [seen for seen in self.seen if (seen.method, seen.path) == (method, path)]

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
        seen = Seen(
            str(request.method),
            str(request.url),
            request.headers,
            body if isinstance(body, bytes) else str(body).encode(),
            timeout,
        )
        self.seen.append(seen)
        answers = self._routes.get((seen.method, seen.path))
        assert answers, f"no answer for {seen.method} {seen.path}"
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = answer(seen)
        if isinstance(answer, Exception):
            raise answer
        return self.build_response(request, _raw(answer, seen.method))


def at(moment: float) -> dict[str, str]:
    """Return the Date header of a time, in seconds as HTTP requires."""
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
