"""The organizations of a tenant, their connections and their members.

A later invocation can resume after any request. An organization that is deleted before it is read is skipped and
reported.

https://auth0.com/docs/manage-users/organizations/configure-organizations/retrieve-organizations
https://auth0.com/docs/api/management/v2/organizations/get-organization-members
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from meibo.errors import RequestRefusedError, ScopeMissingError, WrongFormatError
from meibo.http.raw_json import RawJson, line_with_id, line_with_list
from meibo.http.transport import is_id, segment
from meibo.providers.auth0.client import ApiList
from meibo.providers.auth0.pagination import (
    ItemPages,
    ItemPosition,
    ListApi,
    ListPosition,
    Page,
    check_ids,
    read_page,
)

ORGANIZATIONS_SCOPE: Final = "read:organizations"
ENABLED_CONNECTIONS_SCOPE: Final = "read:organization_connections"
MEMBERS_SCOPE: Final = "read:organization_members"
ROLES_SCOPE: Final = "read:organization_member_roles"
# An organization has at most ten connections (https://auth0.com/docs/troubleshoot/customer-support/operational-policies/
# entity-limit-policy). It is not documented whether the endpoint has pages. One page contains all connections.
ENABLED_CONNECTIONS_PER_PAGE: Final = 50
# The response contains roles only if the parameter "fields" contains "roles" and every other field.
FIELDS_WITH_ROLES: Final = "user_id,email,picture,name,roles"

ORGANIZATIONS: Final = ApiList(
    path="organizations",
    key="organizations",
    subject="the list of organizations",
    scope=ORGANIZATIONS_SCOPE,
    bucket="organizations",
)


class OrganizationApi(ListApi):
    """The organizations of a tenant.

    Each method sends one request. ``members`` sends a second request if the OAuth scope for roles is missing. If an
    organization does not exist, the methods raise RequestRefusedError with ``status`` 404.
    """

    def organizations(self, cursor: str | None) -> Page:
        """Return a page of the list of organizations, raising WrongFormatError if an organization has no id."""
        page = read_page(self._client, ORGANIZATIONS, cursor)
        check_ids(page.rows, subject=ORGANIZATIONS.subject, provider=self.name)
        return page

    def enabled_connections(self, organization_id: str) -> list[RawJson]:
        """Return the enabled connections of an organization."""
        # "limit" in the response is the number of items, so neither it nor "total" shows whether there are more pages.
        source = ApiList(
            path=f"organizations/{segment(organization_id)}/enabled_connections",
            key="enabled_connections",
            subject=f"the connections of organization {organization_id}",
            scope=ENABLED_CONNECTIONS_SCOPE,
            bucket="enabled_connections",
            params=(("per_page", str(ENABLED_CONNECTIONS_PER_PAGE)), ("page", "0"), ("include_totals", "true")),
        )
        return self._client.request_list(source)[0]

    def connection_ids(self, organization_id: str) -> list[str]:
        """Return the ids of an organization's connections, raising RequestRefusedError if it has no connections."""
        rows = self.enabled_connections(organization_id)
        if not rows:
            raise RequestRefusedError(
                f"{self.name}: organization {organization_id} has no enabled connection, so it has no users to export;"
                " enable a connection or remove the organization from the configuration"
            )
        ids = [connection_id for row in rows if is_id(connection_id := row.value.get("connection_id"))]
        if len(ids) != len(rows):
            # The ids become parts of keys in the archive.
            raise WrongFormatError(
                f"{self.name}: expected an id for each connection of {organization_id}, found"
                f" {len(rows) - len(ids)} of {len(rows)} without a valid id; check the domain"
            )
        return list(dict.fromkeys(ids))

    def members(self, organization_id: str, cursor: str | None, *, with_roles: bool = True) -> tuple[Page, bool]:
        """Return a page of the members of an organization, and whether the members have their roles.

        If ``with_roles`` is true, the roles are requested, but the token may not be allowed to read them. Raises
        ScopeMissingError if the token is not allowed to read members.
        """
        source = ApiList(
            path=f"organizations/{segment(organization_id)}/members",
            key="members",
            subject=f"the members of organization {organization_id}",
            scope=MEMBERS_SCOPE,
            bucket="members",
        )
        if with_roles:
            roles = (("fields", FIELDS_WITH_ROLES), ("include_fields", "true"))
            try:
                return read_page(self._client, replace(source, params=roles), cursor), True
            except ScopeMissingError as error:
                # The documented message always names both OAuth scopes. A request without roles requires only the scope
                # of members.
                if ROLES_SCOPE not in error.scopes:
                    raise
        return read_page(self._client, source, cursor), False


