"""Read the organizations of a tenant request by request. A later invocation can resume after any request.

An organization that is deleted before it is read is skipped and reported.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from meibo.errors import ArchiveConflictError, RequestRefusedError, WrongFormatError
from meibo.http.raw_json import RawJson, line_with_id, line_with_list
from meibo.http.transport import is_id
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.organizations import ROLES_SCOPE, CursorWatch, OrganizationApi, Page
from meibo.providers.base import PageResult, Pages


@dataclass(frozen=True)
class OrganizationPosition:
    """The organization whose members are being read, and the cursor of the next page."""

    organization_id: str
    cursor: str | None = field(default=None, repr=False)
    watch: CursorWatch = field(default_factory=CursorWatch, repr=False)


@dataclass(frozen=True)
class ReadPosition:
    """A position in the list of organizations: the cursor of a page, the organizations of that page that are done,
    and the organization that is being read.

    ``done`` contains ids and not a count, because a page shifts when one of its organizations is deleted.
    """

    cursor: str | None = field(default=None, repr=False)
    watch: CursorWatch = field(default_factory=CursorWatch, repr=False)
    done: tuple[str, ...] = ()
    inside: OrganizationPosition | None = None
    with_roles: bool = True
    had_roles: bool = False

    def after(self, organization_id: str) -> ReadPosition:
        """Return the position after an organization."""
        return replace(self, done=(*self.done, organization_id), inside=None)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that is stored with a part."""
        return {**asdict(self), "done": list(self.done)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the JSON form, raising ArchiveConflictError if another version of Meibo wrote it."""
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
            raise ArchiveConflictError(
                "a part was written by another version of Meibo; repair the run to start this export again"
            ) from None


class OrganizationPages(Pages):
    """Rows of a tenant's organizations. A subclass reads the rows of one organization."""

    def __init__(self, api: OrganizationApi) -> None:
        self.api = api

    @classmethod
    def of(cls, client: Auth0Client) -> Self:
        """Return the pages of the client's tenant."""
        return cls(OrganizationApi(client))

    def results(self, position: Mapping[str, Any] | None) -> Iterator[PageResult]:
        """Yield the result of each call; after an error, the position of the last result resumes the reading."""
        at = ReadPosition() if position is None else ReadPosition.from_json(position)
        while True:
            page = self.api.organizations(at.cursor)
            for row in _rows(page, at):
                organization_id = row.value.get("id")
                if not is_id(organization_id):
                    raise WrongFormatError(
                        f"{self.api.name}: expected an id in each organization, found an organization without an id"
                    )
                if organization_id in at.done:
                    continue
                try:
                    for lines, at in self.read(row, at):  # noqa: B020  # each result has a new position
                        finished = organization_id if at.inside is None else None
                        yield PageResult(lines, at.to_json(), finished=finished)
                except RequestRefusedError as error:
                    if not error.is_missing:
                        raise
                    at = at.after(organization_id)
                    yield PageResult((), at.to_json(), skipped=organization_id)
            if page.next is None:
                return
            watch = at.watch.after(page, subject="the list of organizations", provider=self.api.name)
            at = replace(at, cursor=page.next, watch=watch, done=(), inside=None)
            yield PageResult((), at.to_json())

    @abstractmethod
    def read(self, row: RawJson, position: ReadPosition) -> Iterator[tuple[tuple[bytes, ...], ReadPosition]]:
        """Yield the lines of each call for one organization, with the position after them."""


class OrganizationList(OrganizationPages):
    """One row per organization, with its enabled connections."""

    def read(self, row: RawJson, position: ReadPosition) -> Iterator[tuple[tuple[bytes, ...], ReadPosition]]:
        """Yield the organization's row."""
        organization_id = row.value["id"]
        line = line_with_list(row, "enabled_connections", self.api.enabled_connections(organization_id))
        yield (line,), position.after(organization_id)


class OrganizationMembers(OrganizationPages):
    """One row per member of an organization, with the member's roles if the token may read them."""

    def read(self, row: RawJson, position: ReadPosition) -> Iterator[tuple[tuple[bytes, ...], ReadPosition]]:
        """Yield the rows of each page of the organization's members."""
        organization_id = row.value["id"]
        inside = position.inside or OrganizationPosition(organization_id)
        while True:
            page, with_roles = self.api.members(organization_id, inside.cursor, with_roles=position.with_roles)
            lines = tuple(line_with_id("organization_id", organization_id, member) for member in page.rows)
            had_roles = position.had_roles or (with_roles and bool(lines))
            position = replace(position, with_roles=with_roles, had_roles=had_roles)
            if page.next is None:
                yield lines, position.after(organization_id)
                return
            subject = f"the members of organization {organization_id}"
            watch = inside.watch.after(page, subject=subject, provider=self.api.name)
            inside = OrganizationPosition(organization_id, page.next, watch)
            position = replace(position, inside=inside)
            yield lines, position

    def notes(self, position: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return whether the rows contain roles, which are direct assignments in the organization."""
        if position.get("with_roles", True):
            return {"roles": {"included": "yes", "assignments": "direct"}}
        return {
            "roles": {
                "included": "in part" if position.get("had_roles") else "no",
                "reason": f"the token does not have the OAuth scope {ROLES_SCOPE}",
            }
        }


def _rows(page: Page, position: ReadPosition) -> list[RawJson]:
    # The organization that was being read must be first: reading another organization first would lose its position.
    if position.inside is None:
        return page.rows
    current = position.inside.organization_id
    return [RawJson({"id": current}, ""), *(row for row in page.rows if row.value.get("id") != current)]
