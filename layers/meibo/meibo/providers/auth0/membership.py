"""Change the members of an organization and their roles.

https://auth0.com/docs/manage-users/organizations/configure-organizations/assign-members
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from meibo.errors import WrongFormatError
from meibo.http.transport import segment
from meibo.providers.auth0.client import Auth0Client

# Users per request:
# https://auth0.com/docs/manage-users/organizations/configure-organizations/assign-members
MAX_MEMBERS: Final = 10
# Roles per member of an organization, and roles per tenant:
# https://auth0.com/docs/troubleshoot/customer-support/operational-policies/entity-limit-policy
MAX_ROLES: Final = 50
MAX_TENANT_ROLES: Final = 1000
ROLES_PER_PAGE: Final = 100


def add_members(client: Auth0Client, organization_id: str, user_ids: Sequence[str]) -> None:
    """Add up to 10 users; a user who is a member already stays a member.

    Raises RequestRefusedError, for example if the tenant has no user of an id. Auth0 does not document whether it adds
    the other users in that case. The request is idempotent, so it is retried after a 5xx or a reset.
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
    """Remove up to 10 users; users who are not members are ignored. Errors as in ``add_members``."""
    _check_count(user_ids, MAX_MEMBERS)
    client.delete(
        f"organizations/{segment(organization_id)}/members",
        json={"members": list(user_ids)},
        subject=f"the removal of {len(user_ids)} members of organization {organization_id}",
        scope="delete:organization_members",
        bucket="write_members",
    )


def add_roles(client: Auth0Client, organization_id: str, user_id: str, role_ids: Sequence[str]) -> None:
    """Assign roles to a member, in addition to the roles that the member has.

    Auth0 does not document the result for a user who is not a member, so add the member first.
    """
    _check_count(role_ids, MAX_ROLES)
    client.post(
        _roles_path(organization_id, user_id),
        json={"roles": list(role_ids)},
        subject=f"{len(role_ids)} roles of a member of organization {organization_id}",
        scope="create:organization_member_roles",
        bucket="write_member_roles",
    )


def _roles_path(organization_id: str, user_id: str) -> str:
    return f"organizations/{segment(organization_id)}/members/{segment(user_id)}/roles"


def _check_count(ids: Sequence[str], maximum: int) -> None:
    if not 1 <= len(ids) <= maximum:
        raise ValueError(f"expected 1 to {maximum} ids in a request, found {len(ids)}")


def role_ids(client: Auth0Client) -> frozenset[str]:
    """Return the ids of all roles of the tenant."""
    ids: set[str] = set()
    for page in range(MAX_TENANT_ROLES // ROLES_PER_PAGE):
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
            raise WrongFormatError(f"{client.name}: expected the list of roles, found something else")
        if not rows:
            break
        ids.update(row["id"] for row in rows)
    return frozenset(ids)
