"""Checkpoint paging of the Management API: ``take`` and ``from``, without the offset's limit of 1,000 records.

https://auth0.com/docs/manage-users/organizations/configure-organizations/retrieve-organizations
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.http.transport import Parameters
from meibo.providers.auth0.client import Auth0Client

MAX_PAGE_SIZE: Final = 100
# An empty page with a cursor behind it is not documented; so many in a row are not a list any more.
MAX_EMPTY_PAGES: Final = 10


@dataclass(frozen=True)
class Page:
    """Rows, and the cursor to go on from: None after the last page. Auth0 keeps a cursor for 24 hours."""

    rows: list[dict[str, Any]] = field(repr=False)
    next: str | None


@dataclass(frozen=True)
class Listing:
    """A list of the API: its path, the key of its rows, and how messages and limits name it."""

    path: str
    key: str
    subject: str
    scope: str
    bucket: str
    params: Parameters = ()


def checkpoint_pages(client: Auth0Client, listing: Listing, cursor: str | None = None) -> Iterator[Page]:
    """Yield pages from the beginning or from a cursor; a caller may stop and go on from a page's ``next``.

    Both ends are known: members' pages had a cursor up to an empty page, others have none on their last page. A
    cursor that repeats would never end; it raises RequestRefusedError.
    """
    seen = {cursor}
    empty = 0
    while True:
        params = (*listing.params, ("take", str(MAX_PAGE_SIZE)), *((("from", cursor),) if cursor else ()))
        document = client.get(
            listing.path, params=params, subject=listing.subject, scope=listing.scope, bucket=listing.bucket
        )
        page = _page(client, listing, document)
        yield page
        if page.next is None:
            return
        empty = 0 if page.rows else empty + 1
        if page.next in seen or empty >= MAX_EMPTY_PAGES:
            raise _endless(listing.subject, client.name, repeats=page.next in seen)
        seen.add(page.next)
        cursor = page.next


@dataclass(frozen=True)
class CursorWatch:
    """Notices a list without an end across invocations, for who takes one page at a time.

    Only one cursor is remembered, at distances that double (Brent's algorithm), so a cycle of any length is found
    after at most three rounds of it, and what travels from one invocation to the next stays small.
    """

    mark: str | None = field(default=None, repr=False)
    steps: int = 0
    until: int = 1
    empty: int = 0

    def after(self, page: Page, *, subject: str, provider: str) -> CursorWatch:
        """Return the watch that has seen this page; raises RequestRefusedError where there is no end."""
        empty = 0 if page.rows else self.empty + 1
        if page.next == self.mark or empty >= MAX_EMPTY_PAGES:
            raise _endless(subject, provider, repeats=page.next == self.mark)
        if self.steps + 1 == self.until:
            return CursorWatch(page.next, 0, self.until * 2, empty)
        return CursorWatch(self.mark, self.steps + 1, self.until, empty)


def _endless(subject: str, provider: str, *, repeats: bool) -> RequestRefusedError:
    return RequestRefusedError(
        f"{provider} does not come to an end of {subject}: its cursor"
        f" {'repeats' if repeats else 'leads to empty pages only'}; try again later"
    )


def _page(client: Auth0Client, listing: Listing, document: Any) -> Page:
    # A bare list has no cursor: some endpoints answer so where they take no notice of ``take``.
    rows = document.get(listing.key) if isinstance(document, dict) else document
    following = document.get("next") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise WrongFormatError(f"{client.name} answered something other than {listing.subject}")
    if following is not None and not isinstance(following, str):
        # Not taken for the last page: the rest of the list would be missing without a trace.
        raise WrongFormatError(
            f"{client.name} answered {listing.subject} with a cursor of type {type(following).__name__};"
            " expected a string"
        )
    return Page(rows, following or None)
