"""Who belongs to which organization and group, for domains without the CSV API.

A line is ``{"organization":{"id":…,"code":…},"member":…}`` or the same with ``group``; ``member`` is the row as
received: ``{"user":…,"title":…}`` of an organization, the user of a group.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from meibo.cybozu.client import CybozuClient
from meibo.cybozu.groups import GROUPS
from meibo.cybozu.organizations import ORGANIZATIONS
from meibo.cybozu.paging import (
    PAGE_SIZE,
    Listing,
    PagingReport,
    check_concurrency,
    in_order,
    page_at,
    pages,
    unique,
)
from meibo.cybozu.slices import Item
from meibo.errors import RequestRefusedError, WrongFormatError


@dataclass(frozen=True)
class _Kind:
    name: Literal["organization", "group"]
    owners: Listing
    path: str
    key: str
    user_id: str


KINDS: Final = (
    _Kind("organization", ORGANIZATIONS, "/v1/organization/users.json", "userTitles", "user.id"),
    _Kind("group", GROUPS, "/v1/group/users.json", "users", "id"),
)


@dataclass(frozen=True)
class _Owner:
    id: str
    code: str
    members: Listing


def stream_members_ndjson(
    client: CybozuClient, *, concurrency: int = 4, report: PagingReport | None = None
) -> Iterator[bytes]:
    """Yield the members of every organization, then of every group, each user once in each.

    What was deleted between the list and the reading of its members is left out and named in ``report.gone``.
    """
    check_concurrency(concurrency)
    report = PagingReport() if report is None else report
    for kind in KINDS:
        yield from _members_of_kind(client, kind, concurrency, report)


def _members_of_kind(client: CybozuClient, kind: _Kind, concurrency: int, report: PagingReport) -> Iterator[bytes]:
    def beginning(owner: _Owner) -> list[list[Item]] | None:
        # Two pages tell whether there is more, and most organizations are smaller than one: reading these side
        # by side is what makes thousands of them fast.
        try:
            first = page_at(client, owner.members, 0)
            return [first, page_at(client, owner.members, PAGE_SIZE)] if first else [first]
        except RequestRefusedError as error:
            # Not documented which it is. A 404 without a code says that the endpoint is missing, not the code.
            if error.code == "CB_VA01" or (error.status == 404 and error.code is not None):
                return None
            raise

    everyone = list(_owners(client, kind, concurrency))
    for owner, known in zip(everyone, in_order(beginning, everyone, concurrency), strict=True):
        if known is None:
            report.gone.append(owner.id)
            continue
        walk = 1 if not known[-1] else concurrency
        found = pages(client, owner.members, concurrency=walk, report=report, known=known)
        head = json.dumps({"id": owner.id, "code": owner.code}, ensure_ascii=False, separators=(",", ":"))
        for page in unique(client, found, report, kind.user_id):
            if page:
                lines = (f'{{"{kind.name}":{head},"member":{item.line}}}\n' for item in page)
                yield "".join(lines).encode()


def _owners(client: CybozuClient, kind: _Kind, concurrency: int) -> Iterator[_Owner]:
    # A report of its own: these rows are another dataset's.
    report = PagingReport()
    found = pages(client, kind.owners, concurrency=concurrency, report=report)
    for page in unique(client, found, report):
        for item in page:
            identity, code = item.value["id"], item.value.get("code")
            if not isinstance(code, str) or not code:
                raise WrongFormatError(f"{client.name} answered the {kind.name} {identity} without its code")
            yield _Owner(identity, code, Listing(kind.path, kind.key, (("code", code),)))
