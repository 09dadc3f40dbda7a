"""Read the organizations of a tenant with their connections and members.

https://auth0.com/docs/api/management/v2/organizations/get-organization-members
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from meibo.errors import RequestRefusedError, ScopeMissingError, WrongFormatError
from meibo.http.transport import is_id, segment
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.pagination import Listing, Page, checkpoint_pages

ENABLED_CONNECTIONS_SCOPE: Final = "read:organization_connections"
MEMBERS_SCOPE: Final = "read:organization_members"
ROLES_SCOPE: Final = "read:organization_member_roles"
ORGANIZATIONS: Final = Listing(
    path="organizations",
    key="organizations",
    subject="the list of organizations",
    scope="read:organizations",
    bucket="organizations",
)
# An organization has at most ten connections (https://auth0.com/docs/troubleshoot/customer-support/operational-policies/
# entity-limit-policy). It is not documented whether the endpoint has pages; one page contains all connections.
ENABLED_CONNECTIONS_PER_PAGE: Final = 50
# The response contains roles only if "fields" names them, and "fields" has to name every field.
FIELDS_WITH_ROLES: Final = "user_id,email,picture,name,roles"


def organizations(client: Auth0Client, cursor: str | None = None) -> Iterator[Page]:
    """Yield every organization as Auth0 describes it, page by page, from the beginning or from a cursor."""
    return checkpoint_pages(client, ORGANIZATIONS, cursor)


def enabled_connections(client: Auth0Client, organization_id: str) -> list[dict[str, Any]]:
    """Return the enabled connections of an organization as Auth0 describes them; there may be none.

    Raises RequestRefusedError with ``status`` 404 if the organization does not exist (any more).
    """
    document = client.get(
        f"organizations/{segment(organization_id)}/enabled_connections",
        params=(("per_page", str(ENABLED_CONNECTIONS_PER_PAGE)), ("page", "0"), ("include_totals", "true")),
        subject=f"the connections of organization {organization_id}",
        scope=ENABLED_CONNECTIONS_SCOPE,
        bucket="enabled_connections",
    )
    # "limit" in the response is the number of items, so neither it nor "total" shows whether there are more pages.
    rows = document.get("enabled_connections") if isinstance(document, dict) else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise WrongFormatError(
            f"{client.name}: expected a list of connections of organization {organization_id}, found something else"
        )
    return rows


def organization_connections(client: Auth0Client, organization_id: str) -> list[str]:
    """Return the ids of an organization's connections, raising RequestRefusedError if it has none."""
    rows = enabled_connections(client, organization_id)
    if not rows:
        raise RequestRefusedError(
            f"{client.name}: organization {organization_id} has no enabled connection, so it has no users to export;"
            " enable a connection or remove the organization from the configuration"
        )
    ids = [connection_id for row in rows if is_id(connection_id := row.get("connection_id"))]
    if len(ids) != len(rows):
        # The ids become parts of keys in the archive.
        raise WrongFormatError(
            f"{client.name}: expected an id for each connection of {organization_id}, found something else"
        )
    return list(dict.fromkeys(ids))


class MemberReader:
    """Members of one tenant's organizations.

    ``with_roles`` starts as True and becomes False if Auth0 returns members only without their roles. It stays False
    for the following organizations, so that the manifest can state what the file contains.
    """

    def __init__(self, client: Auth0Client, *, with_roles: bool = True) -> None:
        self.with_roles = with_roles
        self._client = client

    def pages(self, organization_id: str, cursor: str | None = None) -> Iterator[Page]:
        """Yield the members by pages, from the beginning or from a cursor.

        Raises RequestRefusedError with ``status`` 404 if the organization does not exist (any more), ScopeMissingError
        if the token may not read the members at all.
        """
        pages = checkpoint_pages(self._client, self._listing(organization_id, self.with_roles), cursor)
        try:
            first = next(pages)
        except ScopeMissingError as error:
            if not self.with_roles or ROLES_SCOPE not in error.scopes:
                raise
            # The documented message names both OAuth scopes, whichever is missing. A request without roles needs only
            # the scope of members.
            pages = checkpoint_pages(self._client, self._listing(organization_id, with_roles=False), cursor)
            first = next(pages)
            self.with_roles = False
        yield first
        yield from pages

    def _listing(self, organization_id: str, with_roles: bool) -> Listing:
        return Listing(
            path=f"organizations/{segment(organization_id)}/members",
            key="members",
            subject=f"the members of organization {organization_id}",
            scope=MEMBERS_SCOPE,
            bucket="members",
            params=(("fields", FIELDS_WITH_ROLES), ("include_fields", "true")) if with_roles else (),
        )
