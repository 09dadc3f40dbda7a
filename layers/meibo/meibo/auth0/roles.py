"""The roles of a tenant, by id only. https://auth0.com/docs/api/management/v2/roles/get-roles"""

from __future__ import annotations

from typing import Any, Final

from meibo.auth0.client import Auth0Client
from meibo.errors import WrongFormatError

ROLES_PER_PAGE: Final = 100
# A tenant has at most 1,000 (entity-limit-policy).
MOST_PAGES: Final = 10


def role_ids(client: Auth0Client) -> frozenset[str]:
    """Return the ids of all roles of the tenant."""
    found: set[str] = set()
    for page in range(MOST_PAGES):
        document: Any = client.get(
            "roles",
            params=(("page", str(page)), ("per_page", str(ROLES_PER_PAGE)), ("include_totals", "true")),
            subject="the list of roles",
            scope="read:roles",
            bucket="roles",
        )
        rows = document.get("roles") if isinstance(document, dict) else document
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows
        ):
            raise WrongFormatError(f"{client.name} answered something other than the list of roles")
        if not rows:
            break
        found.update(row["id"] for row in rows)
    return frozenset(found)
