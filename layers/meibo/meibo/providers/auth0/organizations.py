"""Requests of the organizations of a tenant, their connections and their members.

Lists are read with checkpoint paging (``take`` and ``from``), which has no limit of 1,000 records:
https://auth0.com/docs/manage-users/organizations/configure-organizations/retrieve-organizations
https://auth0.com/docs/api/management/v2/organizations/get-organization-members
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from meibo.errors import RequestRefusedError, ScopeMissingError, WrongFormatError
from meibo.http.raw_json import RawJson
from meibo.http.transport import Parameters, is_id, segment
from meibo.providers.auth0.client import Auth0Client

MAX_PAGE_SIZE: Final = 100
# An empty page with a cursor is not documented. After this number of consecutive empty pages, the list is considered
# endless.
MAX_EMPTY_PAGES: Final = 10
ORGANIZATIONS_SCOPE: Final = "read:organizations"
ENABLED_CONNECTIONS_SCOPE: Final = "read:organization_connections"
MEMBERS_SCOPE: Final = "read:organization_members"
ROLES_SCOPE: Final = "read:organization_member_roles"
# An organization has at most ten connections (https://auth0.com/docs/troubleshoot/customer-support/operational-policies/
# entity-limit-policy). It is not documented whether the endpoint has pages; one page contains all connections.
ENABLED_CONNECTIONS_PER_PAGE: Final = 50
# The response contains roles only if "fields" names them, and "fields" has to name every field.
FIELDS_WITH_ROLES: Final = "user_id,email,picture,name,roles"


@dataclass(frozen=True)
class Page:
    """Rows, and the cursor of the next page: None after the last page. A cursor is valid for 24 hours."""

    rows: list[RawJson] = field(repr=False)
    next: str | None


@dataclass(frozen=True)
class CheckpointList:
    """A list of the API: its path, the key of its rows, its name in messages, its OAuth scope and its rate limit."""

    path: str
    key: str
    subject: str
    scope: str
    bucket: str
    params: Parameters = ()


def read_page(client: Auth0Client, source: CheckpointList, cursor: str | None) -> Page:
    """Return the first page of a list, or the page at a cursor.

    A list ends with a page without a cursor, which for members was observed to be an empty page.
    """
    rows, members = client.request_list(
        source.path,
        source.key,
        params=(*source.params, ("take", str(MAX_PAGE_SIZE)), *((("from", cursor),) if cursor else ())),
        subject=source.subject,
        scope=source.scope,
        bucket=source.bucket,
    )
    next_cursor = members.get("next")
    if next_cursor is not None and not isinstance(next_cursor, str):
        # Not the last page: the rest of the list would be missing without an error.
        raise WrongFormatError(
            f"{client.name}: expected a string as the cursor of {source.subject}, found {type(next_cursor).__name__}"
        )
    return Page(rows, next_cursor or None)


@dataclass(frozen=True)
class CursorWatch:
    """Detects a list that does not end, across invocations that each read some pages.

    It stores one cursor, at distances that double (Brent's algorithm). A cycle of any length is found within three
    rounds, and the state that is passed to the next invocation stays small.
    """

    mark: str | None = field(default=None, repr=False)
    steps: int = 0
    until: int = 1
    empty: int = 0

    def after(self, page: Page, *, subject: str, provider: str) -> CursorWatch:
        """Return the watch after this page, raising RequestRefusedError if the list does not end."""
        empty = 0 if page.rows else self.empty + 1
        if page.next == self.mark or empty >= MAX_EMPTY_PAGES:
            fault = "repeats" if page.next == self.mark else "leads to empty pages only"
            raise RequestRefusedError(
                f"{provider}: expected the last page of {subject}, but its cursor {fault}; repair the run later"
            )
        if self.steps + 1 == self.until:
            return CursorWatch(page.next, 0, self.until * 2, empty)
        return CursorWatch(self.mark, self.steps + 1, self.until, empty)


ORGANIZATIONS: Final = CheckpointList(
    path="organizations",
    key="organizations",
    subject="the list of organizations",
    scope=ORGANIZATIONS_SCOPE,
    bucket="organizations",
)


class OrganizationApi:
    """The organizations of a tenant. Each method sends one request, or two if the OAuth scope for roles is missing."""

    def __init__(self, client: Auth0Client) -> None:
        self.name = client.name
        self._client = client

    def organizations(self, cursor: str | None) -> Page:
        """Return a page of the list of organizations, each as Auth0 describes it."""
        return read_page(self._client, ORGANIZATIONS, cursor)

    def enabled_connections(self, organization_id: str) -> list[RawJson]:
        """Return the enabled connections of an organization, if any.

        Raises RequestRefusedError with ``status`` 404 if the organization does not exist.
        """
        # "limit" in the response is the number of items, so neither it nor "total" shows whether there are more pages.
        rows, _ = self._client.request_list(
            f"organizations/{segment(organization_id)}/enabled_connections",
            "enabled_connections",
            params=(("per_page", str(ENABLED_CONNECTIONS_PER_PAGE)), ("page", "0"), ("include_totals", "true")),
            subject=f"the connections of organization {organization_id}",
            scope=ENABLED_CONNECTIONS_SCOPE,
            bucket="enabled_connections",
        )
        return rows

    def connection_ids(self, organization_id: str) -> list[str]:
        """Return the ids of an organization's connections, raising RequestRefusedError if it has none."""
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
        """Return a page of the members of an organization, and whether it contains their roles.

        With ``with_roles`` the roles are requested, but Auth0 may return members only without them. Raises
        RequestRefusedError with ``status`` 404 if the organization does not exist, and ScopeMissingError if the token
        is not allowed to read members.
        """
        source = CheckpointList(
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
                # The documented message names both OAuth scopes, whichever is missing. A request without roles needs
                # only the scope of members.
                if ROLES_SCOPE not in error.scopes:
                    raise
        return read_page(self._client, source, cursor), False
