"""The groups of a domain, one line of JSON each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meibo.cybozu.client import CybozuClient
from meibo.cybozu.paging import Listing, PagingReport, lines
from meibo.cybozu.walk import walk

GROUPS: Final = Listing("/v1/groups.json", "groups")


def stream_groups_ndjson(
    client: CybozuClient, *, concurrency: int = 4, report: PagingReport | None = None
) -> Iterator[bytes]:
    """Yield groups as received, each id once, the system's own (``everyone``, ``Administrators``) among them.

    Whether a group is static or dynamic is in the CSV file only.
    """
    report = PagingReport() if report is None else report
    return lines(walk(client, GROUPS, concurrency=concurrency, report=report))
