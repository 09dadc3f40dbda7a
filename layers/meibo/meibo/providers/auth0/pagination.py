"""Read the lists of the Management API page by page.

Lists with checkpoint pagination (``take`` and ``from``) have no limit. Lists with page numbers return at most 1,000
rows:
https://auth0.com/docs/api/management/v2/introduction
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Final, Generic, Self, TypeVar

from meibo.documents import Document, Key
from meibo.errors import ArchiveConflictError, RequestRefusedError, WrongFormatError
from meibo.http.raw_json import RawJson, line_with_id
from meibo.http.transport import is_id
from meibo.providers.auth0.client import ApiList, Auth0Client
from meibo.providers.base import PageResult, Pages

MAX_PAGE_SIZE: Final = 100
MAX_NUMBERED_ROWS: Final = 1000
# Empty pages with a cursor are not documented. After this number of consecutive empty pages, reading the list fails.
MAX_EMPTY_PAGES: Final = 10


@dataclass(frozen=True)
class Page:
    """A page of a list. ``next`` is the cursor of the next page, valid for 24 hours, or None after the last page."""

    rows: list[RawJson] = field(repr=False)
    next: str | None


def read_page(client: Auth0Client, source: ApiList, cursor: str | None) -> Page:
    """Return the first page of a list, or the page at a cursor. The last page has no cursor, and may be empty."""
    params = [("take", str(MAX_PAGE_SIZE))]
    if cursor:
        params.append(("from", cursor))
    rows, members = client.request_list(source, *params)
    next_cursor = members.get("next")
    if next_cursor is not None and not isinstance(next_cursor, str):
        # If this page were considered the last page, the remaining rows would be missing without an error.
        raise WrongFormatError(
            f"{client.name}: expected a string as the cursor of {source.subject}, found {type(next_cursor).__name__}"
        )
    return Page(rows, next_cursor or None)


def numbered_pages(
    client: Auth0Client, source: ApiList, *, size: int = MAX_PAGE_SIZE
) -> Iterator[tuple[list[RawJson], dict[str, Any]]]:
    """Yield the rows and the other members of each page of a list with page numbers.

    A page may contain fewer rows than ``size``. Therefore, pages are read until a page is empty or the limit of 1,000
    rows is reached. The empty page is also yielded.
    """
    for number in range(MAX_NUMBERED_ROWS // size):
        rows, members = client.request_list(source, ("page", str(number)), ("per_page", str(size)))
        yield rows, members
        if not rows:
            return


@dataclass(frozen=True)
class CursorWatch:
    """Detects a list that does not end, across several invocations.

    Only one cursor is stored. It is replaced after 1, 2, 4, 8, … pages (Brent's algorithm). A cycle of any length is
    detected, and the state that is passed to the next invocation is small.
    """

    mark: str | None = field(default=None, repr=False)
    steps: int = 0
    until: int = 1
    empty: int = 0

    def after(self, page: Page, *, subject: str, provider: str) -> CursorWatch:
        """Return the watch after a page, raising RequestRefusedError if the list does not end."""
        empty = 0 if page.rows else self.empty + 1
        if page.next == self.mark or empty >= MAX_EMPTY_PAGES:
            fault = "that repeats" if page.next == self.mark else "that leads to empty pages only"
            raise RequestRefusedError(
                f"{provider}: expected the last page of {subject}, found a cursor {fault}; repair the run later"
            )
        if self.steps + 1 == self.until:
            return CursorWatch(page.next, 0, self.until * 2, empty)
        return CursorWatch(self.mark, self.steps + 1, self.until, empty)


@dataclass(frozen=True, kw_only=True)
class ListPosition(Document):
    """A position in a list: the cursor of the next page, and the state that detects a list that does not end."""

    cursor: str | None = field(default=None, repr=False)
    watch: CursorWatch = field(default_factory=CursorWatch, repr=False)

    def after_page(self, page: Page, *, subject: str, provider: str) -> Self:
        """Return the position after a page with a cursor, raising RequestRefusedError if the list does not end."""
        return replace(self, cursor=page.next, watch=self.watch.after(page, subject=subject, provider=provider))


@dataclass(frozen=True, kw_only=True)
class MemberPosition(ListPosition):
    """A position in the members of an item. In JSON, the key of ``item_id`` is ``organization_id``, even for roles."""

    item_id: Annotated[str, Key("organization_id")]


@dataclass(frozen=True, kw_only=True)
class ItemPosition(ListPosition):
    """A position in a list of items, such as organizations.

    ``done`` contains the ids of the items in the current page that were read or skipped. A count would not be
    sufficient, because the items shift if one of them is deleted. ``inside`` is the position in the item that is being
    read. Two fields are used only for the members of organizations: ``with_roles`` is true if roles are requested, and
    ``had_roles`` is true if rows with roles were read.
    """

    done: tuple[str, ...]
    inside: MemberPosition | None = None
    with_roles: bool = True
    had_roles: bool = False

    @classmethod
    def stored(cls, position: Mapping[str, Any] | None) -> Self:
        """Return the position in the record of a part, or the first position if there is no record."""
        try:
            return cls(done=()) if position is None else cls.from_json(position, "position")
        except ArchiveConflictError as error:
            raise ArchiveConflictError(
                "a part was written by another version of Meibo; repair the run to restart this export"
            ) from error

    def after_item(self, item_id: str) -> Self:
        """Return the position after an item."""
        return replace(self, done=(*self.done, item_id), inside=None)

    def after_page(self, page: Page, *, subject: str, provider: str) -> Self:
        position = replace(self, done=(), inside=None)
        return super(ItemPosition, position).after_page(page, subject=subject, provider=provider)


class ListApi(ABC):
    """The methods that read a list of items, such as organizations, and the lists that belong to each item."""

    item_noun: ClassVar[str]

    def __init__(self, client: Auth0Client) -> None:
        self.name = client.name
        self._client = client

    @property
    def subject(self) -> str:
        """The name of the list of items in messages."""
        return f"the list of {self.item_noun}"

    @abstractmethod
    def items(self, cursor: str | None) -> Page:
        """Return the page of the list of items at a cursor. Each item has an id."""

    def _check_ids(self, rows: list[RawJson]) -> list[RawJson]:
        if not all(is_id(row.value.get("id")) for row in rows):
            raise WrongFormatError(
                f"{self.name}: expected {self.subject} with an id in each object, found an object without a valid id"
            )
        return rows


Api = TypeVar("Api", bound=ListApi)


class ItemPages(Pages, Generic[Api]):
    """Rows of the items in a list.

    An item that is deleted before or while it is read is skipped. The rows that were already read remain in the export.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self.item_noun = api.item_noun

    def results(self, position: Mapping[str, Any] | None) -> Iterator[PageResult]:
        at = ItemPosition.stored(position)
        while True:
            page = self.api.items(at.cursor)
            for item in _current_first(page.rows, at.inside):
                item_id = item.value["id"]
                if item_id in at.done:
                    continue
                try:
                    for lines, at in self.read(item, at):  # noqa: B020  # each result has a new position
                        yield PageResult(lines, at.to_json(), finished=item_id if at.inside is None else None)
                except RequestRefusedError as error:
                    if not error.is_missing:
                        raise
                    at = at.after_item(item_id)
                    yield PageResult((), at.to_json(), skipped=item_id)
            if page.next is None:
                return
            at = at.after_page(page, subject=self.api.subject, provider=self.api.name)
            yield PageResult((), at.to_json())

    @abstractmethod
    def read(self, item: RawJson, position: ItemPosition) -> Iterator[tuple[tuple[bytes, ...], ItemPosition]]:
        """Yield the lines of each request for one item, with the position after them."""


class MemberPages(ItemPages[Api]):
    """Rows of the members of each item, with the id of the item.

    ``id_key`` is the key of the id in each row. In messages, ``members_subject`` precedes the id of the item.
    """

    id_key: ClassVar[str]
    members_subject: ClassVar[str]

    def read(self, item: RawJson, position: ItemPosition) -> Iterator[tuple[tuple[bytes, ...], ItemPosition]]:
        """Yield the rows of each page of the item's members."""
        item_id = item.value["id"]
        inside = position.inside or MemberPosition(item_id=item_id)
        while True:
            page, position = self.members(item_id, inside.cursor, position)
            lines = tuple(line_with_id(self.id_key, item_id, member) for member in page.rows)
            if page.next is None:
                yield lines, position.after_item(item_id)
                return
            inside = inside.after_page(page, subject=f"{self.members_subject} {item_id}", provider=self.api.name)
            position = replace(position, inside=inside)
            yield lines, position

    @abstractmethod
    def members(self, item_id: str, cursor: str | None, position: ItemPosition) -> tuple[Page, ItemPosition]:
        """Return the page of an item's members at a cursor, and the position.

        For organizations, the fields ``with_roles`` and ``had_roles`` of the position are updated.
        """


def _current_first(items: list[RawJson], inside: MemberPosition | None) -> list[RawJson]:
    # The item that is being read must be first. Otherwise, another item would replace its position.
    if inside is None:
        return items
    return [RawJson({"id": inside.item_id}, ""), *(item for item in items if item.value["id"] != inside.item_id)]
