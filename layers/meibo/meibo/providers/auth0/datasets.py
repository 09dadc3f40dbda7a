"""The datasets of Auth0.

To add a dataset, change at most three modules:

1. here: its ``Dataset`` in ``DATASETS`` and, if it is read page by page, its class in ``PAGES``;
2. ``configuration.py``: the model of its entry in the configuration, in ``Auth0Export``;
3. ``organization_pages.py``: the class that reads its pages, and the requests that the class needs.

Then describe it in ``docs/configuration.md`` and run ``make schema``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from meibo.providers.auth0.organization_pages import OrganizationList, OrganizationMembers, OrganizationPages
from meibo.providers.auth0.organizations import ENABLED_CONNECTIONS_SCOPE, MEMBERS_SCOPE, ORGANIZATIONS, ROLES_SCOPE
from meibo.providers.datasets import Dataset

USERS_SCOPE: Final = "read:users"


def _strings(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "string")


USERS: Final = Dataset(
    name="users",
    formats=("ndjson", "csv"),
    reading="job",
    oauth_scopes=(USERS_SCOPE,),
    row_noun="users",
    keys=(("user_id",), ("Id",), ("email",)),
    # Auth0 protects spreadsheets from formulas: https://auth0.com/docs/manage-users/user-migration/bulk-user-exports
    csv_apostrophe=True,
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
    oauth_scopes=(ORGANIZATIONS.scope, ENABLED_CONNECTIONS_SCOPE),
    # A tenant need not use organizations.
    may_be_empty=True,
    row_noun="organizations",
    table=_strings("id", "name", "display_name", "metadata", "branding", "enabled_connections"),
)
MEMBERS: Final = Dataset(
    name="members",
    formats=("ndjson",),
    reading="pages",
    oauth_scopes=(ORGANIZATIONS.scope, MEMBERS_SCOPE, ROLES_SCOPE),
    may_be_empty=True,
    row_noun="members",
    keys=(("organization_id", "user_id"),),
    table=_strings("organization_id", "user_id", "email", "name", "picture", "roles"),
)
DATASETS: Final = (USERS, ORGANIZATION_LIST, MEMBERS)
# The class of each dataset with reading="pages".
PAGES: Final[Mapping[str, type[OrganizationPages]]] = {
    ORGANIZATION_LIST.name: OrganizationList,
    MEMBERS.name: OrganizationMembers,
}