@dataclass(frozen=True, kw_only=True)
class OrganizationPosition(ListPosition):
    """A position in the members of an organization."""

    organization_id: str


@dataclass(frozen=True, kw_only=True)
class ReadPosition(ItemPosition):
    """A position in the list of organizations.

    ``done`` contains the ids of the organizations of the current page that were read. A count would not be sufficient,
    because a page shifts when one of its organizations is deleted. ``inside`` is the position in the organization that
    is being read.
    """

    done: tuple[str, ...] = ()
    inside: OrganizationPosition | None = None
    with_roles: bool = True
    had_roles: bool = False

    def is_done(self, item_id: str) -> bool:
        return item_id in self.done

    def with_done(self, item_id: str) -> Self:
        return replace(self, done=(*self.done, item_id), inside=None)

    def after_page(self, page: Page, *, subject: str, provider: str) -> Self:
        position = replace(self, done=(), inside=None)
        return super(ReadPosition, position).after_page(page, subject=subject, provider=provider)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the position in a JSON object, raising ArchiveConflictError if another version of Meibo wrote it."""
        position, inside = super().from_json(document), document.get("inside")
        return replace(position, done=tuple(position.done), inside=inside and OrganizationPosition.from_json(inside))


class OrganizationPages(ItemPages[OrganizationApi, ReadPosition]):
    """Rows of a tenant's organizations. A subclass reads the rows of one organization."""

    item_noun = "organizations"
    subject = ORGANIZATIONS.subject
    position_class = ReadPosition

    def items(self, position: ReadPosition) -> Page:
        page = self.api.organizations(position.cursor)
        if position.inside is None:
            return page
        # The organization that is being read must be first. Otherwise, another organization would replace its position.
        current = position.inside.organization_id
        others = [row for row in page.rows if row.value["id"] != current]
        return replace(page, rows=[RawJson({"id": current}, ""), *others])


class OrganizationList(OrganizationPages):
    """One row per organization, with its enabled connections."""

    def read(self, item: RawJson, position: ReadPosition) -> Iterator[tuple[tuple[bytes, ...], ReadPosition]]:
        """Yield the row of the organization."""
        organization_id = item.value["id"]
        line = line_with_list(item, "enabled_connections", self.api.enabled_connections(organization_id))
        yield (line,), position.with_done(organization_id)


class OrganizationMembers(OrganizationPages):
    """One row per member of an organization, with the member's roles if the token is allowed to read them."""

    def read(self, item: RawJson, position: ReadPosition) -> Iterator[tuple[tuple[bytes, ...], ReadPosition]]:
        """Yield the rows of each page of the organization's members."""
        organization_id = item.value["id"]
        inside = position.inside or OrganizationPosition(organization_id=organization_id)
        while True:
            page, with_roles = self.api.members(organization_id, inside.cursor, with_roles=position.with_roles)
            lines = tuple(line_with_id("organization_id", organization_id, member) for member in page.rows)
            had_roles = position.had_roles or (with_roles and bool(lines))
            position = replace(position, with_roles=with_roles, had_roles=had_roles)
            if page.next is None:
                yield lines, position.with_done(organization_id)
                return
            subject = f"the members of organization {organization_id}"
            inside = inside.after_page(page, subject=subject, provider=self.api.name)
            position = replace(position, inside=inside)
            yield lines, position

    def notes(self, position: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return whether the rows contain roles. The roles are direct assignments in the organization."""
        if position.get("with_roles", True):
            return {"roles": {"included": "yes", "assignments": "direct"}}
        return {
            "roles": {
                "included": "in part" if position.get("had_roles") else "no",
                "reason": f"the token does not have the OAuth scope {ROLES_SCOPE}",
            }
        }
