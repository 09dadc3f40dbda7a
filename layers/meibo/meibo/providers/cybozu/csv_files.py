"""The CSV files of a domain: its whole directory, a file a dataset. https://cybozu.dev/ja/common/docs/user-api/csv/"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meibo.errors import ConfigurationError
from meibo.providers.cybozu.client import CybozuClient

CSV_FILES: Final = {
    "users": "user",
    "organizations": "organization",
    "titles": "title",
    "groups": "group",
    "user_organizations": "userOrganizations",
    "user_groups": "userGroups",
    "user_services": "userServices",
}


def stream_csv(client: CybozuClient, dataset: str) -> Iterator[bytes]:
    """Yield a dataset's file as delivered; needs a cybozu.com Administrator or an API token.

    No file has a header row. Raises CopyBrokenError when the connection breaks or the body is short.
    """
    if dataset not in CSV_FILES:
        raise ConfigurationError(f"cybozu.com has no CSV file of {dataset[:40]!r}; it has {', '.join(CSV_FILES)}")
    return client.stream_csv(f"/v1/csv/{CSV_FILES[dataset]}.csv")
