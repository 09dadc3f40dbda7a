"""The users of a cybozu.com domain, as the CSV file or as one line of JSON each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import quote

from meibo.errors import ConfigurationError
from meibo.http.transport import Parameters
from meibo.providers.cybozu.client import CybozuClient
from meibo.providers.cybozu.csv_files import stream_csv
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
# https://cybozu.dev/ja/common/docs/user-api/users/get-users/: at most so many ids or codes a request.
MAX_FILTER_VALUES: Final = 100
# The longest URL is not documented for this API; the platform advises another way above 4 KB.
MAX_QUERY_LENGTH: Final = 3500


def stream_users_csv(client: CybozuClient) -> Iterator[bytes]:
    """Yield ``user.csv`` as delivered; needs a cybozu.com Administrator or an API token.

    It holds everyone except the built-in account ``Administrator`` and has no header row.
    """
    return stream_csv(client, "users")


def stream_users_ndjson(
    client: CybozuClient,
    *,
    ids: Sequence[str] = (),
    codes: Sequence[str] = (),
    concurrency: int = DEFAULT_CONCURRENCY,
    report: PagingReport | None = None,
) -> Iterator[bytes]:
    """Yield users as received, one a line, each id once.

    Users that come or go during the walk move the others: who is met twice is dropped and counted in ``report``,
    who was there all the time is not missed.
    """
    if ids and codes:
        raise ConfigurationError("give ids or codes, not both: cybozu.com refuses a request with both")
    check_concurrency(concurrency)
    report = PagingReport() if report is None else report
    if ids or codes:
        found = _filtered(client, "ids" if ids else "codes", ids or codes, report)
    else:
        found = read_list(client, USERS, concurrency=concurrency, report=report)
    return lines(found)


def _filtered(client: CybozuClient, name: str, values: Sequence[str], report: PagingReport) -> Iterator[list[Item]]:
    seen: set[str] = set()
    for params in _chunks(name, list(dict.fromkeys(values))):
        offset = 0
        while offset < len(params):
            # Who is not there is left out silently, so a short answer may also be the domain's own page size.
            page = page_at(client, Listing(USERS.path, USERS.key, params), offset)
            report.pages += 1
            if not page:
                break
            fresh = {identity_of(client, USERS, item): item for item in page}
            found = [item for identity, item in fresh.items() if identity not in seen]
            seen |= fresh.keys()
            report.rows += len(found)
            report.duplicates += len(page) - len(found)
            yield found
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
