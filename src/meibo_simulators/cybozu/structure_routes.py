"""The JSON endpoints of organizations, groups, memberships and services, and their CSV files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meibo_simulators.cybozu.parameters import listed, paging, parameters, required
from meibo_simulators.cybozu.responses import answer, invalid
from meibo_simulators.cybozu.structure import FILES, services

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask import Response

    from meibo_simulators.cybozu.auth import Caller
    from meibo_simulators.cybozu.domain import SimulatedDomain
    from meibo_simulators.cybozu.routing import Routes
    from meibo_simulators.cybozu.structure import Entry


def register(routes: Routes) -> None:
    """Add the routes."""
    domain = routes.domain
    switches = domain.switches
    structure = domain.structure

    @routes.json("/v1/organizations.json")
    def organizations(_caller: Caller) -> Response:
        chosen = _page(domain, parameters(), structure.organizations)
        return answer({"organizations": [domain.shown(unit) for unit in chosen]})

    @routes.json("/v1/groups.json")
    def groups(_caller: Caller) -> Response:
        return answer({"groups": [_group(group) for group in _page(domain, parameters(), structure.groups)]})

    @routes.json("/v1/user/organizations.json")
    def user_organizations(_caller: Caller) -> Response:
        index = _user(domain)
        places = [] if index is None else structure.places(index)
        return answer(
            {"organizationTitles": [{"organization": domain.shown(unit), "title": title} for unit, title in places]}
        )

    @routes.json("/v1/user/groups.json")
    def user_groups(_caller: Caller) -> Response:
        index = _user(domain)
        return answer({"groups": [] if index is None else [_group(group) for group in structure.groups_of(index)]})

    @routes.json("/v1/organization/users.json")
    def organization_users(_caller: Caller) -> Response:
        given = parameters()
        code = required(given, "code")
        offset, size = paging(given, switches.size_over_limit)
        if code not in {unit["code"] for unit in structure.organizations}:
            _unknown(domain)
        chosen = list(structure.in_organization(code))[offset : offset + size]
        return answer(
            {
                "userTitles": [
                    {"user": domain.shown(domain.directory.user(index)), "title": title} for index, title in chosen
                ]
            }
        )

    @routes.json("/v1/group/users.json")
    def group_users(_caller: Caller) -> Response:
        given = parameters()
        code = required(given, "code")
        offset, size = paging(given, switches.size_over_limit)
        matches = [group for group in structure.groups if group["code"] == code]
        if not matches:
            _unknown(domain)
        chosen = [index for group in matches for index in structure.in_group(group)][offset : offset + size]
        return answer({"users": [domain.shown(domain.directory.user(index)) for index in chosen]})

    @routes.json("/v1/users/services.json")
    def user_services(_caller: Caller) -> Response:
        given = parameters()
        codes = set(listed(given, "codes"))
        offset, size = paging(given, switches.size_over_limit)
        users = ((domain.directory.user(index)["code"], index) for index in domain.directory.numbers())
        chosen = [pair for pair in users if not codes or pair[0] in codes][offset : offset + size]
        rows = [{"code": code, "services": [name for name, _ in services(index)]} for code, index in chosen]
        return answer({"users": rows})

    for name in FILES:
        _register_file(routes, name)


def _register_file(routes: Routes, name: str) -> None:
    @routes.csv(name)
    def rows() -> Iterable[list[str]]:
        return routes.domain.structure.rows(name)


def _group(group: Entry) -> Entry:
    return {name: value for name, value in group.items() if name != "type"}


def _page(domain: SimulatedDomain, given: dict[str, Any], entries: list[Entry]) -> list[Entry]:
    ids, codes = listed(given, "ids"), listed(given, "codes")
    if ids and codes and domain.switches.both_ids_and_codes == "refuse":
        raise invalid("ids", "ids と codes は同時に指定できません。")
    offset, size = paging(given, domain.switches.size_over_limit)
    if ids or codes:
        key, wanted = ("id", set(ids)) if ids else ("code", set(codes))
        entries = [entry for entry in entries if entry[key] in wanted]
    return entries[offset : offset + size]


def _user(domain: SimulatedDomain) -> int | None:
    code = required(parameters(), "code")
    index = domain.directory.number(code)
    if index is None and code != "Administrator":
        _unknown(domain)
    return index


def _unknown(domain: SimulatedDomain) -> None:
    """Raise the error response of an unknown code if the switch is ``refuse``; the real response is not known."""
    if domain.switches.unknown_code == "refuse":
        raise invalid("code", "見つかりません。")
