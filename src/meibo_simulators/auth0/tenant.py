"""A simulated Auth0 tenant: its users, clients, jobs and switches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from meibo_simulators.auth0.directory import Connection, Directory
from meibo_simulators.auth0.export_files import ExportFile, Files
from meibo_simulators.auth0.jobs import Jobs
from meibo_simulators.auth0.organizations import MEMBER_FIELDS, Invitations, Memberships, Organizations
from meibo_simulators.auth0.ratelimit import RateLimits
from meibo_simulators.auth0.roles import NAMES, Roles
from meibo_simulators.auth0.switches import Switches
from meibo_simulators.auth0.tokens import Client, Tokens, key_pair
from meibo_simulators.site import Site

SCOPES = frozenset(
    [
        "read:users",
        "create:users",
        "update:users",
        "read:connections",
        "read:organizations",
        "read:organization_connections",
        "read:organization_members",
        "create:organization_members",
        "delete:organization_members",
        "read:organization_member_roles",
        "create:organization_member_roles",
        "delete:organization_member_roles",
        "read:organization_invitations",
        "create:organization_invitations",
        "read:roles",
        "create:roles",
        "update:roles",
        "create:role_members",
        "create:organizations",
        "update:organizations",
        "create:organization_connections",
        "update:organization_connections",
    ]
)
FIRST_CONNECTION = "con_0000000000000001"
SECOND_CONNECTION = "con_0000000000000002"


class SimulatedTenant(Site):
    """A tenant, which ``Simulators`` serves.

    ``connections`` maps ids to a number of users, to None (an equal share of ``users``) or to a ``Connection``.
    ``organizations`` and ``roles`` are numbers. ``members`` is the average number of members per organization.
    """

    def __init__(
        self,
        name: str = "acme",
        *,
        users: int = 0,
        organizations: int = 0,
        members: int = 20,
        roles: int = len(NAMES),
        connections: Mapping[str, int | Connection | None] | None = None,
        seed: int = 1,
    ) -> None:
        super().__init__(name, seed)
        self.switches = Switches()
        if connections is None:
            connections = {FIRST_CONNECTION: None, SECOND_CONNECTION: None}
        self.directory = Directory(
            seed,
            [
                value if isinstance(value, Connection) else Connection(connection_id, users=value)
                for connection_id, value in connections.items()
            ],
            users,
        )
        self.roles = Roles(self.directory, self.new_id, count=roles)
        self.organizations = Organizations(
            self.directory, self.roles, self.switches, self.now, self.new_id, count=organizations, members=members
        )
        self.memberships = Memberships(self.organizations)
        self.invitations = Invitations(self.now, self.new_id)
        self.tokens = Tokens(self, self.switches)
        self.files = Files(self, self.switches, self.directory)
        self.limits = RateLimits(self.switches, self.now)
        self.jobs = Jobs(self, self.switches, self.directory, self.files, self.new_id)
        self.client = self.tokens.add(Client(f"meibo-{name}", SCOPES, secret=self._secret()))
        self._key_client: Client | None = None

    def new_id(self, prefix: str, number: int) -> str:
        """Return an id in Auth0's format. The same tenant and number always have the same id."""
        digest = hashlib.sha256(f"{self.name}:{self.seed}:{prefix}:{number}".encode()).hexdigest()
        return f"{prefix}_{digest[:16]}"

    # -- data for clients -----------------------------------------------------------------------------------

    @property
    def domain(self) -> str:
        """The host and port of the tenant's API."""
        return self.host

    @property
    def file_host(self) -> str:
        """The host and port of locations."""
        return self.files.host

    @property
    def allowed_hosts(self) -> list[str]:
        """The hosts of locations that a client must allow."""
        return [self.files.host]

    def source(self, *exports: dict[str, Any]) -> dict[str, Any]:
        """Return the tenant's source in a configuration."""
        return {
            "provider": "auth0",
            "name": self.name,
            "domain": self.domain,
            "secret": f"meibo/{self.name}",
            "location_hosts": self.allowed_hosts,
            "exports": list(exports),
        }

    def credentials(self) -> dict[str, str]:
        """Return the secret document of the client that authenticates with its secret."""
        return {"client_id": self.client.id, "client_secret": self.client.secret or ""}

    def key_credentials(self, algorithm: str = "RS256") -> dict[str, str]:
        """Return the secret document of the client that authenticates with its private key."""
        private, public = key_pair(self.name)
        if self._key_client is None:
            self._key_client = self.tokens.add(
                Client(f"meibo-{self.name}-key", SCOPES, public_key=public, key_id=f"{self.name}-1")
            )
        self._key_client.algorithm = algorithm
        return {
            "client_id": self._key_client.id,
            "private_key": private,
            "key_id": f"{self.name}-1",
            "algorithm": algorithm,
        }

    def limited_client(self, *scopes: str, client_id: str = "limited") -> dict[str, str]:
        """Register a client with only these scopes and return its secret document."""
        client = self.tokens.add(Client(client_id, frozenset(scopes), secret=self._secret(client_id)))
        return {"client_id": client.id, "client_secret": client.secret or ""}

    def _secret(self, client_id: str = "") -> str:
        return "simulated-" + hashlib.sha256(f"{self.name}:{client_id}:{self.seed}".encode()).hexdigest()[:48]

    # -- expected values for tests --------------------------------------------------------------------------

    def expected_rows(self, connection_id: str | None = None) -> int:
        """Return the number of users in an export without a limit."""
        return self.directory.count(connection_id)

    def expected_users(self, connection_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the profiles of an export, in its order."""
        return self.directory.users(connection_id)

    def expected_organizations(self) -> Iterator[dict[str, Any]]:
        """Yield every organization as GET /organizations returns it."""
        for organization_id in self.organizations.ids():
            organization = self.organizations.find(organization_id)
            if organization is not None:
                yield organization.body

    def expected_members(self, organization_id: str, *, roles: bool = False) -> list[dict[str, Any]]:
        """Return the members of an organization as the members list returns them, in the order of joining."""
        fields = list(MEMBER_FIELDS if roles else MEMBER_FIELDS[:-1])
        ids = self.organizations.members(organization_id)
        return [self.organizations.member(organization_id, user_id, fields) for user_id in ids]

    def expected_file(self, job_id: str) -> ExportFile:
        """Return the file of an export job."""
        return self.jobs.file(job_id)
