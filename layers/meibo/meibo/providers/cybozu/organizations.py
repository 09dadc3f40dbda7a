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

GROUPS: Final = Listing("/v1/groups.json", "groups")


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


def stream_organizations_ndjson(
    client: CybozuClient, *, concurrency: int = DEFAULT_CONCURRENCY, report: PagingReport | None = None
) -> Iterator[bytes]:
    """Yield organizations as received, each id once. A root has a ``parentCode`` of null."""
    report = PagingReport() if report is None else report
    return lines(read_list(client, ORGANIZATIONS, concurrency=concurrency, report=report))


def stream_groups_ndjson(
    client: CybozuClient, *, concurrency: int = DEFAULT_CONCURRENCY, report: PagingReport | None = None
) -> Iterator[bytes]:
    """Yield groups as received, each id once, including the built-in groups ``everyone`` and ``Administrators``.

    Only the CSV file contains whether a group is static or dynamic.
    """
    report = PagingReport() if report is None else report
    return lines(read_list(client, GROUPS, concurrency=concurrency, report=report))


@dataclass(frozen=True)
class _Owner:
    id: str
    code: str
    members: Listing


def stream_members_ndjson(
    client: CybozuClient, *, concurrency: int = DEFAULT_CONCURRENCY, report: PagingReport | None = None
) -> Iterator[bytes]:
    """Yield the members of every organization, then of every group, each user once in each.

    An organization or group that is deleted before its members are read is skipped and listed in ``report.gone``.
    """
    check_concurrency(concurrency)
    report = PagingReport() if report is None else report
    for kind in KINDS:
        yield from _members_of_kind(client, kind, concurrency, report)


def _members_of_kind(client: CybozuClient, kind: _Kind, concurrency: int, report: PagingReport) -> Iterator[bytes]:
    def read_first_page(owner: _Owner) -> tuple[ListReader, list[Item], bool] | None:
        # Most organizations fit into a page. They are read completely and concurrently, which makes thousands of them
        # fast. The pages of a larger organization are read concurrently below.
        reader = ListReader(client, owner.members, PagingReport())
        try:
            page = reader.first_page()
            if len(page) < PAGE_SIZE:
                return reader, [item for part in reader.one_by_one(page) for item in part], True
        except RequestRefusedError as error:
            # The documentation does not state the error. A 404 without a code means that the endpoint does not exist.
            if error.code == "CB_VA01" or (error.status == 404 and error.code is not None):
                return None
            raise
        return reader, page, False

    owners = list(_owners(client, kind, concurrency))
    for owner, result in zip(owners, map_in_order(read_first_page, owners, concurrency), strict=True):
        if result is None:
            report.gone.append(owner.id)
            continue
        reader, rows, complete = result
        head = json.dumps({"id": owner.id, "code": owner.code}, ensure_ascii=False, separators=(",", ":"))
        for page in (rows,) if complete else reader.pages(concurrency, first=rows):
            if page:
                yield "".join(f'{{"{kind.name}":{head},"member":{item.line}}}\n' for item in page).encode()
        report.add(reader.report)


def _owners(client: CybozuClient, kind: _Kind, concurrency: int) -> Iterator[_Owner]:
    # A separate report: these rows belong to another dataset.
    report = PagingReport()
    for page in read_list(client, kind.owners, concurrency=concurrency, report=report):
        for item in page:
            identity, code = item.value["id"], item.value.get("code")
            # The manifest contains the id if the organization is deleted meanwhile.
            if not is_id(identity):
                raise WrongFormatError(
                    f"{client.name}: expected ids in {kind.owners.path}, found other text in place of an id"
                )
            if not isinstance(code, str) or not code:
                raise WrongFormatError(f"{client.name}: expected a code of the {kind.name} {identity}, found none")
            yield _Owner(identity, code, Listing(kind.path, kind.key, (("code", code),), kind.user_id))
