"""Read the roles of a tenant, their permissions and their members.

Auth0 lists direct assignments only, and not the users who have a role through a group:
https://auth0.com/docs/manage-users/access-control
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from meibo.errors import RequestRefusedError
from meibo.http.raw_json import JsonNumber, RawJson, line_with_list
from meibo.http.transport import segment
from meibo.providers.auth0.client import ApiList
from meibo.providers.auth0.pagination import (
    MAX_NUMBERED_ROWS,
    ItemPages,
    ItemPosition,
    ListApi,
    MemberPages,
    Page,
    numbered_pages,
    read_page,
)

TENANT_ROLES_SCOPE: Final = "read:roles"
ROLE_MEMBERS_SCOPE: Final = "read:users"


class RoleApi(ListApi):
    """The methods that read the roles of a tenant.

    ``roles`` and ``permissions`` send up to ten requests, because Auth0 returns at most 100 rows per page. If a role
    does not exist, the methods raise RequestRefusedError with ``status`` 404.
    """

    item_noun = "roles"

    def items(self, cursor: str | None) -> Page:  # noqa: ARG002  # one page
        return Page(self.roles(), None)

    def roles(self) -> list[RawJson]:
        """Return all roles, sorted by id."""
        rows = self._check_ids(self._list("roles", "roles", self.subject))
        return sorted(rows, key=lambda row: str(row.value["id"]))

    def permissions(self, role_id: str) -> list[RawJson]:
        """Return the permissions of a role."""
        return self._list(f"roles/{segment(role_id)}/permissions", "permissions", f"the permissions of role {role_id}")

    def users(self, role_id: str, cursor: str | None) -> Page:
        """Return a page of the users that have a direct assignment of a role."""
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


class RoleList(ItemPages[RoleApi]):
    """One row per role, with its permissions."""

    def read(self, item: RawJson, position: ItemPosition) -> Iterator[tuple[tuple[bytes, ...], ItemPosition]]:
        """Yield the row of the role."""
        role_id = item.value["id"]
        yield (line_with_list(item, "permissions", self.api.permissions(role_id)),), position.after_item(role_id)


class RoleMembers(MemberPages[RoleApi]):
    """One row per direct assignment of a role to a user."""

    id_key = "role_id"
    members_subject = "the users of role"

    def members(self, item_id: str, cursor: str | None, position: ItemPosition) -> tuple[Page, ItemPosition]:
        return self.api.users(item_id, cursor), position

    def notes(self, position: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002  # independent of the position
        """Return a note that the rows contain direct assignments only."""
        return {"assignments": "direct"}
