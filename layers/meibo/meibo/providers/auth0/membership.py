"""Requests of membership changes: the members of an organization, their roles, and invitations.

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
from meibo.http.raw_json import RawJson
from meibo.http.transport import segment
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.configuration import ConnectionId
from meibo.providers.auth0.jobs import USERS_SCOPE
from meibo.providers.auth0.organizations import ORGANIZATIONS_SCOPE
from meibo.validation import Omissible, StrictModel, pattern_field

# Users per request:
# https://auth0.com/docs/manage-users/organizations/configure-organizations/assign-members
MAX_MEMBERS_PER_REQUEST: Final = 10
# Roles per member of an organization, and roles per tenant:
# https://auth0.com/docs/troubleshoot/customer-support/operational-policies/entity-limit-policy
MAX_ROLES: Final = 50
MAX_TENANT_ROLES: Final = 1000
ROLES_PER_PAGE: Final = 100
# Auth0 rejects an offset above 1,000 records.
MAX_INVITATIONS: Final = 1000
INVITATIONS_PER_PAGE: Final = 50
MAX_NAME_LENGTH: Final = 300
MAX_TTL_SECONDS: Final = 2_592_000
DEFAULT_TTL_SECONDS: Final = 604_800
# Auth0 sets both timestamps, so a smaller difference is not caused by the requested lifetime.
MAX_TTL_DIFFERENCE_SECONDS: Final = 60


# -- organizations and members


def organization_exists(client: Auth0Client, organization_id: str) -> bool:
    """Return whether the tenant has an organization with this id."""
    return _exists(
        client,
        f"organizations/{segment(organization_id)}",
        subject=f"organization {organization_id}",
        scope=ORGANIZATIONS_SCOPE,
        bucket="organization",
    )


def add_members(client: Auth0Client, organization_id: str, user_ids: Sequence[str]) -> None:
    """Add up to 10 users; a user who is already a member remains a member.

    Raises RequestRefusedError, for example if the tenant has no user with one of the ids. Auth0 does not document
    whether it adds the other users in that case. The request is idempotent, so it is retried after a 5xx or a reset.
    """
    _check_count(user_ids, MAX_MEMBERS_PER_REQUEST)
    client.request(
        "POST",
        f"organizations/{segment(organization_id)}/members",
        json={"members": list(user_ids)},
        subject=f"{len(user_ids)} new members of organization {organization_id}",
        scope="create:organization_members",
        bucket="write_members",
    )


def remove_members(client: Auth0Client, organization_id: str, user_ids: Sequence[str]) -> None:
    """Remove up to 10 users; users who are not members are ignored. Raises the same errors as ``add_members``."""
    _check_count(user_ids, MAX_MEMBERS_PER_REQUEST)
    client.request(
        "DELETE",
        f"organizations/{segment(organization_id)}/members",
        json={"members": list(user_ids)},
        subject=f"the removal of {len(user_ids)} members of organization {organization_id}",
        scope="delete:organization_members",
        bucket="write_members",
    )


# -- roles


def add_roles(client: Auth0Client, organization_id: str, user_id: str, role_ids: Sequence[str]) -> None:
    """Assign roles to a member, in addition to the roles that the member has.

    Auth0 does not document the result for a user who is not a member, so add the member first.
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


