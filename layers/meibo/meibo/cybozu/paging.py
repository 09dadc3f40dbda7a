"""Pages of a JSON list, several in flight, in order. https://cybozu.dev/ja/common/docs/user-api/

Answers tell neither a total nor whether there is more: an empty page is the only end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Final, TypeVar

from meibo.cybozu.client import CybozuClient
from meibo.cybozu.slices import Item, items
from meibo.errors import ConfigurationError, WrongFormatError
from meibo.exchange import Parameters

# https://cybozu.dev/ja/common/docs/user-api/users/get-users/
PAGE_SIZE: Final = 100
# Simultaneous requests of kintone's API on the same platform are limited to 100 a domain; people work there too.
MOST_CONCURRENCY: Final = 16

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class PagingReport:
    """What a walk through pages met; complete when its last row was taken.

    ``gone`` are the ids of what was listed and not there any more when its members were asked for.
    """

    pages: int = 0
    rows: int = 0
    duplicates: int = 0
    gaps: int = 0
    gone: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Listing:
    """A list of the API: its path, the key of its rows and parameters that stay the same on each page."""

    path: str
    key: str
    params: Parameters = ()


def pages(
    client: CybozuClient,
    listing: Listing,
    *,
    concurrency: int,
    report: PagingReport,
    known: Sequence[list[Item]] = (),
) -> Iterator[list[Item]]:
    """Yield the rows of each page in order, until the first page that is empty.

    At most ``concurrency`` pages are in flight or wait to be taken, which bounds memory. Pages after the first
    empty one were asked for in vain and are not looked at.

    A short page is not an end. If another follows it, rows may lie between them, because the domain gives fewer
    rows a page than asked; those are asked for one after the other (``report.gaps``).

    ``known`` are the first pages, where the caller has them already.
    """
    check_concurrency(concurrency)

    def fetch(offset: int, size: int) -> list[Item]:
        return page_at(client, listing, offset, size)

    def numbered(number: int) -> list[Item]:
        return known[number] if number < len(known) else fetch(number * PAGE_SIZE, PAGE_SIZE)

    short: tuple[int, int] | None = None
    for number, page in enumerate(in_order(numbered, count(), concurrency)):
        report.pages += 1
        if not page:
            return
        if short is not None:
            yield from _between(*short, fetch, report)
        yield page
        end = (number + 1) * PAGE_SIZE
        short = (end - PAGE_SIZE + len(page), end) if len(page) < PAGE_SIZE else None


def page_at(client: CybozuClient, listing: Listing, offset: int, size: int = PAGE_SIZE) -> list[Item]:
    """Return one page of a list."""
    paging = (("offset", str(offset)), ("size", str(size)))
    return rows(client, listing.path, listing.key, (*listing.params, *paging))


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


def unique(
    client: CybozuClient, found: Iterable[list[Item]], report: PagingReport, key: str = "id"
) -> Iterator[list[Item]]:
    """Yield pages without the items whose id was there before; ``key`` leads to it, as in ``user.id``."""
    seen: set[str] = set()
    for page in found:
        fresh = []
        for item in page:
            identity = _identity(client, item, key)
            if identity in seen:
                report.duplicates += 1
            else:
                seen.add(identity)
                fresh.append(item)
        report.rows += len(fresh)
        yield fresh


def lines(found: Iterable[list[Item]]) -> Iterator[bytes]:
    """Yield each page as a piece of NDJSON, the items as received."""
    for page in found:
        if page:
            yield ("\n".join(item.line for item in page) + "\n").encode()


def _identity(client: CybozuClient, item: Item, key: str) -> str:
    value = item.value
    for step in key.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    # Documented as a string, of more digits than a float holds; a number arrives here as text too.
    if not isinstance(value, str) or not value:
        raise WrongFormatError(f"{client.name} answered a row without an id")
    return value


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


def in_order(work: Callable[[T], R], subjects: Iterable[T], concurrency: int) -> Iterator[R]:
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
