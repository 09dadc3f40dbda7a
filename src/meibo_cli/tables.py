"""The tables that ``meibo query`` and Athena share: names, columns, and where their files are.

The template's Glue tables have the same columns; a test compares them. Columns are Auth0's own names, as an export with
the default fields has them; what an export does not hold is null. Metadata and lists are JSON text, in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PARTITIONS: Final = ("provider", "source", "dataset", "format", "scope", "dt", "run")


@dataclass(frozen=True)
class Table:
    """One dataset of one provider, over all runs."""

    name: str
    provider: str
    dataset: str
    columns: Mapping[str, str]

    @property
    def pattern(self) -> str:
        """The keys of its files, as a glob."""
        return (
            f"archive/provider={self.provider}/source=*/dataset={self.dataset}/format=ndjson/scope=*/dt=*/run=*/"
            f"{self.dataset}.ndjson*"
        )


def _texts(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "string")


TABLES: Final = (
    Table(
        "auth0_users",
        "auth0",
        "users",
        {
            **_texts("user_id", "email"),
            "email_verified": "boolean",
            **_texts("username", "phone_number"),
            "phone_verified": "boolean",
            **_texts("name", "given_name", "family_name", "nickname", "picture"),
            "blocked": "boolean",
            **_texts("created_at", "updated_at", "last_login", "last_ip", "last_password_reset"),
            "logins_count": "bigint",
            **_texts("identities", "user_metadata", "app_metadata"),
        },
    ),
    Table(
        "auth0_organizations",
        "auth0",
        "organizations",
        _texts("id", "name", "display_name", "metadata", "branding", "enabled_connections"),
    ),
    Table(
        "auth0_members",
        "auth0",
        "members",
        _texts("organization_id", "user_id", "email", "name", "picture", "roles"),
    ),
    Table(
        "cybozu_users",
        "cybozu",
        "users",
        {
            **_texts("id", "code", "ctime", "mtime"),
            "valid": "boolean",
            **_texts("name", "surName", "givenName", "surNameReading", "givenNameReading", "localName", "timezone"),
            **_texts("locale", "description", "phone", "mobilePhone", "extensionNumber", "email", "url"),
            **_texts("employeeNumber", "birthDate", "joinDate", "primaryOrganization"),
            "sortOrder": "bigint",
            **_texts("customItemValues"),
        },
    ),
)
