"""Read the lists of a cybozu.com domain as NDJSON: users, organizations, groups, and the members of both.

A row of the members is ``{"organization":{"id":…,"code":…},"member":…}``, or has the key ``group`` instead of
``organization``. The value of ``member`` is the row as received: ``{"user":…,"title":…}`` in an organization, and a
user in a group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from meibo.errors import ConfigurationError, RequestRefusedError, WrongFormatError
from meibo.http.raw_json import RawJson
from meibo.http.transport import Parameters, is_id
from meibo.providers.cybozu.client import CybozuClient
from meibo.providers.cybozu.pagination import (
    DEFAULT_CONCURRENCY,
    PAGE_SIZE,
    ListReader,
    OffsetList,
    PagingReport,
    identity_of,
    map_in_order,
    page_at,
)

USERS: Final = OffsetList("/v1/users.json", "users")
# The ``parentCode`` of a root organization is null.
ORGANIZATIONS: Final = OffsetList("/v1/organizations.json", "organizations")
# The list includes the built-in groups ``everyone`` and ``Administrators``. Only the CSV file contains the type of a
# group (static or dynamic).
GROUPS: Final = OffsetList("/v1/groups.json", "groups")
# Maximum number of ids or codes per request: https://cybozu.dev/ja/common/docs/user-api/users/get-users/
MAX_FILTER_VALUES: Final = 100
# The maximum length of a URL is not documented. The platform recommends other methods for URLs of more than 4 KB.
MAX_QUERY_LENGTH: Final = 3500


@dataclass(frozen=True)
class _Kind:
    name: Literal["organization", "group"]
    owners: OffsetList
    path: str
    key: str
    user_id: tuple[str, ...]


KINDS: Final = (
    _Kind("organization", ORGANIZATIONS, "/v1/organization/users.json", "userTitles", ("user", "id")),
    _Kind("group", GROUPS, "/v1/group/users.json", "users", ("id",)),
)


def stream_list_ndjson(
    client: CybozuClient,
    listing: OffsetList,
    *,
    concurrency: int = DEFAULT_CONCURRENCY,
    report: PagingReport | None = None,
) -> Iterator[bytes]:
    """Yield the rows of a list as NDJSON. The text of each row is unchanged, and each id occurs once."""
    return _lines(ListReader(client, listing, report or PagingReport()).pages(concurrency))


def stream_users_ndjson(
    client: CybozuClient,
    *,
    ids: Sequence[str] = (),
    codes: Sequence[str] = (),
    concurrency: int = DEFAULT_CONCURRENCY,
    report: PagingReport | None = None,
) -> Iterator[bytes]:
    """Yield users as NDJSON. The text of each row is unchanged, and each id occurs once.

    If users are added or deleted while the list is read, the other users shift. If a user is read twice, the second row
    is dropped and counted in ``report``. A user that exists during the entire time is always included.
    """
    if ids and codes:
        raise ConfigurationError("expected ids or codes, found both, which cybozu.com rejects; remove one of them")
    report = PagingReport() if report is None else report
    if ids or codes:
        return _lines(_filtered(client, "ids" if ids else "codes", ids or codes, report))
    return stream_list_ndjson(client, USERS, concurrency=concurrency, report=report)


def _filtered(client: CybozuClient, name: str, values: Sequence[str], report: PagingReport) -> Iterator[list[RawJson]]:
    seen: set[str] = set()
    for params in _chunks(name, list(dict.fromkeys(values))):
        offset = 0
        while offset < len(params):
            # The API omits users that do not exist, and may return smaller pages than requested.
            page = page_at(client, OffsetList(USERS.path, USERS.key, params), offset)
            report.pages += 1
            if not page:
                break
            items = {identity_of(client, USERS, item): item for item in page}
            new_items = [item for identity, item in items.items() if identity not in seen]
            seen |= items.keys()
            report.duplicates += len(page) - len(new_items)
            yield new_items
            offset += len(page)


def _chunks(name: str, values: Sequence[str]) -> Iterator[Parameters]:
    chunk: list[tuple[str, str]] = []
    length = 0
    for value in values:
        cost = len(quote(f"{name}[{len(chunk)}]={value}&", safe="="))
        if chunk and (len(chunk) == MAX_FILTER_VALUES or length + cost > MAX_QUERY_LENGTH):
            yield tuple(chunk)
            chunk, length = [], 0
        chunk.append((f"{name}[{len(chunk)}]", value))
        length += cost
    if chunk:
        yield tuple(chunk)


@dataclass(frozen=True)
class _Owner:
    id: str
    code: str
    members: OffsetList


def stream_members_ndjson(
    client: CybozuClient, *, concurrency: int = DEFAULT_CONCURRENCY, report: PagingReport | None = None
) -> Iterator[bytes]:
    """Yield the members of all organizations and groups as NDJSON. A user occurs once per organization or group.

    An organization or group that is deleted before its members are read is skipped and listed in ``report.skipped``.
    """
    report = PagingReport() if report is None else report
    for kind in KINDS:
        yield from _members_of_kind(client, kind, concurrency, report)


def _members_of_kind(client: CybozuClient, kind: _Kind, concurrency: int, report: PagingReport) -> Iterator[bytes]:
    def open_pages(owner: _Owner) -> tuple[ListReader, Iterable[list[RawJson]]] | None:
        # Most organizations have fewer members than a page contains, so organizations are read concurrently. The pages
        # of a larger organization are read concurrently below.
        reader = ListReader(client, owner.members, PagingReport())
        try:
            page = reader.first_page()
            if len(page) < PAGE_SIZE:
                return reader, list(reader.one_by_one(page))
        except RequestRefusedError as error:
            # The error for a deleted organization is not documented. A 404 without a code means a missing endpoint.
            if error.code == "CB_VA01" or (error.status == 404 and error.code is not None):
                return None
            raise
        return reader, reader.pages(concurrency, first=page)

    owners = list(_owners(client, kind, concurrency))
    for owner, result in zip(owners, map_in_order(open_pages, owners, concurrency), strict=True):
        if result is None:
            report.skipped.append(owner.id)
            continue
        reader, pages = result
        head = json.dumps({"id": owner.id, "code": owner.code}, ensure_ascii=False, separators=(",", ":"))
        for page in pages:
            if page:
                yield "".join(f'{{"{kind.name}":{head},"member":{item.text}}}\n' for item in page).encode()
        report.add(reader.report)


def _owners(client: CybozuClient, kind: _Kind, concurrency: int) -> Iterator[_Owner]:
    # The counts belong to another dataset, so they are not added to the report.
    report = PagingReport()
    for page in ListReader(client, kind.owners, report).pages(concurrency):
        for item in page:
            identity, code = identity_of(client, kind.owners, item), item.value.get("code")
            # The manifest contains the id if the organization is deleted before its members are read.
            if not is_id(identity):
                raise WrongFormatError(
                    f"{client.name}: expected an id in each row of {kind.owners.path}, found other text"
                )
            if not isinstance(code, str) or not code:
                raise WrongFormatError(f"{client.name}: expected a code of the {kind.name} {identity}, found none")
            yield _Owner(identity, code, OffsetList(kind.path, kind.key, (("code", code),), kind.user_id))


def _lines(pages: Iterator[list[RawJson]]) -> Iterator[bytes]:
    for page in pages:
        if page:
            yield ("\n".join(item.text for item in page) + "\n").encode()
