"""Read JSON lists of the User API page by page. https://cybozu.dev/ja/common/docs/user-api/

The API has no snapshot and no cursor: whoever joins or leaves meanwhile moves everybody behind. So each page is
asked for from the last row of the page before. A page that holds a row that is known already connects to what was
read, because rows keep their order: nothing that stays in the list lies between. A page that holds none does not;
then the rows between are read one page after the other until it does.

The API also does not tell the end: a short page need not be the last, an empty one proves nothing where rows moved
towards the beginning. The end is where the last known row stands alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Final, TypeVar

from meibo.errors import ConfigurationError, ProviderBusyError, WrongFormatError
from meibo.http.transport import Parameters
from meibo.providers.cybozu.client import CybozuClient
from meibo.providers.cybozu.raw_json import Item, parse_items

# https://cybozu.dev/ja/common/docs/user-api/users/get-users/
PAGE_SIZE: Final = 100
# Simultaneous requests of kintone's API on the same platform are limited to 100 a domain; people work there too.
MAX_CONCURRENCY: Final = 16
DEFAULT_CONCURRENCY: Final = 4


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
        found = parse_items(text, listing.key)
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
    if not 1 <= concurrency <= MAX_CONCURRENCY:
        raise ConfigurationError(f"concurrency must be from 1 to {MAX_CONCURRENCY}")


# One row less than a page holds, for the row that two pages share.
STRIDE: Final = PAGE_SIZE - 1
# So many pages in a row without a new row happen only where a list changes faster than it can be read.
MAX_PAGES_WITHOUT_NEW_ROWS: Final = 50

T = TypeVar("T")
R = TypeVar("R")


class ListReader:
    """One walk through one list. Rows come in the list's order, each id once."""

    def __init__(self, client: CybozuClient, listing: Listing, report: PagingReport) -> None:
        self.report = report
        self._client = client
        self._listing = listing
        self._seen: set[str] = set()
        self._last = ""
        self._end = 0
        self._longest = 0

    def first_page(self) -> list[Item]:
        """Return the first page as it is, for ``pages`` or ``one_by_one`` to go on from."""
        return self._fetch_counted(0)

    def one_by_one(self, first: list[Item]) -> Iterator[list[Item]]:
        """Yield the new rows of each page, one page in flight: the way of fewest requests for a short list."""
        if first:
            yield self._take(first, 0)
            yield from self._onwards()

    def pages(self, concurrency: int, *, first: list[Item] | None = None) -> Iterator[list[Item]]:
        """Yield the new rows of each page; ``first`` is the first page, where the caller has it already.

        At most ``concurrency`` pages are in flight or wait to be taken, which bounds memory. Those behind the end
        were asked for in vain and are not looked at.
        """
        check_concurrency(concurrency)

        def numbered(number: int) -> list[Item]:
            return first if number == 0 and first is not None else self._fetch(number * STRIDE)

        futile = 0
        for number, page in enumerate(map_in_order(numbered, count(), concurrency)):
            self.report.pages += number > 0 or first is None
            if not page:
                break
            if number == 0 or self._connects(page):
                self._count_duplicates(page)
            else:
                self.report.gaps += 1
                yield from self._up_to(page)
            rows = self._take(page, number * STRIDE)
            futile = self._futile(rows, futile)
            yield rows
        if self._seen:
            before = self.report.rows
            yield from self._onwards()
            self.report.gaps += self.report.rows > before

    def _up_to(self, page: list[Item]) -> Iterator[list[Item]]:
        for rows in self._onwards():
            yield rows
            if self._connects(page):
                return

    def _onwards(self) -> Iterator[list[Item]]:
        """Yield the new rows behind the last one, page after page, until it stands alone."""
        futile = 0
        while True:
            position, page = self._from_the_last()
            if not page or (len(page) == 1 and self._identity(page[0]) == self._last):
                return
            rows = self._take(page, position)
            futile = self._futile(rows, futile)
            yield rows

    def _futile(self, rows: list[Item], before: int) -> int:
        """Return how many pages in a row brought no new row; raises ProviderBusyError if there were too many."""
        futile = 0 if rows else before + 1
        if futile > MAX_PAGES_WITHOUT_NEW_ROWS:
            raise ProviderBusyError(
                f"{self._client.name} changes {self._listing.path} faster than it can be read; it is tried again later"
            )
        return futile

    def _from_the_last(self) -> tuple[int, list[Item]]:
        position = self._end - 1
        page = self._fetch_counted(position)
        # Rows that left in front of the last one moved it towards the beginning; any row that is known will do.
        while position > 0 and not self._connects(page):
            position = max(0, position - max(1, self._longest - 1))
            page = self._fetch_counted(position)
        return position, page

    def _connects(self, page: list[Item]) -> bool:
        return any(self._identity(item) in self._seen for item in page)

    def _count_duplicates(self, page: list[Item]) -> None:
        known = [identity for item in page if (identity := self._identity(item)) in self._seen]
        # The row that both pages share was asked for twice on purpose.
        self.report.duplicates += len(known) - (self._last in known)

    def _take(self, page: list[Item], position: int) -> list[Item]:
        fresh: dict[str, Item] = {}
        for item in page:
            self._last = self._identity(item)
            if self._last in fresh:
                self.report.duplicates += 1
            elif self._last not in self._seen:
                fresh[self._last] = item
        self._seen |= fresh.keys()
        self._longest = max(self._longest, len(page))
        self._end = position + len(page)
        self.report.rows += len(fresh)
        return list(fresh.values())

    def _fetch_counted(self, offset: int) -> list[Item]:
        self.report.pages += 1
        return self._fetch(offset)

    def _fetch(self, offset: int) -> list[Item]:
        return page_at(self._client, self._listing, offset)

    def _identity(self, item: Item) -> str:
        return identity_of(self._client, self._listing, item)


def read_list(
    client: CybozuClient, listing: Listing, *, concurrency: int, report: PagingReport
) -> Iterator[list[Item]]:
    """Yield the rows of a whole list by pages, each id once; what it met is told in ``report``."""
    return ListReader(client, listing, report).pages(concurrency)


def map_in_order(work: Callable[[T], R], subjects: Iterable[T], concurrency: int) -> Iterator[R]:
    """Yield the results of work on each subject in the subjects' order, so many at a time."""
    waiting: deque[Future[R]] = deque()
    following = iter(subjects)
    with ThreadPoolExecutor(concurrency, thread_name_prefix="pages") as pool:
        try:
            while True:
                for subject in islice(following, concurrency - len(waiting)):
                    waiting.append(pool.submit(work, subject))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            # Also when the caller stops early or a page fails: nothing new starts, what runs is waited for.
            pool.shutdown(wait=False, cancel_futures=True)
