"""The organizations of a tenant. https://auth0.com/docs/api/management/v2/organizations/get-organizations"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meibo.auth0.client import Auth0Client
from meibo.auth0.paging import Listing, Page, checkpoint_pages

ORGANIZATIONS: Final = Listing(
    path="organizations",
    key="organizations",
    subject="the list of organizations",
    scope="read:organizations",
    bucket="organizations",
)


def organizations(client: Auth0Client, cursor: str | None = None) -> Iterator[Page]:
    """Yield every organization as Auth0 describes it, by pages, from the beginning or from a cursor."""
    return checkpoint_pages(client, ORGANIZATIONS, cursor)
