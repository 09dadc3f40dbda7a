"""The organizations of a domain, one line of JSON each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meibo.cybozu.client import CybozuClient
from meibo.cybozu.paging import Listing, PagingReport, lines
from meibo.cybozu.walk import walk

ORGANIZATIONS: Final = Listing("/v1/organizations.json", "organizations")


def stream_organizations_ndjson(
    client: CybozuClient, *, concurrency: int = 4, report: PagingReport | None = None
) -> Iterator[bytes]:
    """Yield organizations as received, each id once. A root has a ``parentCode`` of null."""
    report = PagingReport() if report is None else report
    return lines(walk(client, ORGANIZATIONS, concurrency=concurrency, report=report))
