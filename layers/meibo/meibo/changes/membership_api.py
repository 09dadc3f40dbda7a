"""Requests that changes send to the Management API of an Auth0 source, with the pooled client of that source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from meibo.changes.messages import InvitationTerms
from meibo.configuration import Configuration
from meibo.errors import RequestRefusedError
from meibo.http.transport import segment
from meibo.providers.auth0.client import Auth0Client, clients
from meibo.providers.auth0.configuration import Auth0Source
from meibo.providers.auth0.invitations import Invitation, create_invitation, list_invitations
from meibo.providers.auth0.membership import add_members, add_roles, remove_members, role_ids
from meibo.providers.auth0.users import user_exists, users_by_email
from meibo.providers.base import ClientPool, ProviderContext

Result = TypeVar("Result")


@dataclass(frozen=True)
class MembershipApi:
    """The organizations, users and roles of one tenant.

    Each method may raise ProviderBusyError, or a MeiboError that says what to change, for example in the credentials.
    """

    domain: str
    secret: str
    context: ProviderContext
    pool: ClientPool[Auth0Client] = clients

    def add(self, organization_id: str, user_ids: Sequence[str]) -> None:
        """Add up to 10 users to an organization."""
        self._call(lambda client: add_members(client, organization_id, user_ids))

    def remove(self, organization_id: str, user_ids: Sequence[str]) -> None:
        """Remove up to 10 users from an organization."""
        self._call(lambda client: remove_members(client, organization_id, user_ids))

    def add_roles(self, organization_id: str, user_id: str, role_ids: Sequence[str]) -> None:
        """Assign roles to one member."""
        self._call(lambda client: add_roles(client, organization_id, user_id, role_ids))

    def invite(self, organization_id: str, email: str, terms: InvitationTerms, role_ids: Sequence[str]) -> Invitation:
        """Invite a person to an organization."""
        return self._call(
            lambda client: create_invitation(
                client,
                organization_id,
                email=email,
                client_id=terms.client_id,
                inviter=terms.inviter,
                roles=role_ids,
                ttl_sec=terms.ttl_sec,
                connection_id=terms.connection_id,
                send_email=terms.send_email,
            )
        )

    def invitations(self, organization_id: str) -> Mapping[tuple[str, str], Sequence[Invitation]]:
        """Return the invitations by case-folded e-mail address and client id, the newest first."""
        invitations: dict[tuple[str, str], list[Invitation]] = {}
        for email, client_id, invitation in self._call(lambda client: list(list_invitations(client, organization_id))):
            invitations.setdefault((email.casefold(), client_id), []).append(invitation)
        return invitations

    def organization_exists(self, organization_id: str) -> bool:
        """Return whether the tenant has an organization of this id."""

        def get(client: Auth0Client) -> bool:
            try:
                client.get(
                    f"organizations/{segment(organization_id)}",
                    subject=f"organization {organization_id}",
                    scope="read:organizations",
                    bucket="organization",
                )
            except RequestRefusedError as error:
                if error.is_missing:
                    return False
                raise
            return True

        return self._call(get)

    def user_exists(self, user_id: str) -> bool:
        """Return whether the tenant has a user of this id."""
        return self._call(lambda client: user_exists(client, user_id))

    def users_by_email(self, email: str) -> list[str]:
        """Return the ids of the users with this e-mail address."""
        return self._call(lambda client: users_by_email(client, email))

    def role_ids(self) -> frozenset[str]:
        """Return the ids of the roles of the tenant."""
        return self._call(role_ids)

    def _call(self, operation: Callable[[Auth0Client], Result]) -> Result:
        return self.pool.call(self.domain, self.secret, self.context, operation)


@dataclass
class MembershipApis:
    """The membership APIs of the configured Auth0 sources. The configuration is read when the first one is needed."""

    read_configuration: Callable[[], Configuration]
    context: ProviderContext
    pool: ClientPool[Auth0Client] = clients
    _configuration: Configuration | None = None

    def __call__(self, name: str) -> MembershipApi | None:
        """Return the API of a source, or None if no Auth0 source has that name."""
        if self._configuration is None:
            self._configuration = self.read_configuration()
        source = self._configuration.source(name)
        if not isinstance(source, Auth0Source):
            return None
        return MembershipApi(source.domain, source.secret, self.context, self.pool)
