"""Send the requests of membership changes: for the members of an organization, their roles, and invitations.

https://auth0.com/docs/manage-users/organizations/configure-organizations/assign-members
https://auth0.com/docs/api/management/v2/organizations/post-invitations
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import Field, StrictBool, StrictInt

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.http.transport import segment
from meibo.providers.auth0.client import ApiList, Auth0Client
from meibo.providers.auth0.configuration import ConnectionId
from meibo.providers.auth0.jobs import USERS_SCOPE
from meibo.providers.auth0.organizations import ORGANIZATIONS_SCOPE
from meibo.providers.auth0.pagination import numbered_pages
from meibo.validation import Omissible, StrictModel, pattern_field

# Maximum number of users per request:
# https://auth0.com/docs/manage-users/organizations/configure-organizations/assign-members
MAX_MEMBERS_PER_REQUEST: Final = 10
# Maximum number of roles per member of an organization:
# https://auth0.com/docs/troubleshoot/customer-support/operational-policies/entity-limit-policy
MAX_ROLES: Final = 50
INVITATIONS_PER_PAGE: Final = 50
MAX_NAME_LENGTH: Final = 300
MAX_TTL_SECONDS: Final = 2_592_000
DEFAULT_TTL_SECONDS: Final = 604_800
# Smaller differences between two lifetimes are ignored, because Auth0 sets the two timestamps separately.
MAX_TTL_DIFFERENCE_SECONDS: Final = 60


# -- organizations and members


def organization_exists(client: Auth0Client, organization_id: str) -> bool:
    """Return whether the tenant has an organization with this id."""
    path, subject = f"organizations/{segment(organization_id)}", f"organization {organization_id}"
    return _exists(client, path, subject=subject, scope=ORGANIZATIONS_SCOPE, bucket="organization")


def add_members(client: Auth0Client, organization_id: str, user_ids: Sequence[str]) -> None:
    """Add 1 to 10 users to an organization. Users who are already members remain members.

    Raises RequestRefusedError, for example if the tenant has no user with one of the ids. It is not documented whether
    Auth0 adds the other users in this case. The request is idempotent, so it is retried after a 5xx or a reset.
    """
    subject = f"{len(user_ids)} new members of organization {organization_id}"
    _change_members(client, "POST", organization_id, user_ids, subject=subject, scope="create:organization_members")


def remove_members(client: Auth0Client, organization_id: str, user_ids: Sequence[str]) -> None:
    """Remove 1 to 10 users from an organization. Users who are not members are ignored.

    Raises the same errors as ``add_members``.
    """
    subject = f"the removal of {len(user_ids)} members of organization {organization_id}"
    _change_members(client, "DELETE", organization_id, user_ids, subject=subject, scope="delete:organization_members")


def _change_members(
    client: Auth0Client, method: str, organization_id: str, user_ids: Sequence[str], *, subject: str, scope: str
) -> None:
    _check_count(user_ids, MAX_MEMBERS_PER_REQUEST)
    path, members = f"organizations/{segment(organization_id)}/members", {"members": list(user_ids)}
    client.request(method, path, json=members, subject=subject, scope=scope, bucket="write_members")


# -- roles


def add_roles(client: Auth0Client, organization_id: str, user_id: str, role_ids: Sequence[str]) -> None:
    """Assign roles to a member, in addition to the existing roles.

    Add the member first, because the result for a user who is not a member is not documented.
    """
    _check_count(role_ids, MAX_ROLES)
    client.request(
        "POST",
        f"organizations/{segment(organization_id)}/members/{segment(user_id)}/roles",
        json={"roles": list(role_ids)},
        subject=f"{len(role_ids)} roles of a member of organization {organization_id}",
        scope="create:organization_member_roles",
        bucket="write_member_roles",
    )


# -- users


def user_exists(client: Auth0Client, user_id: str) -> bool:
    """Return whether the tenant has a user with this id. Only the id of the user is requested."""
    return _exists(
        client,
        f"users/{segment(user_id)}",
        params=(("fields", "user_id"), ("include_fields", "true")),
        subject="a user",
        scope=USERS_SCOPE,
        bucket="users",
    )


def users_by_email(client: Auth0Client, email: str) -> list[str]:
    """Return the ids of the users with this address in all connections, including users who were just created.

    The comparison is case-sensitive, and Auth0's own database stores addresses in lower case. If no user has the
    address as specified, the address is looked up in lower case.
    """
    for address in dict.fromkeys((email, email.lower())):
        params = (("email", address), ("fields", "user_id"), ("include_fields", "true"))
        subject = "a list of users by e-mail"
        rows, _ = client.request_list(ApiList("users-by-email", None, subject, USERS_SCOPE, "users", params))
        ids = [row.value.get("user_id") for row in rows]
        wrong_types = {type(user_id).__name__ for user_id in ids if not isinstance(user_id, str)}
        if wrong_types:
            raise WrongFormatError(
                f"{client.name}: expected {subject} with a string as the user_id of each object, found"
                f" {', '.join(sorted(wrong_types))}; check the domain"
            )
        if ids:
            return ids
    return []


# -- invitations


class InvitationTerms(StrictModel):
    """The terms of an invitation. Auth0 sends an e-mail if ``send_email`` is true."""

    client_id: Annotated[
        str, pattern_field(pattern="^[A-Za-z0-9_-]{1,64}$", expected="the client id of the application")
    ]
    inviter: Annotated[
        str,
        pattern_field(
            pattern=rf"(?s)^\s*\S(.{{0,{MAX_NAME_LENGTH - 2}}}\S)?\s*$",
            expected=f"a name of 1 to {MAX_NAME_LENGTH} characters",
        ),
        Field(repr=False),
    ]
    ttl_sec: Omissible[Annotated[StrictInt, Field(ge=1, le=MAX_TTL_SECONDS)]] = None
    connection_id: Omissible[ConnectionId] = None
    send_email: StrictBool = False


@dataclass(frozen=True)
class Invitation:
    """An invitation without its URL. The URL is a secret, because anyone can use it to accept the invitation."""

    id: str
    expires_at: datetime | None
    created_at: datetime | None = None
    roles: frozenset[str] = frozenset()
    connection_id: str | None = None

    @property
    def lifetime(self) -> timedelta | None:
        """The time from the creation to the expiry, or None if Auth0 did not return both timestamps."""
        return self.expires_at - self.created_at if self.created_at and self.expires_at else None

    def has_expired(self, now: datetime) -> bool:
        """Return whether the invitation has expired."""
        return self.expires_at is not None and self.expires_at <= now

    def differences(self, terms: InvitationTerms, roles: Sequence[str]) -> list[str]:
        """Return the differences between the invitation and the terms as phrases for messages."""
        differences = []
        if self.roles != frozenset(roles):
            differences.append("different roles")
        if self.connection_id != terms.connection_id:
            differences.append("a different connection")
        requested_lifetime = timedelta(seconds=terms.ttl_sec or DEFAULT_TTL_SECONDS)
        if self.lifetime is None:
            differences.append("an unknown lifetime")
        elif abs(self.lifetime - requested_lifetime) > timedelta(seconds=MAX_TTL_DIFFERENCE_SECONDS):
            differences.append(f"a lifetime of {self.lifetime.total_seconds():.0f} s")
        return differences


def create_invitation(
    client: Auth0Client, organization_id: str, email: str, terms: InvitationTerms, roles: Sequence[str] = ()
) -> Invitation:
    """Invite a person to an organization.

    The request is not idempotent: each request creates another invitation, and may send another e-mail. If the
    outcome is unknown, the request is not retried, and ProviderBusyError with ``uncertain`` is raised.
    """
    body: dict[str, Any] = {
        "inviter": {"name": terms.inviter},
        "invitee": {"email": email},
        "client_id": terms.client_id,
        "send_invitation_email": terms.send_email,
    }
    optional = {"roles": list(roles) or None, "ttl_sec": terms.ttl_sec, "connection_id": terms.connection_id}
    subject = f"an invitation to organization {organization_id}"
    document = client.request(
        "POST",
        f"organizations/{segment(organization_id)}/invitations",
        json=body | {name: value for name, value in optional.items() if value is not None},
        subject=subject,
        scope="create:organization_invitations",
        bucket="write_invitations",
        repeatable=False,
    )
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        raise WrongFormatError(f"{client.name}: expected the id of {subject}, found none")
    return _invitation(document)


def list_invitations(client: Auth0Client, organization_id: str) -> dict[tuple[str, str], list[Invitation]]:
    """Return the invitations to an organization by case-folded e-mail address and client id, newest first.

    The result includes expired invitations. Auth0 returns at most 1,000 invitations.
    """
    source = ApiList(
        path=f"organizations/{segment(organization_id)}/invitations",
        key="invitations",
        subject=f"the invitations to organization {organization_id}",
        scope="read:organization_invitations",
        bucket="invitations",
        params=(("sort", "created_at:-1"),),
    )
    invitations: dict[tuple[str, str], list[Invitation]] = {}
    for rows, _ in numbered_pages(client, source, size=INVITATIONS_PER_PAGE):
        for row in (item.value for item in rows):
            invitee = row.get("invitee")
            email = invitee.get("email") if isinstance(invitee, dict) else None
            client_id = row.get("client_id")
            if isinstance(email, str) and isinstance(client_id, str) and isinstance(row.get("id"), str):
                invitations.setdefault((email.casefold(), client_id), []).append(_invitation(row))
    return invitations


def _invitation(document: dict[str, Any]) -> Invitation:
    roles, connection_id = document.get("roles"), document.get("connection_id")
    return Invitation(
        document["id"],
        _timestamp(document.get("expires_at")),
        _timestamp(document.get("created_at")),
        frozenset(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else frozenset(),
        connection_id if isinstance(connection_id, str) else None,
    )


def _timestamp(value: object) -> datetime | None:
    """Return an ISO 8601 timestamp with a time zone, or None for any other value."""
    try:
        timestamp = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return timestamp if timestamp and timestamp.tzinfo else None


def _exists(client: Auth0Client, path: str, **options: Any) -> bool:
    try:
        client.request("GET", path, **options)
    except RequestRefusedError as error:
        if error.is_missing:
            return False
        raise
    return True


def _check_count(ids: Sequence[str], maximum: int) -> None:
    if not 1 <= len(ids) <= maximum:
        raise ValueError(f"expected 1 to {maximum} ids in a request, found {len(ids)}")
