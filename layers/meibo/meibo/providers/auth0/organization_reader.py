"""Walks through the organizations of a tenant, call by call, that can stop anywhere and go on from there.

An organization that is deleted between the list and the reading of it is passed over and named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, Self

from meibo.errors import ArchiveConflictError, EventError, RequestRefusedError, WrongFormatError
from meibo.http.transport import is_id
from meibo.providers.auth0.pagination import CursorWatch, Page


class OrganizationApi(Protocol):
    """What a walk asks of one tenant; each question is one call of its API."""

    @property
    def name(self) -> str:
        """How messages name the tenant."""
        ...

    def organizations(self, cursor: str | None) -> Page:
        """Return a page of the list of organizations."""
        ...

    def enabled_connections(self, organization_id: str) -> list[dict[str, Any]]:
        """Return an organization's enabled connections."""
        ...

    def members(self, organization_id: str, cursor: str | None, *, with_roles: bool) -> tuple[Page, bool]:
        """Return a page of an organization's members, and whether it has their roles."""
        ...


@dataclass(frozen=True)
class OrganizationPosition:
    """The organization whose members are being read, and the page that comes next."""

    organization_id: str
    cursor: str | None = field(default=None, repr=False)
    watch: CursorWatch = field(default_factory=CursorWatch, repr=False)


@dataclass(frozen=True)
class ReadPosition:
    """Where a walk stands: a page of the list, which organizations of it are done, and the one at hand.

    ``done`` are ids and no number, because a page shifts when one of its organizations is deleted.
    """

    cursor: str | None = field(default=None, repr=False)
    watch: CursorWatch = field(default_factory=CursorWatch, repr=False)
    done: tuple[str, ...] = ()
    inside: OrganizationPosition | None = None
    with_roles: bool = True
    had_roles: bool = False

    def past(self, organization_id: str) -> ReadPosition:
        """Return the position after an organization."""
        return replace(self, done=(*self.done, organization_id), inside=None)

    def to_json(self) -> dict[str, Any]:
        """Return the form that is kept with a part."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the kept form."""
        try:
            inside = document["inside"]
            return cls(
                cursor=document["cursor"],
                watch=CursorWatch(**document["watch"]),
                done=tuple(document["done"]),
                inside=None
                if inside is None
                else OrganizationPosition(**{**inside, "watch": CursorWatch(**inside["watch"])}),
                with_roles=document["with_roles"],
                had_roles=document["had_roles"],
            )
        except (KeyError, TypeError):
            raise ArchiveConflictError("a part is not of this version of Meibo; repair the run to begin anew") from None


@dataclass(frozen=True)
class ReadStep:
    """What one call brought: lines of the file, or none where a page of the list ended, and the position after it.

    ``finished`` and ``gone`` name the organization that was read to its end, or that is not there any more.
    """

    lines: tuple[bytes, ...] = field(repr=False)
    position: ReadPosition
    finished: str | None = None
    gone: str | None = None


DatasetReader = Callable[[OrganizationApi, Mapping[str, Any], ReadPosition], Iterator[ReadStep]]


def read_organizations(dataset: str, tenant: OrganizationApi, position: ReadPosition) -> Iterator[ReadStep]:
    """Yield a step for each call that brings us on, from a position to the end of the dataset.

    Stops with whatever a call raises; the position of the last step is where to go on.
    """
    if dataset not in _VISITS:
        raise EventError(f"export.dataset must be {' or '.join(_VISITS)}, not {dataset[:40]!r}")
    visit = _VISITS[dataset]
    while True:
        page = tenant.organizations(position.cursor)
        for row in _rows(page, position):
            organization_id = row.get("id")
            if not is_id(organization_id):
                raise WrongFormatError(f"{tenant.name} answered an organization without an id")
            if organization_id in position.done:
                continue
            try:
                for step in visit(tenant, row, position):
                    position = step.position
                    yield step
            except RequestRefusedError as error:
                if error.status != 404 or error.foreign:
                    raise
                position = position.past(organization_id)
                yield ReadStep((), position, gone=organization_id)
        if page.next is None:
            return
        watch = position.watch.after(page, subject="the list of organizations", provider=tenant.name)
        position = replace(position, cursor=page.next, watch=watch, done=(), inside=None)
        yield ReadStep((), position)


def _rows(page: Page, position: ReadPosition) -> list[dict[str, Any]]:
    # The organization that was being read comes first: were another one read before it, its place would be lost.
    if position.inside is None:
        return page.rows
    at_hand = position.inside.organization_id
    rest = [row for row in page.rows if row.get("id") != at_hand]
    return [{"id": at_hand}, *rest]


def _organization(tenant: OrganizationApi, row: Mapping[str, Any], position: ReadPosition) -> Iterator[ReadStep]:
    organization_id = row["id"]
    line = _line({**row, "enabled_connections": tenant.enabled_connections(organization_id)})
    yield ReadStep((line,), position.past(organization_id), finished=organization_id)


def _members(tenant: OrganizationApi, row: Mapping[str, Any], position: ReadPosition) -> Iterator[ReadStep]:
    organization_id = row["id"]
    inside = position.inside or OrganizationPosition(organization_id)
    while True:
        page, with_roles = tenant.members(organization_id, inside.cursor, with_roles=position.with_roles)
        lines = tuple(_line({"organization_id": organization_id, **member}) for member in page.rows)
        had_roles = position.had_roles or (with_roles and bool(lines))
        position = replace(position, with_roles=with_roles, had_roles=had_roles)
        if page.next is None:
            yield ReadStep(lines, position.past(organization_id), finished=organization_id)
            return
        watch = inside.watch.after(page, subject=f"the members of organization {organization_id}", provider=tenant.name)
        inside = OrganizationPosition(organization_id, page.next, watch)
        position = replace(position, inside=inside)
        yield ReadStep(lines, position)


_VISITS: dict[str, DatasetReader] = {"organizations": _organization, "members": _members}


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair is valid JSON only where it is escaped.
        return (json.dumps(row, separators=(",", ":")) + "\n").encode()
