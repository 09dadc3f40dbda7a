"""Read the users of a cybozu.com domain, one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import quote

from meibo.errors import ConfigurationError
from meibo.http.transport import Parameters
from meibo.providers.cybozu.client import CybozuClient
from meibo.providers.cybozu.pagination import (
    DEFAULT_CONCURRENCY,
    Listing,
    PagingReport,
    check_concurrency,
    identity_of,
    lines,
    page_at,
    read_list,
)
from meibo.providers.cybozu.raw_json import Item

USERS: Final = Listing("/v1/users.json", "users")
# Of ids or codes per request: https://cybozu.dev/ja/common/docs/user-api/users/get-users/
MAX_FILTER_VALUES: Final = 100
# The maximum length of a URL is not documented for this API; the platform advises other methods above 4 KB.
MAX_QUERY_LENGTH: Final = 3500


def stream_users_ndjson(
    client: CybozuClient,
    *,
    ids: Sequence[str] = (),
    codes: Sequence[str] = (),
    concurrency: int = DEFAULT_CONCURRENCY,
    report: PagingReport | None = None,
) -> Iterator[bytes]:
    """Yield users as received, one per line, each id once.

    Users that are added or deleted meanwhile shift the others: a user that is read twice is dropped and counted in
    ``report``; a user that exists all the time is never missed.
    """
    if ids and codes:
        raise ConfigurationError("expected ids or codes, found both, which cybozu.com rejects; remove one")
    check_concurrency(concurrency)
    report = PagingReport() if report is None else report
    if ids or codes:
        return lines(_filtered(client, "ids" if ids else "codes", ids or codes, report))
    return lines(read_list(client, USERS, concurrency=concurrency, report=report))


def _filtered(client: CybozuClient, name: str, values: Sequence[str], report: PagingReport) -> Iterator[list[Item]]:
    seen: set[str] = set()
    for params in _chunks(name, list(dict.fromkeys(values))):
        offset = 0
        while offset < len(params):
            # Users that do not exist are omitted silently, so a short page may also be the domain's own page size.
            page = page_at(client, Listing(USERS.path, USERS.key, params), offset)
            report.pages += 1
            if not page:
                break
            items = {identity_of(client, USERS, item): item for item in page}
            new_items = [item for identity, item in items.items() if identity not in seen]
            seen |= items.keys()
            report.rows += len(new_items)
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
