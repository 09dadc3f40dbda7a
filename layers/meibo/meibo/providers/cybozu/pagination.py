"""Read JSON lists of the User API page by page. https://cybozu.dev/ja/common/docs/user-api/

The API has no snapshots and no cursors: if a row is added or deleted while a list is read, all later rows shift.
Therefore, each page begins with the last row of the previous page. If a page contains a row that was already read, it
is connected to the rows that were read: the order of the rows does not change, so no row between them is missing. If a
page is not connected, the rows before it are read page by page until they are connected.

The API does not mark the end of a list. A short page may not be the last page, and an empty page does not prove the
end, because rows may have shifted towards the beginning. A list ends if a page contains only the last row that was
read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Final, TypeVar

from meibo.errors import ProviderBusyError, WrongFormatError
from meibo.http.raw_json import JsonNumber, RawJson, parse_list
from meibo.http.transport import Parameters
from meibo.providers.cybozu.client import CybozuClient

# https://cybozu.dev/ja/common/docs/user-api/users/get-users/
PAGE_SIZE: Final = 100
# The API of kintone on the same platform allows 100 simultaneous requests per domain. All users of the domain share
# this limit.
MAX_CONCURRENCY: Final = 16
DEFAULT_CONCURRENCY: Final = 4
# Consecutive pages overlap by one row.
STRIDE: Final = PAGE_SIZE - 1
# If there are more consecutive pages without a new row, the list changes faster than it can be read.
MAX_PAGES_WITHOUT_NEW_ROWS: Final = 50

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class PagingReport:
    """Counts for the manifest, which are complete after the last row was read.

    ``duplicates`` is the number of rows that were read again and dropped, because the list shifted. ``skipped``
    contains the ids of organizations and groups that were deleted before their members were read.
    """

    pages: int = 0
    duplicates: int = 0
    skipped: list[str] = field(default_factory=list)

    def add(self, other: PagingReport) -> None:
        """Add the counts and ids of another report."""
        self.pages += other.pages
        self.duplicates += other.duplicates
        self.skipped += other.skipped


@dataclass(frozen=True)
class OffsetList:
    """A list of the API: its path, the key of its rows, and the keys that lead to the id in a row."""

    path: str
    key: str
    params: Parameters = ()
    identity: tuple[str, ...] = ("id",)


def page_at(client: CybozuClient, listing: OffsetList, offset: int, size: int = PAGE_SIZE) -> list[RawJson]:
    """Return a page of a list, raising WrongFormatError if the response is not a list of objects."""
    paging = (("offset", str(offset)), ("size", str(size)))
    text = client.get_text(listing.path, (*listing.params, *paging))
    try:
        items, _ = parse_list(text, listing.key)
    except ValueError:
        raise WrongFormatError(
            f"{client.name}: expected {listing.key} in {listing.path} as a list of objects, found another document;"
            " check the domain"
        ) from None
    for item in items:
        if not isinstance(item.value, dict):
            raise WrongFormatError(
                f"{client.name}: expected {listing.key} in {listing.path} as a list of objects, found"
                f" {type(item.value).__name__}; check the domain"
            )
    return items


def identity_of(client: CybozuClient, listing: OffsetList, item: RawJson) -> str:
    """Return the id of a row, raising WrongFormatError if the row has no id."""
    value = item.value
    for step in listing.identity:
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, JsonNumber):
        value = value.text
    if not isinstance(value, str) or not value:
        raise WrongFormatError(
            f"{client.name}: expected an id in each row of {listing.path}, found a row without an id"
        )
    return value


class ListReader:
    """Reads a list. The rows are returned in the order of the list, and each id occurs once."""

    def __init__(self, client: CybozuClient, listing: OffsetList, report: PagingReport) -> None:
        self.report = report
        self._client = client
        self._listing = listing
        self._seen: set[str] = set()
        self._last_id = ""
        self._end = 0
        self._max_page_rows = 0
        self._pages_without_new_rows = 0

    def first_page(self) -> list[RawJson]:
        """Return the first page, which is the argument of ``pages`` or ``one_by_one``."""
        return self._fetch_and_count(0)

    def one_by_one(self, first: list[RawJson]) -> Iterator[list[RawJson]]:
        """Yield the new rows of each page. Only one request is sent at a time, which is efficient for short lists."""
        if first:
            yield self._add(first, 0)
            yield from self._following_pages()

    def pages(self, concurrency: int, *, first: list[RawJson] | None = None) -> Iterator[list[RawJson]]:
        """Yield the new rows of each page. ``first`` is the first page, or None if it was not read.

        At most ``concurrency`` pages are requested or stored at a time, which limits the memory. Pages after the end of
        the list are ignored.
        """

        def read_page(number: int) -> list[RawJson]:
            return first if number == 0 and first is not None else self._fetch(number * STRIDE)

        for number, page in enumerate(map_in_order(read_page, count(), concurrency)):
            self.report.pages += number > 0 or first is None
            if not page:
                break
            if number == 0 or self._connects(page):
                self._count_duplicates(page)
            else:
                yield from self._pages_up_to(page)
            yield self._add(page, number * STRIDE)
        if self._seen:
            yield from self._following_pages()

    def _pages_up_to(self, page: list[RawJson]) -> Iterator[list[RawJson]]:
        for rows in self._following_pages():
            yield rows
            if self._connects(page):
                return

    def _following_pages(self) -> Iterator[list[RawJson]]:
        """Yield the new rows after the last row, page by page, until a page contains only the last row."""
        while True:
            position = self._end - 1
            page = self._fetch_and_count(position)
            # If earlier rows were deleted, the last row is nearer to the beginning. A page with any known row is
            # sufficient.
            while position > 0 and not self._connects(page):
                position = max(0, position - max(1, self._max_page_rows - 1))
                page = self._fetch_and_count(position)
            if not page or (len(page) == 1 and self._identity(page[0]) == self._last_id):
                return
            yield self._add(page, position)

    def _connects(self, page: list[RawJson]) -> bool:
        return any(self._identity(item) in self._seen for item in page)

    def _count_duplicates(self, page: list[RawJson]) -> None:
        known = [identity for item in page if (identity := self._identity(item)) in self._seen]
        # The overlap of consecutive pages is not counted.
        self.report.duplicates += len(known) - (self._last_id in known)

    def _add(self, page: list[RawJson], position: int) -> list[RawJson]:
        """Return the new rows of a page, raising ProviderBusyError after too many pages without a new row."""
        new_items: dict[str, RawJson] = {}
        for item in page:
            self._last_id = self._identity(item)
            if self._last_id in new_items:
                self.report.duplicates += 1
            elif self._last_id not in self._seen:
                new_items[self._last_id] = item
        self._seen |= new_items.keys()
        self._max_page_rows = max(self._max_page_rows, len(page))
        self._end = position + len(page)
        self._pages_without_new_rows = 0 if new_items else self._pages_without_new_rows + 1
        if self._pages_without_new_rows > MAX_PAGES_WITHOUT_NEW_ROWS:
            raise ProviderBusyError(
                f"{self._client.name}: {self._listing.path} changes faster than it can be read; the export is retried"
                " later"
            )
        return list(new_items.values())

    def _fetch_and_count(self, offset: int) -> list[RawJson]:
        self.report.pages += 1
        return self._fetch(offset)

    def _fetch(self, offset: int) -> list[RawJson]:
        return page_at(self._client, self._listing, offset)

    def _identity(self, item: RawJson) -> str:
        return identity_of(self._client, self._listing, item)


def map_in_order(work: Callable[[T], R], items: Iterable[T], concurrency: int) -> Iterator[R]:
    """Yield the results of ``work`` for the items in order. At most ``concurrency`` results are stored at a time."""
    waiting: deque[Future[R]] = deque()
    remaining = iter(items)
    with ThreadPoolExecutor(concurrency, thread_name_prefix="pages") as pool:
        try:
            while True:
                for item in islice(remaining, concurrency - len(waiting)):
                    waiting.append(pool.submit(work, item))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            # If the caller stops early or a call fails, waiting calls are canceled, and active calls are completed.
            pool.shutdown(wait=False, cancel_futures=True)
