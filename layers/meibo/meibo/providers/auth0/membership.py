"""Change the members of an organization and their roles.

https://auth0.com/docs/manage-users/organizations/configure-organizations/assign-members
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from meibo.errors import WrongFormatError
from meibo.http.transport import segment
from meibo.providers.auth0.client import Auth0Client

# Of users in a request, and of roles that a member can have (entity-limit-policy).
MAX_MEMBERS: Final = 10
MAX_ROLES: Final = 50


def add_members(client: Auth0Client, organization_id: str, user_ids: Sequence[str]) -> None:
    """Add up to 10 users; adding one who is there already changes nothing.

    Raises RequestRefusedError, for example for an id that no user has; whether the others were added then is not
    documented. Repeated after 5xx and resets, because the outcome is the same.
    """
    _check_count(user_ids, MAX_MEMBERS)
    client.post(
        f"organizations/{segment(organization_id)}/members",
        json={"members": list(user_ids)},
        subject=f"{len(user_ids)} new members of organization {organization_id}",
        scope="create:organization_members",
        bucket="write_members",
    )


def remove_members(client: Auth0Client, organization_id: str, user_ids: Sequence[str]) -> None:
    """Remove up to 10 users; removing one who is not there changes nothing. Errors as in ``add_members``."""
    _check_count(user_ids, MAX_MEMBERS)
    client.delete(
        f"organizations/{segment(organization_id)}/members",
        json={"members": list(user_ids)},
        subject=f"the removal of {len(user_ids)} members of organization {organization_id}",
        scope="delete:organization_members",
        bucket="write_members",
    )


def add_roles(client: Auth0Client, organization_id: str, user_id: str, role_ids: Sequence[str]) -> None:
    """Give roles to a member; those that are there already stay.

    What happens to somebody who is not a member is not documented: add the member first.
    """
    _check_count(role_ids, MAX_ROLES)
    client.post(
        _roles_path(organization_id, user_id),
        json={"roles": list(role_ids)},
        subject=f"{len(role_ids)} roles of a member of organization {organization_id}",
        scope="create:organization_member_roles",
        bucket="write_member_roles",
    )


def remove_roles(client: Auth0Client, organization_id: str, user_id: str, role_ids: Sequence[str]) -> None:
    """Take roles from a member; those that are not there are passed over."""
    _check_count(role_ids, MAX_ROLES)
    client.delete(
        _roles_path(organization_id, user_id),
        json={"roles": list(role_ids)},
        subject=f"the removal of {len(role_ids)} roles of a member of organization {organization_id}",
        scope="delete:organization_member_roles",
        bucket="write_member_roles",
    )


def member_roles(client: Auth0Client, organization_id: str, user_id: str) -> list[str]:
    """Return the ids of a member's roles; one page holds the 50 that a member can have."""
    subject = f"the roles of a member of organization {organization_id}"
    document: Any = client.get(
        _roles_path(organization_id, user_id),
        params=(("per_page", "100"), ("page", "0"), ("include_totals", "true")),
        subject=subject,
        scope="read:organization_member_roles",
        bucket="member_roles",
    )
    rows = document.get("roles") if isinstance(document, dict) else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows):
        raise WrongFormatError(f"{client.name} answered something other than {subject}")
    return [row["id"] for row in rows]


def _roles_path(organization_id: str, user_id: str) -> str:
    return f"organizations/{segment(organization_id)}/members/{segment(user_id)}/roles"


def _check_count(ids: Sequence[str], most: int) -> None:
    if not 1 <= len(ids) <= most:
        raise ValueError(f"1 to {most} ids belong into one request, not {len(ids)}")


ROLES_PER_PAGE: Final = 100
# A tenant has at most 1,000 (entity-limit-policy).
MAX_ROLE_PAGES: Final = 10


def role_ids(client: Auth0Client) -> frozenset[str]:
    """Return the ids of all roles of the tenant."""
    found: set[str] = set()
    for page in range(MAX_ROLE_PAGES):
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
