"""Read the roles of a tenant, request by request; the reading can stop after any request and resume later.

Auth0 lists direct assignments only. It does not list the users who have a role through a group:
https://auth0.com/docs/manage-users/access-control
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Final, Self

from meibo.errors import ArchiveConflictError, RequestRefusedError, WrongFormatError
from meibo.http.raw_json import JsonNumber, RawJson, line_with_id, line_with_list
from meibo.http.transport import is_id, segment
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.organizations import CheckpointList, CursorWatch, Page, read_page
from meibo.providers.base import PageResult, Pages

TENANT_ROLES_SCOPE: Final = "read:roles"
ROLE_MEMBERS_SCOPE: Final = "read:users"
ROWS_PER_PAGE: Final = 100
# Lists by page number return at most 1,000 rows. A tenant has at most 1,000 roles, and a role 1,000 permissions:
# https://auth0.com/docs/troubleshoot/customer-support/operational-policies/entity-limit-policy
MAX_ROWS: Final = 1000


class RoleApi:
    """The roles of a tenant."""

    def __init__(self, client: Auth0Client) -> None:
        self.name = client.name
        self._client = client

    def roles(self) -> list[RawJson]:
        """Return all roles in the order of their ids."""
        rows = self._list("roles", "roles", "the list of roles")
        if not all(is_id(row.value.get("id")) for row in rows):
            raise WrongFormatError(f"{self.name}: expected an id in each role, found a role without an id")
        return sorted(rows, key=lambda row: str(row.value["id"]))

    def permissions(self, role_id: str) -> list[RawJson]:
        """Return the permissions of a role.

        Raises RequestRefusedError with ``status`` 404 if the role does not exist or no longer exists.
        """
        return self._list(f"roles/{segment(role_id)}/permissions", "permissions", f"the permissions of role {role_id}")

    def users(self, role_id: str, cursor: str | None) -> Page:
        """Return a page of the users with a direct assignment of a role.

        Raises RequestRefusedError with ``status`` 404 if the role does not exist or no longer exists.
        """
        listing = CheckpointList(
            path=f"roles/{segment(role_id)}/users",
            key="users",
            subject=f"the users of role {role_id}",
            scope=ROLE_MEMBERS_SCOPE,
            bucket="roles",
        )
        return read_page(self._client, listing, cursor)

    def _list(self, path: str, key: str, subject: str) -> list[RawJson]:
        rows: list[RawJson] = []
        for page in range(MAX_ROWS // ROWS_PER_PAGE):
            page_rows, members = self._client.request_list(
                path,
                key,
                params=(("page", str(page)), ("per_page", str(ROWS_PER_PAGE)), ("include_totals", "true")),
                subject=subject,
                scope=TENANT_ROLES_SCOPE,
                bucket="roles",
            )
            rows += page_rows
            total = members.get("total")
            # A page may be shorter than requested, so only an empty page or the total shows the end.
            if not page_rows or (isinstance(total, JsonNumber) and len(rows) >= float(total.text)):
                return rows
        raise RequestRefusedError(f"{self.name}: expected at most {MAX_ROWS} rows in {subject}, found more")


@dataclass(frozen=True)
class RolePosition:
    """The last role that is done, and the cursor in the users of the role ``inside`` that is being read.

    Roles are read in the order of their ids.
    """

    after: str = ""
    inside: str | None = None
    cursor: str | None = field(default=None, repr=False)
    watch: CursorWatch = field(default_factory=CursorWatch, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that is stored with a part."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the JSON form, raising ArchiveConflictError if another version of Meibo wrote it."""
        try:
            return cls(**{**document, "watch": CursorWatch(**document["watch"])})
        except (KeyError, TypeError):
            raise ArchiveConflictError(
                "a part was written by another version of Meibo; repair the run to start this export again"
            ) from None


class RolePages(Pages):
    """Rows of a tenant's roles. A subclass reads the rows of one role."""

    unit: ClassVar[str] = "roles"

    def __init__(self, api: RoleApi) -> None:
        self.api = api

    @classmethod
    def of(cls, client: Auth0Client) -> Self:
        """Return the pages of the client's tenant."""
        return cls(RoleApi(client))

    def results(self, position: Mapping[str, Any] | None) -> Iterator[PageResult]:
        """Yield the result of each request; after an error, the position of the last result resumes the reading."""
        at = RolePosition() if position is None else RolePosition.from_json(position)
        for row in self.api.roles():
            role_id = row.value["id"]
            if role_id <= at.after:
                continue
            try:
                for lines, at in self.read(row, at):  # noqa: B020  # each result has a new position
                    yield PageResult(lines, at.to_json(), finished=role_id if at.after == role_id else None)
            except RequestRefusedError as error:
                if not error.is_missing:
                    raise
                at = RolePosition(after=role_id)
                yield PageResult((), at.to_json(), skipped=role_id)

    @abstractmethod
    def read(self, row: RawJson, position: RolePosition) -> Iterator[tuple[tuple[bytes, ...], RolePosition]]:
        """Yield the lines of each request for one role, with the position after them."""


class RoleList(RolePages):
    """One row per role, with its permissions."""

    def read(self, row: RawJson, position: RolePosition) -> Iterator[tuple[tuple[bytes, ...], RolePosition]]:  # noqa: ARG002  # the row is read at once
        """Yield the role's row."""
        role_id = row.value["id"]
        yield (line_with_list(row, "permissions", self.api.permissions(role_id)),), RolePosition(after=role_id)


class RoleMembers(RolePages):
    """One row per direct assignment of a role to a user."""

    def read(self, row: RawJson, position: RolePosition) -> Iterator[tuple[tuple[bytes, ...], RolePosition]]:
        """Yield the rows of each page of the role's users."""
        role_id = row.value["id"]
        if position.inside != role_id:
            position = RolePosition(after=position.after, inside=role_id)
        while True:
            page = self.api.users(role_id, position.cursor)
            lines = tuple(line_with_id("role_id", role_id, user) for user in page.rows)
            if page.next is None:
                yield lines, RolePosition(after=role_id)
                return
            watch = position.watch.after(page, subject=f"the users of role {role_id}", provider=self.api.name)
            position = replace(position, cursor=page.next, watch=watch)
            yield lines, position

    def notes(self, position: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002  # independent of the position
        """Return that the rows are direct assignments."""
        return {"assignments": "direct"}