def role_ids(client: Auth0Client) -> frozenset[str]:
    """Return the ids of all roles of the tenant."""
    ids: set[str] = set()
    for page in range(MAX_TENANT_ROLES // ROLES_PER_PAGE):
        rows, _ = client.request_list(
            "roles",
            "roles",
            params=(("page", str(page)), ("per_page", str(ROLES_PER_PAGE)), ("include_totals", "true")),
            subject="the list of roles",
            scope="read:roles",
            bucket="roles",
        )
        if not rows:
            break
        ids.update(_strings(client, rows, "id", "the list of roles"))
    return frozenset(ids)


# -- users


def user_exists(client: Auth0Client, user_id: str) -> bool:
    """Return whether the tenant has a user with this id. Nothing else about the user is requested."""
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

    The comparison is case-sensitive, and Auth0's own database stores addresses in lower case. So if there is no user
    with the address as given, the address in lower case is looked up.
    """
    for address in dict.fromkeys((email, email.lower())):
        rows, _ = client.request_list(
            "users-by-email",
            None,
            params=(("email", address), ("fields", "user_id"), ("include_fields", "true")),
            subject="a list of users by e-mail",
            scope=USERS_SCOPE,
            bucket="users",
        )
        if rows:
            return _strings(client, rows, "user_id", "a list of users by e-mail")
    return []


# -- invitations


class InvitationTerms(StrictModel):
    """The terms of an invitation. Auth0 sends an e-mail only if ``send_email`` is true."""

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
    """An invitation without its URL. The URL is a secret: anyone who has it can accept the invitation."""

    id: str
    expires_at: str | None
    created_at: str | None = None
    roles: frozenset[str] = frozenset()
    connection_id: str | None = None

    @property
    def lifetime(self) -> timedelta | None:
        """The time from creation to expiry, or None if Auth0 does not return both timestamps."""
        created, expires = _timestamp(self.created_at), _timestamp(self.expires_at)
        return expires - created if created and expires else None

    def has_expired(self, now: datetime) -> bool:
        """Return whether the invitation has expired and can no longer be accepted."""
        expires = _timestamp(self.expires_at)
        return expires is not None and expires <= now

    def differences(self, terms: InvitationTerms, roles: Sequence[str]) -> list[str]:
        """Return the differences between this invitation and these terms as phrases; empty if there are none."""
        differences = []
        if self.roles != frozenset(roles):
            differences.append("other roles")
        if self.connection_id != terms.connection_id:
            differences.append("another connection")
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

    Not idempotent: each request creates another invitation and sends another e-mail. A request with an unknown outcome
    is therefore not retried: it raises ProviderBusyError with ``uncertain``.
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
    """Return the invitations to an organization by case-folded e-mail address and client id, the newest first.

    The result includes expired invitations. Auth0 returns at most 1,000.
    """
    invitations: dict[tuple[str, str], list[Invitation]] = {}
    for page in range(MAX_INVITATIONS // INVITATIONS_PER_PAGE):
        rows, _ = client.request_list(
            f"organizations/{segment(organization_id)}/invitations",
            "invitations",
            params=(("page", str(page)), ("per_page", str(INVITATIONS_PER_PAGE)), ("sort", "created_at:-1")),
            subject=f"the invitations to organization {organization_id}",
            scope="read:organization_invitations",
            bucket="invitations",
        )
        for row in (item.value for item in rows):
            invitee = row.get("invitee")
            email = invitee.get("email") if isinstance(invitee, dict) else None
            client_id = row.get("client_id")
            if isinstance(email, str) and isinstance(client_id, str) and isinstance(row.get("id"), str):
                invitations.setdefault((email.casefold(), client_id), []).append(_invitation(row))
        # "limit" in the response is the number of items, and a short page need not be the last. Only an empty page
        # marks the end.
        if not rows:
            break
    return invitations


def _invitation(document: dict[str, Any]) -> Invitation:
    def string(name: str) -> str | None:
        value = document.get(name)
        return value if isinstance(value, str) else None

    roles = document.get("roles")
    return Invitation(
        document["id"],
        string("expires_at"),
        string("created_at"),
        frozenset(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else frozenset(),
        string("connection_id"),
    )


def _timestamp(text: str | None) -> datetime | None:
    """Return an ISO 8601 timestamp with its time zone, or None if the string is not such a timestamp."""
    try:
        timestamp = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return timestamp if timestamp.tzinfo else None


def _exists(client: Auth0Client, path: str, **options: Any) -> bool:
    try:
        client.request("GET", path, **options)
    except RequestRefusedError as error:
        if error.is_missing:
            return False
        raise
    return True


def _strings(client: Auth0Client, rows: list[RawJson], key: str, subject: str) -> list[str]:
    values = [row.value.get(key) for row in rows]
    strings = [value for value in values if isinstance(value, str)]
    if len(strings) != len(values):
        raise WrongFormatError(
            f"{client.name}: expected {subject} with a string as the {key} of each object, found"
            f" {', '.join(sorted({type(value).__name__ for value in values} - {'str'}))}; check the domain"
        )
    return strings


def _check_count(ids: Sequence[str], maximum: int) -> None:
    if not 1 <= len(ids) <= maximum:
        raise ValueError(f"expected 1 to {maximum} ids in a request, found {len(ids)}")
