"""Register views as endpoints with access restrictions and authentication."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request

from meibo_simulators.cybozu.csv_format import render
from meibo_simulators.cybozu.responses import CybozuError, PageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meibo_simulators.cybozu.auth import Caller
    from meibo_simulators.cybozu.domain import SimulatedDomain

View = Callable[..., Response]


class Routes:
    """Register views; each request passes the access restrictions and the authentication first."""

    def __init__(self, domain: SimulatedDomain, app: Flask) -> None:
        self.domain = domain
        self.app = app
        self._lock = threading.Lock()
        self._running = 0

    def json(self, path: str) -> Callable[[View], View]:
        """Register a JSON endpoint: GET, or POST with X-HTTP-Method-Override: GET (for long queries)."""

        def register(view: View) -> View:
            @wraps(view)
            def checked() -> Response:
                if request.method == "POST" and request.headers.get("X-HTTP-Method-Override", "").upper() != "GET":
                    return PageError(405, "Method Not Allowed").response()
                return self._run(view)

            self.app.add_url_rule(path, path, checked, methods=["GET", "POST"])
            return view

        return register

    def csv(self, name: str) -> Callable[[Callable[[], Iterable[list[str]]]], None]:
        """Register a CSV export, which requires an administrator and has no parameters."""

        def register(rows: Callable[[], Iterable[list[str]]]) -> None:
            def view(caller: Caller) -> Response:
                if not caller.administrator:
                    raise CybozuError("CB_NO02")
                return self._file(name, rows())

            def checked() -> Response:
                if not self.domain.switches.csv_api:
                    return PageError(404, "Not Found").response()
                return self._run(view)

            self.app.add_url_rule(f"/v1/csv/{name}.csv", name, checked, methods=["GET"])

        return register

    def _file(self, name: str, rows: Iterable[list[str]]) -> Response:
        switches = self.domain.switches
        pieces = render(rows, switches)
        headers = {}
        if switches.csv_disposition:
            headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
        body: Any = b"".join(pieces) if switches.csv_sized else pieces
        response = Response(body, headers=headers)
        response.headers["Content-Type"] = switches.csv_content_type
        return response

    def _run(self, view: Callable[[Caller], Response]) -> Response:
        domain = self.domain
        longest = domain.switches.longest_url
        if longest is not None and len(request.environ["REQUEST_URI"]) > longest:
            raise PageError(414, "Request-URI Too Large")
        caller = domain.access.check(request.headers.get, request.remote_addr or "")
        limit = domain.switches.concurrency_limit
        with self._lock:
            self._running += 1
            running = self._running
            domain.most_at_once = max(domain.most_at_once, running)
        try:
            if limit is not None and running > limit:
                headers = {"X-ConcurrencyLimit-Limit": str(limit), "X-ConcurrencyLimit-Running": str(running)}
                raise CybozuError("GAIA_TO04", headers=headers)
            if domain.switches.page_seconds:
                domain.stopping.wait(domain.switches.page_seconds)
            return view(caller)
        finally:
            with self._lock:
                self._running -= 1
