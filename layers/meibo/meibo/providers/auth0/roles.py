"""The roles of a tenant, their permissions and their members.

Auth0 lists direct assignments only. It does not list the users who have a role through a group:
https://auth0.com/docs/manage-users/access-control
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from meibo.errors import RequestRefusedError
from meibo.http.raw_json import JsonNumber, RawJson, line_with_id, line_with_list
from meibo.http.transport import segment
from meibo.providers.auth0.client import ApiList
from meibo.providers.auth0.pagination import (
    MAX_NUMBERED_ROWS,
    CursorWatch,
    ItemPages,
    ItemPosition,
    ListApi,
    Page,
    check_ids,
    numbered_pages,
    read_page,
)

TENANT_ROLES_SCOPE: Final = "read:roles"
ROLE_MEMBERS_SCOPE: Final = "read:users"
ROLES_SUBJECT: Final = "the list of roles"


class RoleApi(ListApi):
    """The roles of a tenant.

    ``roles`` and ``permissions`` send up to ten requests, because Auth0 returns pages of 100 rows. If a role does not
    exist, the methods raise RequestRefusedError with ``status`` 404.
    """

    def roles(self) -> list[RawJson]:
        """Return all roles, sorted by id."""
        rows = self._list("roles", "roles", ROLES_SUBJECT)
        check_ids(rows, subject=ROLES_SUBJECT, provider=self.name)
        return sorted(rows, key=lambda row: str(row.value["id"]))

    def permissions(self, role_id: str) -> list[RawJson]:
        """Return the permissions of a role."""
        return self._list(f"roles/{segment(role_id)}/permissions", "permissions", f"the permissions of role {role_id}")

    def users(self, role_id: str, cursor: str | None) -> Page:
        """Return a page of the users with a direct assignment of a role."""
        source = ApiList(
            path=f"roles/{segment(role_id)}/users",
            key="users",
            subject=f"the users of role {role_id}",
            scope=ROLE_MEMBERS_SCOPE,
            bucket="roles",
        )
        return read_page(self._client, source, cursor)

    def _list(self, path: str, key: str, subject: str) -> list[RawJson]:
        """Return all rows of a list with page numbers.

        A tenant has at most 1,000 roles, and a role at most 1,000 permissions:
        https://auth0.com/docs/troubleshoot/customer-support/operational-policies/entity-limit-policy
        """
        source = ApiList(path, key, subject, TENANT_ROLES_SCOPE, "roles", params=(("include_totals", "true"),))
        rows: list[RawJson] = []
        for page, members in numbered_pages(self._client, source):
            rows += page
            total = members.get("total")
            if not page or (isinstance(total, JsonNumber) and len(rows) >= float(total.text)):
                return rows
        raise RequestRefusedError(f"{self.name}: expected at most {MAX_NUMBERED_ROWS} rows in {subject}, found more")


@dataclass(frozen=True, kw_only=True)
class RolePosition(ItemPosition):
    """A position in the roles, which are read in the order of their ids.

    ``after`` is the last role that was read completely. ``inside`` is the role whose users are being read.
    """

    after: str = ""
    inside: str | None = None

    def is_done(self, item_id: str) -> bool:
        return item_id <= self.after

    def with_done(self, item_id: str) -> Self:
        return replace(self, after=item_id, inside=None, cursor=None, watch=CursorWatch())


class RolePages(ItemPages[RoleApi, RolePosition]):
    """Rows of a tenant's roles. A subclass reads the rows of one role."""

    item_noun = "roles"
    subject = ROLES_SUBJECT
    position_class = RolePosition

    def items(self, position: RolePosition) -> Page:  # noqa: ARG002  # all roles are read at once
        return Page(self.api.roles(), None)


class RoleList(RolePages):
    """One row per role, with its permissions."""

    def read(self, item: RawJson, position: RolePosition) -> Iterator[tuple[tuple[bytes, ...], RolePosition]]:
        """Yield the row of the role."""
        role_id = item.value["id"]
        yield (line_with_list(item, "permissions", self.api.permissions(role_id)),), position.with_done(role_id)


class RoleMembers(RolePages):
    """One row per direct assignment of a role to a user."""

    def read(self, item: RawJson, position: RolePosition) -> Iterator[tuple[tuple[bytes, ...], RolePosition]]:
        """Yield the rows of each page of the role's users."""
        role_id = item.value["id"]
        if position.inside != role_id:
            position = RolePosition(after=position.after, inside=role_id)
        while True:
            page = self.api.users(role_id, position.cursor)
            lines = tuple(line_with_id("role_id", role_id, user) for user in page.rows)
            if page.next is None:
                yield lines, position.with_done(role_id)
                return
            subject = f"the users of role {role_id}"
            position = position.after_page(page, subject=subject, provider=self.api.name)
            yield lines, position

    def notes(self, position: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002  # independent of the position
        """Return the kind of the assignments: direct assignments only."""
        return {"assignments": "direct"}
