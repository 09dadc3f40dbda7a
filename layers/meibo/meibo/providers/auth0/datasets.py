"""The datasets of Auth0.

To add a dataset, change at most four modules:

1. here: its ``Dataset`` in ``DATASETS`` and, if it is read page by page, its pages in ``PAGES``;
2. ``configuration.py``: the model of its entry in the configuration, in ``Auth0Export``;
3. the module of its pages, such as ``organization_pages.py``, with the requests and OAuth scopes that they need;
4. ``checks.py``: its OAuth scopes in ``REQUIRED_SCOPES``, and the number of its requests.

Then describe it in ``docs/configuration.md`` and run ``make schema``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.organization_pages import OrganizationList, OrganizationMembers
from meibo.providers.auth0.role_pages import RoleList, RoleMembers
from meibo.providers.base import Pages
from meibo.providers.datasets import Dataset


def _strings(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "string")


USERS: Final = Dataset(
    name="users",
    formats=("ndjson", "csv"),
    reading="job",
    row_noun="users",
    keys=(("user_id",), ("Id",), ("email",)),
    # Auth0 protects spreadsheets from formulas: https://auth0.com/docs/manage-users/user-migration/bulk-user-exports
    csv_apostrophe=True,
    user_ids=("user_id",),
    user_names=("email", "username", "phone_number"),
    table={
        **_strings("user_id", "email"),
        "email_verified": "boolean",
        **_strings("username", "phone_number"),
        "phone_verified": "boolean",
        **_strings("name", "given_name", "family_name", "nickname", "picture"),
        "blocked": "boolean",
        **_strings("created_at", "updated_at", "last_login", "last_ip", "last_password_reset"),
        "logins_count": "bigint",
        **_strings("identities", "user_metadata", "app_metadata"),
    },
)
ORGANIZATION_LIST: Final = Dataset(
    name="organizations",
    formats=("ndjson",),
    reading="pages",
    # A tenant need not use organizations.
    may_be_empty=True,
    row_noun="organizations",
    table=_strings("id", "name", "display_name", "metadata", "branding", "enabled_connections"),
)
MEMBERS: Final = Dataset(
    name="members",
    formats=("ndjson",),
    reading="pages",
    may_be_empty=True,
    row_noun="members",
    keys=(("organization_id", "user_id"),),
    user_ids=("user_id",),
    user_names=("email",),
    table=_strings("organization_id", "user_id", "email", "name", "picture", "roles"),
)
ROLES: Final = Dataset(
    name="roles",
    formats=("ndjson",),
    reading="pages",
    may_be_empty=True,
    row_noun="roles",
    table=_strings("id", "name", "description", "permissions"),
)
ROLE_MEMBERS: Final = Dataset(
    name="role_members",
    formats=("ndjson",),
    reading="pages",
    may_be_empty=True,
    row_noun="assignments",
    keys=(("role_id", "user_id"),),
    user_ids=("user_id",),
    user_names=("email",),
    table=_strings("role_id", "user_id", "email", "name", "picture"),
)
DATASETS: Final = (USERS, ORGANIZATION_LIST, MEMBERS, ROLES, ROLE_MEMBERS)
# Opens the pages of each dataset with reading="pages".
PAGES: Final[Mapping[str, Callable[[Auth0Client], Pages]]] = {
    ORGANIZATION_LIST.name: OrganizationList.of,
    MEMBERS.name: OrganizationMembers.of,
    ROLES.name: RoleList.of,
    ROLE_MEMBERS.name: RoleMembers.of,
}
