"""The Auth0 tenants as the changes need them: clients of the configured sources, kept with their tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from meibo.changes.messages import InvitationTerms
from meibo.configuration import Configuration
from meibo.errors import RequestRefusedError
from meibo.http.ratelimit import Deadline
from meibo.http.transport import segment
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.configuration import Auth0Source
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.invitations import Invitation, create_invitation, list_invitations
from meibo.providers.auth0.membership import add_members, add_roles, remove_members, role_ids
from meibo.providers.auth0.users import user_exists, users_by_email
from meibo.secrets import read_secret


class MembershipApi(Protocol):
    """What a change asks of a tenant. Every question may raise ProviderBusyError, or say that we are wrong."""

    def add(self, organization_id: str, user_ids: Sequence[str]) -> None: ...

    def remove(self, organization_id: str, user_ids: Sequence[str]) -> None: ...

    def add_roles(self, organization_id: str, user_id: str, role_ids: Sequence[str]) -> None: ...

    def invite(
        self, organization_id: str, email: str, terms: InvitationTerms, role_ids: Sequence[str]
    ) -> Invitation: ...

    def invitations(self, organization_id: str) -> Mapping[tuple[str, str], Sequence[Invitation]]: ...

    def organization_exists(self, organization_id: str) -> bool: ...

    def user_exists(self, user_id: str) -> bool: ...

    def users_of(self, email: str) -> list[str]: ...

    def roles(self) -> frozenset[str]: ...


@dataclass(frozen=True)
class Auth0MembershipApi:
    """A tenant behind its client."""

    client: Auth0Client

    def add(self, organization_id: str, user_ids: Sequence[str]) -> None:
        """Add up to ten users to an organization."""
        add_members(self.client, organization_id, user_ids)

    def remove(self, organization_id: str, user_ids: Sequence[str]) -> None:
        """Remove up to ten users from an organization."""
        remove_members(self.client, organization_id, user_ids)

    def add_roles(self, organization_id: str, user_id: str, role_ids: Sequence[str]) -> None:
        """Give roles to one member."""
        add_roles(self.client, organization_id, user_id, role_ids)

    def invite(self, organization_id: str, email: str, terms: InvitationTerms, role_ids: Sequence[str]) -> Invitation:
        """Invite a person."""
        return create_invitation(
            self.client,
            organization_id,
            email=email,
            client_id=terms.client_id,
            inviter=terms.inviter,
            roles=role_ids,
            ttl_sec=terms.ttl_sec,
            connection_id=terms.connection_id,
            send_email=terms.send_email,
        )

    def invitations(self, organization_id: str) -> Mapping[tuple[str, str], Sequence[Invitation]]:
        """Return the invitations by case-folded address and client id, the newest first."""
        invitations: dict[tuple[str, str], list[Invitation]] = {}
        for email, client_id, invitation in list_invitations(self.client, organization_id):
            invitations.setdefault((email.casefold(), client_id), []).append(invitation)
        return invitations

    def organization_exists(self, organization_id: str) -> bool:
        """Tell whether the tenant has this organization."""
        try:
            self.client.get(
                f"organizations/{segment(organization_id)}",
                subject=f"organization {organization_id}",
                scope="read:organizations",
                bucket="organization",
            )
        except RequestRefusedError as error:
            if error.status == 404:
                return False
            raise
        return True

    def user_exists(self, user_id: str) -> bool:
        """Tell whether the tenant has this user."""
        return user_exists(self.client, user_id)

    def users_of(self, email: str) -> list[str]:
        """Return the ids of the users with this address."""
        return users_by_email(self.client, email)

    def roles(self) -> frozenset[str]:
        """Return the ids of the tenant's roles."""
        return role_ids(self.client)


# By thread as well: on one machine several invocations share the process, in AWS each has a process of its own.
_clients: dict[tuple[str, str, int], Auth0Client] = {}


def forget_clients() -> None:
    """Drop the kept clients, for a process whose providers change (tests, the local system)."""
    _clients.clear()


@dataclass
class MembershipApis:
    """Finds the tenant of a source.

    ``headroom`` is how many invocations may run side by side: each leaves so many requests of the tenant's limit to
    the others, which is what keeps them all from being refused.
    """

    configuration: Callable[[], Configuration]
    deadline: Deadline
    headroom: int
    secret: Callable[[str], Mapping[str, Any]] = read_secret
    _read: Configuration | None = None

    def __call__(self, name: str) -> MembershipApi | None:
        """Return the tenant of a source, or None where no Auth0 source has that name."""
        if self._read is None:
            self._read = self.configuration()
        source = self._read.source(name)
        return Auth0MembershipApi(self._client(source)) if isinstance(source, Auth0Source) else None

    def forget(self, name: str) -> None:
        """Drop a source's client: its credentials were refused and may have been replaced since."""
        source = self._read.source(name) if self._read else None
        if isinstance(source, Auth0Source):
            _clients.pop((source.domain, source.secret, threading.get_ident()), None)

    def _client(self, source: Auth0Source) -> Auth0Client:
        key = (source.domain, source.secret, threading.get_ident())
        client = _clients.get(key)
        if client is None:
            credentials = Auth0Credentials.from_secret(self.secret(source.secret))
            client = _clients[key] = Auth0Client(source.domain, credentials, headroom=self.headroom)
        client.deadline = self.deadline
        return client
