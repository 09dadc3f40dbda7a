"""Read the organizations and groups of a domain and their members, one JSON object per line.

A line is ``{"organization":{"id":…,"code":…},"member":…}`` or the same with ``group``; ``member`` is the row as
received: ``{"user":…,"title":…}`` of an organization, the user of a group.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.http.transport import is_id
from meibo.providers.cybozu.client import CybozuClient
from meibo.providers.cybozu.pagination import (
    DEFAULT_CONCURRENCY,
    PAGE_SIZE,
    Listing,
    ListReader,
    PagingReport,
    check_concurrency,
    lines,
    map_in_order,
    read_list,
)
from meibo.providers.cybozu.raw_json import Item

ORGANIZATIONS: Final = Listing("/v1/organizations.json", "organizations")


def stream_organizations_ndjson(
    client: CybozuClient, *, concurrency: int = DEFAULT_CONCURRENCY, report: PagingReport | None = None
) -> Iterator[bytes]:
    """Yield organizations as received, each id once. A root has a ``parentCode`` of null."""
    report = PagingReport() if report is None else report
    return lines(read_list(client, ORGANIZATIONS, concurrency=concurrency, report=report))


GROUPS: Final = Listing("/v1/groups.json", "groups")


def stream_groups_ndjson(
    client: CybozuClient, *, concurrency: int = DEFAULT_CONCURRENCY, report: PagingReport | None = None
) -> Iterator[bytes]:
    """Yield groups as received, each id once, the system's own (``everyone``, ``Administrators``) among them.

    Whether a group is static or dynamic is in the CSV file only.
    """
    report = PagingReport() if report is None else report
    return lines(read_list(client, GROUPS, concurrency=concurrency, report=report))


@dataclass(frozen=True)
class _Kind:
    name: Literal["organization", "group"]
    owners: Listing
    path: str
    key: str
    user_id: tuple[str, ...]


KINDS: Final = (
    _Kind("organization", ORGANIZATIONS, "/v1/organization/users.json", "userTitles", ("user", "id")),
    _Kind("group", GROUPS, "/v1/group/users.json", "users", ("id",)),
)


@dataclass(frozen=True)
class _Owner:
    id: str
    code: str
    members: Listing


def stream_members_ndjson(
    client: CybozuClient, *, concurrency: int = DEFAULT_CONCURRENCY, report: PagingReport | None = None
) -> Iterator[bytes]:
    """Yield the members of every organization, then of every group, each user once in each.

    What was deleted between the list and the reading of its members is left out and named in ``report.gone``.
    """
    check_concurrency(concurrency)
    report = PagingReport() if report is None else report
    for kind in KINDS:
        yield from _members_of_kind(client, kind, concurrency, report)


def _members_of_kind(client: CybozuClient, kind: _Kind, concurrency: int, report: PagingReport) -> Iterator[bytes]:
    def beginning(owner: _Owner) -> tuple[ListReader, list[Item], bool] | None:
        # Most organizations fit into a page. Reading these side by side, each with the request that proves its
        # end, is what makes thousands of them fast. A longer one is left to be read by pages.
        reading = ListReader(client, owner.members, PagingReport())
        try:
            page = reading.first_page()
            if len(page) < PAGE_SIZE:
                return reading, [item for part in reading.one_by_one(page) for item in part], True
        except RequestRefusedError as error:
            # Not documented which it is. A 404 without a code says that the endpoint is missing, not the code.
            if error.code == "CB_VA01" or (error.status == 404 and error.code is not None):
                return None
            raise
        return reading, page, False

    owners = list(_owners(client, kind, concurrency))
    for owner, begun in zip(owners, map_in_order(beginning, owners, concurrency), strict=True):
        if begun is None:
            report.gone.append(owner.id)
            continue
        reading, rows, whole = begun
        head = json.dumps({"id": owner.id, "code": owner.code}, ensure_ascii=False, separators=(",", ":"))
        for page in (rows,) if whole else reading.pages(concurrency, first=rows):
            if page:
                yield "".join(f'{{"{kind.name}":{head},"member":{item.line}}}\n' for item in page).encode()
        report.add(reading.report)


def _owners(client: CybozuClient, kind: _Kind, concurrency: int) -> Iterator[_Owner]:
    # A report of its own: these rows are another dataset's.
    report = PagingReport()
    for page in read_list(client, kind.owners, concurrency=concurrency, report=report):
        for item in page:
            identity, code = item.value["id"], item.value.get("code")
            # It may be told of in the manifest, as one that was gone.
            if not is_id(identity):
                raise WrongFormatError(
                    f"{client.name} answered {kind.owners.path} with an id that does not look like one"
                )
            if not isinstance(code, str) or not code:
                raise WrongFormatError(f"{client.name} answered the {kind.name} {identity} without its code")
            yield _Owner(identity, code, Listing(kind.path, kind.key, (("code", code),), kind.user_id))
