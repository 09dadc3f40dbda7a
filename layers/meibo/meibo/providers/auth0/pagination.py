"""Checkpoint paging of the Management API: ``take`` and ``from``, without the offset's limit of 1,000 records.

https://auth0.com/docs/manage-users/organizations/configure-organizations/retrieve-organizations
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.http.transport import Parameters
from meibo.providers.auth0.client import Auth0Client

MAX_PAGE_SIZE: Final = 100
# An empty page with a cursor is not documented. So many in a row mean that the list does not end.
MAX_EMPTY_PAGES: Final = 10


@dataclass(frozen=True)
class Page:
    """Rows, and the cursor of the next page: None after the last page. A cursor is valid for 24 hours."""

    rows: list[dict[str, Any]] = field(repr=False)
    next: str | None


@dataclass(frozen=True)
class Listing:
    """A list of the API: its path, the key of its rows, its name in messages, its OAuth scope and its rate limit."""

    path: str
    key: str
    subject: str
    scope: str
    bucket: str
    params: Parameters = ()


def read_page(client: Auth0Client, listing: Listing, cursor: str | None) -> Page:
    """Return the first page of a list, or the page at a cursor.

    A list ends with a page without a cursor, which for members was observed to be an empty page.
    """
    document = client.request(
        "GET",
        listing.path,
        params=(*listing.params, ("take", str(MAX_PAGE_SIZE)), *((("from", cursor),) if cursor else ())),
        subject=listing.subject,
        scope=listing.scope,
        bucket=listing.bucket,
    )
    rows = client.rows(document, listing.key, listing.subject)
    # Endpoints that ignore ``take`` return an array, which has no cursor.
    following = document.get("next") if isinstance(document, dict) else None
    if following is not None and not isinstance(following, str):
        # Not the last page: the rest of the list would be missing without an error.
        raise WrongFormatError(
            f"{client.name}: expected a string as the cursor of {listing.subject}, found {type(following).__name__}"
        )
    return Page(rows, following or None)


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
                f"{provider}: expected an end of {subject}, but its cursor {fault}; try again later"
            )
        if self.steps + 1 == self.until:
            return CursorWatch(page.next, 0, self.until * 2, empty)
        return CursorWatch(self.mark, self.steps + 1, self.until, empty)
