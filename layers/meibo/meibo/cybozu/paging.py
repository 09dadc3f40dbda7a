"""Pages of a JSON list, several in flight, in order. https://cybozu.dev/ja/common/docs/user-api/

Answers tell neither a total nor whether there is more: an empty page is the only end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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
    """What a walk through pages met; complete when its last row was taken."""

    pages: int = 0
    rows: int = 0
    duplicates: int = 0
    gaps: int = 0


@dataclass(frozen=True)
class Listing:
    """A list of the API: its path, the key of its rows and parameters that stay the same on each page."""

    path: str
    key: str
    params: Parameters = ()


def pages(client: CybozuClient, listing: Listing, *, concurrency: int, report: PagingReport) -> Iterator[list[Item]]:
    """Yield the rows of each page in order, until the first page that is empty.

    At most ``concurrency`` pages are in flight or wait to be taken, which bounds memory. Pages after the first
    empty one were asked for in vain and are not looked at.

    A short page is not an end. If another follows it, rows may lie between them, because the domain gives fewer
    rows a page than asked; those are asked for one after the other (``report.gaps``).
    """
    check_concurrency(concurrency)

    def fetch(offset: int, size: int) -> list[Item]:
        paging = (("offset", str(offset)), ("size", str(size)))
        return rows(client, listing.path, listing.key, (*listing.params, *paging))

    short: tuple[int, int] | None = None
    for number, page in enumerate(_in_order(lambda index: fetch(index * PAGE_SIZE, PAGE_SIZE), concurrency)):
        report.pages += 1
        if not page:
            return
        if short is not None:
            yield from _between(*short, fetch, report)
        yield page
        end = (number + 1) * PAGE_SIZE
        short = (end - PAGE_SIZE + len(page), end) if len(page) < PAGE_SIZE else None


def rows(client: CybozuClient, path: str, key: str, params: Parameters) -> list[Item]:
    """Return the rows of one page; raises WrongFormatError where the answer is not a list of objects."""
    text = client.get_text(path, params)
    try:
        found = items(text, key)
    except ValueError:
        found = None
    if found is None or not all(isinstance(item.value, dict) for item in found):
        raise WrongFormatError(f"{client.name} answered {path} with something other than a list of {key}")
    return found


def check_concurrency(concurrency: int) -> None:
    """Raise ConfigurationError for a number of pages in flight that is not sensible."""
    if not 1 <= concurrency <= MOST_CONCURRENCY:
        raise ConfigurationError(f"concurrency must be from 1 to {MOST_CONCURRENCY}")


def _between(
    offset: int, end: int, fetch: Callable[[int, int], list[Item]], report: PagingReport
) -> Iterator[list[Item]]:
    while offset < end:
        page = fetch(offset, end - offset)
        report.gaps += 1
        if not page:
            return
        yield page
        offset += len(page)


def _in_order(fetch: Callable[[int], list[Item]], concurrency: int) -> Iterator[list[Item]]:
    waiting: deque[Future[list[Item]]] = deque()
    with ThreadPoolExecutor(concurrency, thread_name_prefix="pages") as pool:
        try:
            number = 0
            while True:
                while len(waiting) < concurrency:
                    waiting.append(pool.submit(fetch, number))
                    number += 1
                yield waiting.popleft().result()
        finally:
            # Also when the caller stops early or a page fails: nothing new starts, what runs is waited for.
            pool.shutdown(wait=False, cancel_futures=True)
