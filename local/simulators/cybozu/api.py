"""The routes of the User API."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from local.simulators.cybozu import people
from local.simulators.cybozu.answers import CybozuError, PageError, answer, invalid
from local.simulators.cybozu.csvs import render
from local.simulators.cybozu.parameters import listed, paging, parameters

if TYPE_CHECKING:
    from collections.abc import Iterable

    from local.simulators.cybozu.auth import Caller
    from local.simulators.cybozu.domain import CybozuDomain

View = Callable[..., Response]


class Routes:
    """Registers views that are let through the gates and the authentication first."""

    def __init__(self, domain: CybozuDomain, app: Flask) -> None:
        self.domain = domain
        self.app = app
        self._lock = threading.Lock()
        self._running = 0

    def json(self, path: str) -> Callable[[View], View]:
        """Register a JSON endpoint: GET, or POST that says it is a GET (for long queries)."""

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
        """Register a CSV export, which needs an administrator and takes no parameters."""

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


def make_application(domain: CybozuDomain) -> Flask:
    """Return the domain's WSGI application."""
    app = Flask("cybozu")
    switches = domain.switches

    @app.errorhandler(CybozuError)
    def refuse(error: CybozuError) -> Response:
        return error.response(switches.language, message=switches.error_message)

    @app.errorhandler(PageError)
    def refuse_page(error: PageError) -> Response:
        return error.response()

    @app.errorhandler(HTTPException)
    def not_served(error: HTTPException) -> Response:
        return PageError(error.code or 500, error.name).response()

    routes = Routes(domain, app)

    @routes.json("/v1/users.json")
    def users(_caller: Caller) -> Response:
        given = parameters()
        chosen = filtered(domain, given)
        if chosen is None:
            offset, size = paging(given, switches.size_over_limit)
            chosen = domain.directory.page(offset, size, administrator=switches.administrator_in_json)
        body = answer({"users": [domain.shown(user) for user in chosen]})
        domain.after_page()
        return body

    @routes.csv("user")
    def user_csv() -> Iterable[list[str]]:
        for user in domain.directory.users():
            yield people.csv_row(
                user, domain.new_code(user), switches.csv_hidden, delete_column=switches.csv_delete_column
            )

    return app


def filtered(domain: CybozuDomain, given: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the users that ``ids`` or ``codes`` name, or None. An empty list counts as absent."""
    ids, codes = listed(given, "ids"), listed(given, "codes")
    if ids and codes and domain.switches.both_ids_and_codes == "refuse":
        raise invalid("ids", "ids と codes は同時に指定できません。")
    if not ids and not codes:
        return None
    offset, size = paging(given, domain.switches.size_over_limit)
    with_administrator = domain.switches.administrator_in_json
    found = domain.directory.find("id" if ids else "code", ids or codes, administrator=with_administrator)
    return found[offset : offset + size]
