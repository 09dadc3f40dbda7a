"""Single pages of a JSON list, and what is said of many. https://cybozu.dev/ja/common/docs/user-api/"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from meibo.cybozu.client import CybozuClient
from meibo.cybozu.slices import Item, items
from meibo.errors import ConfigurationError, WrongFormatError
from meibo.exchange import Parameters

# https://cybozu.dev/ja/common/docs/user-api/users/get-users/
PAGE_SIZE: Final = 100
# Simultaneous requests of kintone's API on the same platform are limited to 100 a domain; people work there too.
MOST_CONCURRENCY: Final = 16


@dataclass
class PagingReport:
    """What a walk through a list met; complete when its last row was taken.

    ``duplicates`` are rows that were met again because the list moved, and dropped. ``gaps`` counts where rows
    had moved away between two pages, or the domain gave fewer than asked, and were fetched by themselves.
    ``gone`` are the ids of what was listed and not there any more when its members were asked for.
    """

    pages: int = 0
    rows: int = 0
    duplicates: int = 0
    gaps: int = 0
    gone: list[str] = field(default_factory=list)

    def add(self, other: PagingReport) -> None:
        """Take in the report of a part."""
        self.pages += other.pages
        self.rows += other.rows
        self.duplicates += other.duplicates
        self.gaps += other.gaps
        self.gone += other.gone


@dataclass(frozen=True)
class Listing:
    """A list of the API: its path, the key of its rows, and where in a row its id is."""

    path: str
    key: str
    params: Parameters = ()
    identity: tuple[str, ...] = ("id",)


def page_at(client: CybozuClient, listing: Listing, offset: int, size: int = PAGE_SIZE) -> list[Item]:
    """Return one page of a list; raises WrongFormatError where the answer is not a list of objects."""
    paging = (("offset", str(offset)), ("size", str(size)))
    text = client.get_text(listing.path, (*listing.params, *paging))
    try:
        found = items(text, listing.key)
    except ValueError:
        found = None
    if found is None or not all(isinstance(item.value, dict) for item in found):
        raise WrongFormatError(f"{client.name} answered {listing.path} with something other than {listing.key}")
    return found


def identity_of(client: CybozuClient, listing: Listing, item: Item) -> str:
    """Return a row's id; raises WrongFormatError where it has none."""
    value = item.value
    for step in listing.identity:
        value = value.get(step) if isinstance(value, dict) else None
    # Documented as a string, of more digits than a float holds; a number arrives here as text too.
    if not isinstance(value, str) or not value:
        raise WrongFormatError(f"{client.name} answered {listing.path} with a row without an id")
    return value


def lines(found: Iterable[list[Item]]) -> Iterator[bytes]:
    """Yield each page as a piece of NDJSON, the rows as received."""
    for page in found:
        if page:
            yield ("\n".join(item.line for item in page) + "\n").encode()


def check_concurrency(concurrency: int) -> None:
    """Raise ConfigurationError for a number of pages in flight that is not sensible."""
    if not 1 <= concurrency <= MOST_CONCURRENCY:
        raise ConfigurationError(f"concurrency must be from 1 to {MOST_CONCURRENCY}")
