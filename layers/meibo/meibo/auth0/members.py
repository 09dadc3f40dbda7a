"""The members of an organization, with their roles where the token may read them.

https://auth0.com/docs/api/management/v2/organizations/get-organization-members
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meibo.auth0.client import Auth0Client
from meibo.auth0.paging import Listing, Page, checkpoint_pages
from meibo.errors import ScopeMissingError
from meibo.exchange import segment

MEMBERS_SCOPE: Final = "read:organization_members"
ROLES_SCOPE: Final = "read:organization_member_roles"
# "roles" is left out of the answer unless it is asked for, and asking for one field means naming all.
FIELDS_WITH_ROLES: Final = "user_id,email,picture,name,roles"


class MemberReader:
    """Reads members of one tenant's organizations.

    ``with_roles`` starts as True and becomes False if Auth0 returns members only without their roles. It stays False
    for the following organizations, so that the archive can state what it holds.
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
            # The documented message names both OAuth scopes, whichever is missing; only a request without roles tells.
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
