"""The datasets of Auth0.

To add a dataset, change these modules:

1. This module: add a ``Dataset`` to ``DATASETS`` and, if it is read page by page, its pages to ``PAGES``.
2. ``configuration.py``: add its name to ``Auth0ListExport``, or a new model to ``Auth0Export``.
3. The module of its pages, such as ``organizations.py``: add the requests and the OAuth scopes that they require.
4. ``checks.py``: add its OAuth scopes to ``REQUIRED_SCOPES``, and the number of its requests to the expected run.

Then describe the dataset in ``docs/configuration.md``, and run ``make schema``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.organizations import OrganizationApi, OrganizationList, OrganizationMembers
from meibo.providers.auth0.roles import RoleApi, RoleList, RoleMembers
from meibo.providers.base import Pages
from meibo.providers.datasets import Dataset, string_columns


def _page_dataset(name: str, *columns: str, **details: Any) -> Dataset:
    """Return a dataset that is read page by page. It may be empty, because not all tenants use the feature."""
    return Dataset(
        name=name,
        formats=("ndjson",),
        reading="pages",
        may_be_empty=True,
        table=string_columns(*columns),
        **{"row_noun": name, **details},
    )


USERS: Final = Dataset(
    name="users",
    formats=("ndjson", "csv"),
    reading="job",
    row_noun="users",
    keys=(("user_id",), ("Id",), ("email",)),
    # The apostrophe prevents formulas in spreadsheets:
    # https://auth0.com/docs/manage-users/user-migration/bulk-user-exports
    csv_apostrophe=True,
    user_ids=("user_id",),
    user_names=("email", "username", "phone_number"),
    table={
        **string_columns("user_id", "email"),
        "email_verified": "boolean",
        **string_columns("username", "phone_number"),
        "phone_verified": "boolean",
        **string_columns("name", "given_name", "family_name", "nickname", "picture"),
        "blocked": "boolean",
        **string_columns("created_at", "updated_at", "last_login", "last_ip", "last_password_reset"),
        "logins_count": "bigint",
        **string_columns("identities", "user_metadata", "app_metadata"),
    },
)
DATASETS: Final = (
    USERS,
    _page_dataset("organizations", "id", "name", "display_name", "metadata", "branding", "enabled_connections"),
    _page_dataset(
        "members",
        *("organization_id", "user_id", "email", "name", "picture", "roles"),
        keys=(("organization_id", "user_id"),),
        user_ids=("user_id",),
        user_names=("email",),
    ),
    _page_dataset("roles", "id", "name", "description", "permissions"),
    _page_dataset(
        "role_members",
        *("role_id", "user_id", "email", "name", "picture"),
        row_noun="assignments",
        keys=(("role_id", "user_id"),),
        user_ids=("user_id",),
        user_names=("email",),
    ),
)
# The functions that open the pages of the datasets with reading="pages".
PAGES: Final[Mapping[str, Callable[[Auth0Client], Pages]]] = {
    "organizations": lambda client: OrganizationList(OrganizationApi(client)),
    "members": lambda client: OrganizationMembers(OrganizationApi(client)),
    "roles": lambda client: RoleList(RoleApi(client)),
    "role_members": lambda client: RoleMembers(RoleApi(client)),
}
