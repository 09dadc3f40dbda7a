"""Invitations of people who are not in the tenant.

https://auth0.com/docs/api/management/v2/organizations/post-invitations
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from meibo.errors import WrongFormatError
from meibo.http.transport import segment
from meibo.providers.auth0.client import Auth0Client

INVITATIONS_PER_PAGE: Final = 50
# The offset ends at 1,000 records.
MAX_PAGES: Final = 20
MAX_TTL_SECONDS: Final = 2_592_000
DEFAULT_TTL_SECONDS: Final = 604_800
# Auth0 computes both timestamps of an invitation itself; a smaller difference in lifetime is not the sender's.
TTL_TOLERANCE_SECONDS: Final = 60


@dataclass(frozen=True)
class Invitation:
    """An invitation, without its URL: whoever has the URL can accept it."""

    id: str
    expires_at: str | None
    created_at: str | None = None
    roles: frozenset[str] = frozenset()
    connection_id: str | None = None

    @property
    def lifetime(self) -> timedelta | None:
        """How long the invitation is valid from its creation, or None if Auth0 does not say."""
        created, expires = _moment(self.created_at), _moment(self.expires_at)
        return expires - created if created and expires else None

    def has_expired(self, now: datetime) -> bool:
        """Return whether the invitation cannot be accepted any more."""
        expires = _moment(self.expires_at)
        return expires is not None and expires <= now

    def differences(self, *, roles: Sequence[str], connection_id: str | None, ttl_sec: int | None) -> list[str]:
        """Return what a request with these terms would make different, in words; nothing if it is the same."""
        differences = []
        if self.roles != frozenset(roles):
            differences.append("other roles")
        if self.connection_id != connection_id:
            differences.append("another connection")
        wanted = timedelta(seconds=ttl_sec or DEFAULT_TTL_SECONDS)
        if self.lifetime is None:
            differences.append("an unknown lifetime")
        elif abs(self.lifetime - wanted) > timedelta(seconds=TTL_TOLERANCE_SECONDS):
            differences.append(f"a lifetime of {self.lifetime.total_seconds():.0f} s")
        return differences


def create_invitation(
    client: Auth0Client,
    organization_id: str,
    *,
    email: str,
    client_id: str,
    inviter: str,
    roles: Sequence[str] = (),
    ttl_sec: int | None = None,
    connection_id: str | None = None,
    send_email: bool = False,
) -> Invitation:
    """Invite a person to an organization, with an e-mail only where it is asked for.

    Not idempotent: invited twice, a person has two invitations, and perhaps two e-mails. A request with an
    unknown outcome is therefore not repeated; it raises ProviderBusyError with ``uncertain``, and
    ``find_invitation`` tells what came of it.
    """
    body: dict[str, Any] = {
        "inviter": {"name": inviter},
        "invitee": {"email": email},
        "client_id": client_id,
        "send_invitation_email": send_email,
    }
    if roles:
        body["roles"] = list(roles)
    if ttl_sec is not None:
        body["ttl_sec"] = ttl_sec
    if connection_id is not None:
        body["connection_id"] = connection_id
    subject = f"an invitation to organization {organization_id}"
    document = client.post(
        _path(organization_id),
        json=body,
        subject=subject,
        scope="create:organization_invitations",
        bucket="write_invitations",
        repeatable=False,
    )
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        raise WrongFormatError(f"{client.name} answered {subject} without its id")
    return _invitation(document)


def find_invitation(client: Auth0Client, organization_id: str, *, email: str, client_id: str) -> Invitation | None:
    """Return the newest invitation of a person to an organization, or None."""
    for invited, application, invitation in list_invitations(client, organization_id):
        if invited.casefold() == email.casefold() and application == client_id:
            return invitation
    return None


def list_invitations(client: Auth0Client, organization_id: str) -> Iterator[tuple[str, str, Invitation]]:
    """Yield (e-mail address, client id, invitation) of an organization, the newest first, at most 1,000.

    Invitations that have expired are among them.
    """
    for page in range(MAX_PAGES):
        rows = _page(client, organization_id, page)
        for row in rows:
            invitee = row.get("invitee")
            invited = invitee.get("email") if isinstance(invitee, dict) else None
            application = row.get("client_id")
            if isinstance(invited, str) and isinstance(application, str) and isinstance(row.get("id"), str):
                yield invited, application, _invitation(row)
        # "limit" in the answer counts the items, and a short page need not be the last: only an empty one is.
        if not rows:
            return


def _page(client: Auth0Client, organization_id: str, page: int) -> list[dict[str, Any]]:
    subject = f"the invitations to organization {organization_id}"
    document = client.get(
        _path(organization_id),
        params=(("page", str(page)), ("per_page", str(INVITATIONS_PER_PAGE)), ("sort", "created_at:-1")),
        subject=subject,
        scope="read:organization_invitations",
        bucket="invitations",
    )
    rows = document.get("invitations") if isinstance(document, dict) else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise WrongFormatError(f"{client.name} answered something other than {subject}")
    return rows


def _path(organization_id: str) -> str:
    return f"organizations/{segment(organization_id)}/invitations"


def _invitation(document: dict[str, Any]) -> Invitation:
    expires_at = document.get("expires_at")
    created_at, connection_id = document.get("created_at"), document.get("connection_id")
    roles = document.get("roles")
    return Invitation(
        document["id"],
        expires_at if isinstance(expires_at, str) else None,
        created_at if isinstance(created_at, str) else None,
        frozenset(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else frozenset(),
        connection_id if isinstance(connection_id, str) else None,
    )


def _moment(text: str | None) -> datetime | None:
    """Return an ISO 8601 timestamp with its time zone, or None if the text is something else."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None
