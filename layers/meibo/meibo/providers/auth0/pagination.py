"""Read the lists of the Management API page by page.

Checkpoint pagination (``take`` and ``from``) has no limit. Lists with page numbers return at most 1,000 rows:
https://auth0.com/docs/api/management/v2/introduction
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from meibo.errors import ArchiveConflictError, RequestRefusedError, WrongFormatError
from meibo.http.raw_json import RawJson
from meibo.http.transport import is_id
from meibo.providers.auth0.client import ApiList, Auth0Client
from meibo.providers.base import PageResult, Pages

MAX_PAGE_SIZE: Final = 100
MAX_NUMBERED_ROWS: Final = 1000
# An empty page with a cursor is not documented. After this number of consecutive empty pages, the list is considered
# endless.
MAX_EMPTY_PAGES: Final = 10


@dataclass(frozen=True)
class Page:
    """Rows, and the cursor of the next page: None after the last page. A cursor is valid for 24 hours."""

    rows: list[RawJson] = field(repr=False)
    next: str | None


def read_page(client: Auth0Client, source: ApiList, cursor: str | None) -> Page:
    """Return the first page of a list, or the page at a cursor.

    The last page has no cursor. The last page of members was observed to be empty.
    """
    params = [("take", str(MAX_PAGE_SIZE))]
    if cursor:
        params.append(("from", cursor))
    rows, members = client.request_list(source, *params)
    next_cursor = members.get("next")
    if next_cursor is not None and not isinstance(next_cursor, str):
        # If this page were treated as the last page, the rest of the list would be missing without an error.
        raise WrongFormatError(
            f"{client.name}: expected a string as the cursor of {source.subject}, found {type(next_cursor).__name__}"
        )
    return Page(rows, next_cursor or None)


def numbered_pages(
    client: Auth0Client, source: ApiList, *, size: int = MAX_PAGE_SIZE
) -> Iterator[tuple[list[RawJson], dict[str, Any]]]:
    """Yield the rows and the other members of each page of a list with page numbers.

    A page may contain fewer rows than ``size``, so only an empty page marks the end. The empty page
    is also yielded.
    """
    for number in range(MAX_NUMBERED_ROWS // size):
        rows, members = client.request_list(source, ("page", str(number)), ("per_page", str(size)))
        yield rows, members
        if not rows:
            return


def check_ids(rows: list[RawJson], *, subject: str, provider: str) -> None:
    """Raise WrongFormatError if a row of a list has no valid id."""
    if not all(is_id(row.value.get("id")) for row in rows):
        raise WrongFormatError(
            f"{provider}: expected {subject} with an id in each object, found an object without a valid id"
        )


@dataclass(frozen=True)
class CursorWatch:
    """Detects a list that does not end, across several invocations.

    It stores one cursor, at distances that double (Brent's algorithm). A cycle of any length is detected within three
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
                f"{provider}: expected the last page of {subject}, but its cursor {fault}; repair the run later"
            )
        if self.steps + 1 == self.until:
            return CursorWatch(page.next, 0, self.until * 2, empty)
        return CursorWatch(self.mark, self.steps + 1, self.until, empty)


@dataclass(frozen=True, kw_only=True)
class ListPosition:
    """A position in a list, which is stored with a part: the cursor of the next page, and the watch of the cursors."""

    cursor: str | None = field(default=None, repr=False)
    watch: CursorWatch = field(default_factory=CursorWatch, repr=False)

    def after_page(self, page: Page, *, subject: str, provider: str) -> Self:
        """Return the position after a page that is not the last, raising RequestRefusedError if the list has no end."""
        return replace(self, cursor=page.next, watch=self.watch.after(page, subject=subject, provider=provider))

    def to_json(self) -> dict[str, Any]:
        """Return the position as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the position in a JSON object, raising ArchiveConflictError if another version of Meibo wrote it."""
        try:
            return cls(**{**document, "watch": CursorWatch(**document["watch"])})
        except (KeyError, TypeError):
            raise ArchiveConflictError(
                "a part was written by another version of Meibo; repair the run to restart this export"
            ) from None


class ListApi:
    """Base class of the methods that read lists of a tenant."""

    def __init__(self, client: Auth0Client) -> None:
        self.name = client.name
        self._client = client


@dataclass(frozen=True, kw_only=True)
class ItemPosition(ListPosition, ABC):
    """A position in a list of items, and in the item that is being read."""

    @abstractmethod
    def is_done(self, item_id: str) -> bool:
        """Return whether an item was read completely or skipped."""

    @abstractmethod
    def with_done(self, item_id: str) -> Self:
        """Return the position after an item."""


Api = TypeVar("Api", bound=ListApi)
Position = TypeVar("Position", bound=ItemPosition)


class ItemPages(Pages, Generic[Api, Position]):
    """Rows of the items in a list. An item that is deleted before it is read is skipped.

    ``subject`` names the list in messages.
    """

    subject: ClassVar[str]
    position_class: type[Position]

    def __init__(self, api: Api) -> None:
        self.api = api

    def results(self, position: Mapping[str, Any] | None) -> Iterator[PageResult]:
        at = self.position_class() if position is None else self.position_class.from_json(position)
        while True:
            page = self.items(at)
            for item in page.rows:
                item_id = item.value["id"]
                if at.is_done(item_id):
                    continue
                try:
                    for lines, at in self.read(item, at):  # noqa: B020  # each result has a new position
                        yield PageResult(lines, at.to_json(), finished=item_id if at.is_done(item_id) else None)
                except RequestRefusedError as error:
                    if not error.is_missing:
                        raise
                    at = at.with_done(item_id)
                    yield PageResult((), at.to_json(), skipped=item_id)
            if page.next is None:
                return
            at = at.after_page(page, subject=self.subject, provider=self.api.name)
            yield PageResult((), at.to_json())

    @abstractmethod
    def items(self, position: Position) -> Page:
        """Return the page of the list at a position."""

    @abstractmethod
    def read(self, item: RawJson, position: Position) -> Iterator[tuple[tuple[bytes, ...], Position]]:
        """Yield the lines of each request for one item, with the position after them."""
