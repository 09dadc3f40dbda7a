"""The WSGI application of a domain. It checks the access restrictions and the credentials of each request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from meibo_simulators.cybozu.csv_files import FILES, csv_file
from meibo_simulators.cybozu.domain import SimulatedDomain
from meibo_simulators.cybozu.errors import CybozuError, PageError, invalid
from meibo_simulators.cybozu.parameters import Parameters

View = Callable[["SimulatedDomain", Parameters], dict[str, Any]]


def domain_application(domain: SimulatedDomain) -> Flask:
    """Return the domain's WSGI application."""
    app = Flask("cybozu")
    switches = domain.switches

    @app.errorhandler(CybozuError)
    def handle_error(error: CybozuError) -> Response:
        return _json_response(error.body(switches), error.status, error.headers)

    @app.errorhandler(PageError)
    def handle_page(error: PageError) -> Response:
        return Response(error.page, error.status, error.headers, content_type="text/html; charset=utf-8")

    @app.errorhandler(HTTPException)
    def handle_http_error(error: HTTPException) -> Response:
        return handle_page(PageError(error.code or 500, error.name))

    gate = _Gate(domain)

    def serve_json(path: str, view: View) -> None:
        """Serve GET, and POST with X-HTTP-Method-Override: GET for long queries."""

        def respond() -> Response:
            if request.method == "POST" and request.headers.get("X-HTTP-Method-Override", "").upper() != "GET":
                raise PageError(405, "Method Not Allowed")
            with gate:
                return _json_response(view(domain, Parameters(switches)))

        app.add_url_rule(path, path, respond, methods=["GET", "POST"])

    def serve_csv(name: str) -> None:
        """Serve a CSV export, which requires an administrator and has no parameters."""

        def respond() -> Response:
            if not switches.csv_api:
                raise PageError(404, "Not Found")
            with gate as is_administrator:
                if not is_administrator:
                    raise CybozuError("CB_NO02")
                chunks = csv_file(domain.structure, switches, name)
                body: Any = b"".join(chunks) if switches.csv_sized else chunks
                disposition = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
                headers = disposition if switches.csv_disposition else {}
                return Response(body, headers=headers, content_type=switches.csv_content_type)

        app.add_url_rule(f"/v1/csv/{name}.csv", name, respond, methods=["GET"])

    for path, view in VIEWS.items():
        serve_json(path, view)
    for name in FILES:
        serve_csv(name)
    return app


def _json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(text, status, headers, content_type="application/json;charset=utf-8")


class _Gate:
    """A context manager that raises the error response to a rejected request. It yields True for an administrator."""

    def __init__(self, domain: SimulatedDomain) -> None:
        self._domain = domain
        self._lock = threading.Lock()
        self._running = 0

    def __enter__(self) -> bool:
        domain, switches = self._domain, self._domain.switches
        if len(request.environ["REQUEST_URI"]) > switches.max_url_length:
            raise PageError(414, "Request-URI Too Large")
        is_administrator = domain.access.check(
            request.headers.get,
            request.remote_addr or "",
            has_certificate="SSL_CLIENT_CERT" in request.environ,
        )
        limit = switches.concurrency_limit
        with self._lock:
            running = self._running + 1
            domain.max_concurrent_requests = max(domain.max_concurrent_requests, running)
            if limit is not None and running > limit:
                headers = {"X-ConcurrencyLimit-Limit": str(limit), "X-ConcurrencyLimit-Running": str(running)}
                raise CybozuError("GAIA_TO04", headers=headers)
            self._running = running
        domain.stopping.wait(switches.page_seconds)
        return is_administrator

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1


# -- JSON endpoints


def list_users(domain: SimulatedDomain, parameters: Parameters) -> dict[str, Any]:
    """Return the users selected by ``ids`` or ``codes``, or a page of all users."""
    (key, values), page = parameters.selection(), parameters.page()
    directory, administrator = domain.directory, domain.switches.administrator_in_json
    if values:
        users = directory.find(key, values, administrator=administrator)[page]
    else:
        users = directory.page(page, administrator=administrator)
    body = {"users": [domain.switches.shown(user) for user in users]}
    if domain.between_pages:
        domain.between_pages.popleft()()
    return body


def list_organizations(domain: SimulatedDomain, parameters: Parameters) -> dict[str, Any]:
    """Return a page of organizations."""
    units = parameters.select(domain.structure.organizations)
    return {"organizations": [domain.switches.shown(unit) for unit in units]}


def list_groups(domain: SimulatedDomain, parameters: Parameters) -> dict[str, Any]:
    """Return a page of groups without their types."""
    groups = parameters.select(domain.structure.groups)
    return {"groups": [{name: value for name, value in group.items() if name != "type"} for group in groups]}


def list_users_of_organization(domain: SimulatedDomain, parameters: Parameters) -> dict[str, Any]:
    """Return a page of an organization's users with their titles in it."""
    code, page = parameters.required("code"), parameters.page()
    if code not in {unit["code"] for unit in domain.structure.organizations}:
        _reject_unknown_code(domain)
    members = list(domain.structure.in_organization(code))[page]
    return {"userTitles": [{"user": _shown_user(domain, index), "title": title} for index, title in members]}


def list_users_of_group(domain: SimulatedDomain, parameters: Parameters) -> dict[str, Any]:
    """Return a page of a group's users."""
    code, page = parameters.required("code"), parameters.page()
    groups = [group for group in domain.structure.groups if group["code"] == code]
    if not groups:
        _reject_unknown_code(domain)
    members = [index for group in groups for index in domain.structure.in_group(group)][page]
    return {"users": [_shown_user(domain, index) for index in members]}


VIEWS: dict[str, View] = {
    "/v1/users.json": list_users,
    "/v1/organizations.json": list_organizations,
    "/v1/groups.json": list_groups,
    "/v1/organization/users.json": list_users_of_organization,
    "/v1/group/users.json": list_users_of_group,
}


def _shown_user(domain: SimulatedDomain, index: int) -> dict[str, Any]:
    return domain.switches.shown(domain.directory.user(index))


def _reject_unknown_code(domain: SimulatedDomain) -> None:
    """Raise the error response to an unknown code, unless the switch selects an empty list."""
    if domain.switches.unknown_code == "refuse":
        raise invalid("code", "見つかりません。")
