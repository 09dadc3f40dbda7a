"""The WSGI application of a domain: its users, and the routes of the other modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from meibo_simulators.cybozu import structure_routes, user_records
from meibo_simulators.cybozu.parameters import listed, paging, parameters
from meibo_simulators.cybozu.responses import CybozuError, PageError, answer, invalid
from meibo_simulators.cybozu.routing import Routes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meibo_simulators.cybozu.auth import Caller
    from meibo_simulators.cybozu.domain import SimulatedDomain


def make_application(domain: SimulatedDomain) -> Flask:
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
            yield user_records.csv_row(
                domain.shown(user), domain.new_code(user), switches.csv_hidden, delete_column=switches.csv_delete_column
            )

    structure_routes.register(routes)
    return app


def filtered(domain: SimulatedDomain, given: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the users selected by ``ids`` or ``codes``, or None if both are absent or empty."""
    ids, codes = listed(given, "ids"), listed(given, "codes")
    if ids and codes and domain.switches.both_ids_and_codes == "refuse":
        raise invalid("ids", "ids と codes は同時に指定できません。")
    if not ids and not codes:
        return None
    offset, size = paging(given, domain.switches.size_over_limit)
    with_administrator = domain.switches.administrator_in_json
    users = domain.directory.find("id" if ids else "code", ids or codes, administrator=with_administrator)
    return users[offset : offset + size]
