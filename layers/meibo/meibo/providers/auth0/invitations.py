"""Create and list invitations to an organization, for people who are not users of the tenant yet.

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
# Auth0 rejects an offset above 1,000 records.
MAX_PAGES: Final = 20
MAX_TTL_SECONDS: Final = 2_592_000
DEFAULT_TTL_SECONDS: Final = 604_800
# Auth0 sets both timestamps itself, so a smaller difference in lifetime does not come from the request.
MAX_TTL_DIFFERENCE_SECONDS: Final = 60


@dataclass(frozen=True)
class Invitation:
    """An invitation, without its URL, which is a secret: every holder of the URL can accept the invitation."""

    id: str
    expires_at: str | None
    created_at: str | None = None
    roles: frozenset[str] = frozenset()
    connection_id: str | None = None

    @property
    def lifetime(self) -> timedelta | None:
        """The time from creation to expiry, or None if Auth0 does not return both."""
        created, expires = _moment(self.created_at), _moment(self.expires_at)
        return expires - created if created and expires else None

    def has_expired(self, now: datetime) -> bool:
        """Return whether the invitation has expired and cannot be accepted any more."""
        expires = _moment(self.expires_at)
        return expires is not None and expires <= now

    def differences(self, *, roles: Sequence[str], connection_id: str | None, ttl_sec: int | None) -> list[str]:
        """Return the differences between this invitation and these terms as phrases; empty if there are none."""
        differences = []
        if self.roles != frozenset(roles):
            differences.append("other roles")
        if self.connection_id != connection_id:
            differences.append("another connection")
        requested_lifetime = timedelta(seconds=ttl_sec or DEFAULT_TTL_SECONDS)
        if self.lifetime is None:
            differences.append("an unknown lifetime")
        elif abs(self.lifetime - requested_lifetime) > timedelta(seconds=MAX_TTL_DIFFERENCE_SECONDS):
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
    """Invite a person to an organization. Auth0 sends an e-mail only if ``send_email`` is true.

    Not idempotent: each request creates another invitation and sends another e-mail. A request with an unknown outcome
    is therefore not retried: it raises ProviderBusyError with ``uncertain``.
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
        raise WrongFormatError(f"{client.name}: expected the id of {subject}, found none")
    return _invitation(document)


def list_invitations(client: Auth0Client, organization_id: str) -> Iterator[tuple[str, str, Invitation]]:
    """Yield (e-mail address, client id, invitation) for each invitation of an organization, the newest first.

    The list includes expired invitations. Auth0 returns at most 1,000.
    """
    for page in range(MAX_PAGES):
        rows = _page(client, organization_id, page)
        for row in rows:
            invitee = row.get("invitee")
            email = invitee.get("email") if isinstance(invitee, dict) else None
            client_id = row.get("client_id")
            if isinstance(email, str) and isinstance(client_id, str) and isinstance(row.get("id"), str):
                yield email, client_id, _invitation(row)
        # "limit" in the response is the number of items, and a short page need not be the last. Only an empty page is.
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
        raise WrongFormatError(f"{client.name}: expected {subject}, found something else")
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
    """Return an ISO 8601 timestamp with its time zone, or None if the string is something else."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None
