"""An in-memory tenant with organizations, connections, members and faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from meibo.errors import ProviderBusyError, RequestRefusedError
from meibo.http.raw_json import RawJson
from meibo.providers.auth0.organizations import OrganizationApi, OrganizationList, OrganizationMembers
from meibo.providers.auth0.pagination import ItemPages, Page
from meibo.providers.base import PageResult

UNLIMITED = 1_000_000


class Api(Protocol):
    """A tenant in memory that is busy after a number of calls."""

    calls_left: int


def read_in_invocations(
    read: Callable[[Any], Iterator[PageResult]],
    api: Api,
    stops: Iterable[int],
    between: Callable[[int], None] = lambda _: None,
) -> list[PageResult]:
    """Read all pages in several invocations, and return their results.

    The tenant is busy after each number of calls in ``stops``. Then ``between`` is called with the number of the
    invocation, and the next invocation continues from the last position, which was stored as JSON.
    """
    results: list[PageResult] = []
    position: Any = None
    for number, calls in enumerate([*stops, UNLIMITED]):
        api.calls_left = calls
        try:
            for result in read(json.loads(json.dumps(position))):
                results.append(result)
                position = result.position
            break
        except ProviderBusyError:
            between(number)
    api.calls_left = UNLIMITED
    return results


ORGANIZATION_PAGES: dict[str, type[ItemPages[OrganizationApi]]] = {
    "organizations": OrganizationList,
    "members": OrganizationMembers,
}


def raw_json(value: Any) -> RawJson:
    """Return a value with its JSON text, as a client reads it from a response."""
    return RawJson(value, json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def organization_id(number: int) -> str:
    return f"org_{number:016d}"


@dataclass
class MemoryTenant(OrganizationApi):
    """A tenant with ``count`` organizations. Organization n has n % 5 members.

    The tenant is busy after ``calls_left`` calls. With ``always_next``, every page that is not empty has a cursor, as
    in the recordings of members. ``before`` is called before each call.
    """

    count: int = 0
    size: int = 3
    always_next: bool = False
    roles: bool = True
    calls_left: int = UNLIMITED
    retry_after: float | None = None
    gone: set[str] = field(default_factory=set)
    name: str = "Auth0 (acme.test)"
    calls: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda _: None
    #: Deleted organizations that are no longer listed. Organizations that are only in ``gone`` are still listed.
    _deleted: set[str] = field(default_factory=set)

    def items(self, cursor: str | None) -> Page:
        self._record("organizations")
        ids = [organization_id(number) for number in range(self.count) if organization_id(number) not in self._deleted]
        return self._page([{"id": id_, "name": f"組織 {id_[-3:]}"} for id_ in ids if id_ > (cursor or "")], "id")

    def enabled_connections(self, organization_id: str) -> list[RawJson]:
        self._record(f"connections of {organization_id}")
        self._exists(organization_id)
        return [raw_json({"connection_id": f"con_{organization_id[4:]}"})]

    def members(self, organization_id: str, cursor: str | None, *, with_roles: bool = True) -> tuple[Page, bool]:
        self._record(f"members of {organization_id}")
        self._exists(organization_id)
        members: list[dict[str, Any]] = [
            {"user_id": f"auth0|{number}", "email": f"{number}@example.com"}
            | ({"roles": []} if with_roles and self.roles else {})
            for number in range(int(organization_id[4:]) % 5)
        ]
        page = [member for member in members if str(member["user_id"]) > (cursor or "")]
        return self._page(page, "user_id", size=2, always_next=self.always_next), with_roles and self.roles

    def delete(self, number: int) -> None:
        self._deleted.add(organization_id(number))
        self.gone.add(organization_id(number))

    def _page(self, rows: list[dict[str, Any]], key: str, *, size: int = 0, always_next: bool = False) -> Page:
        size = size or self.size
        more = len(rows) > size or (always_next and bool(rows))
        return Page([raw_json(row) for row in rows[:size]], str(rows[:size][-1][key]) if more else None)

    def _exists(self, organization_id: str) -> None:
        if organization_id in self.gone:
            raise RequestRefusedError(f"no organization {organization_id}", status=404)

    def _record(self, call: str) -> None:
        self.before(call)
        if not self.calls_left:
            raise ProviderBusyError("busy", retry_after=self.retry_after)
        self.calls_left -= 1
        self.calls.append(call)

    def lines(self, dataset: str) -> list[dict[str, Any]]:
        """Return the expected rows of an export."""
        ids = [organization_id(number) for number in range(self.count)]
        if dataset == "organizations":
            return [
                {"id": id_, "name": f"組織 {id_[-3:]}", "enabled_connections": [{"connection_id": f"con_{id_[4:]}"}]}
                for id_ in ids
                if id_ not in self.gone
            ]
        return [
            {"organization_id": id_, "user_id": f"auth0|{number}", "email": f"{number}@example.com"}
            | ({"roles": []} if self.roles else {})
            for id_ in ids
            if id_ not in self.gone
            for number in range(int(id_[4:]) % 5)
        ]
