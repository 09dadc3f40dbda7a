"""The providers as the exports need them: clients of the sources, with credentials from their secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meibo.auth0.client import Auth0Client
from meibo.auth0.connections import organization_connections
from meibo.auth0.credentials import Auth0Credentials
from meibo.auth0.jobs import JobStatus, create_users_export, get_job
from meibo.auth0.location import fresh_location
from meibo.cybozu.client import CybozuClient
from meibo.cybozu.credentials import CybozuCredentials
from meibo.errors import CredentialsRefusedError, ScopeMissingError
from meibo.exports.plan import PlannedExport
from meibo.secrets import read_secret

if TYPE_CHECKING:
    from meibo.configuration import Auth0Source

Deadline = Callable[[], float]

# A kept client has a token; whoever changes a secret must not have to wait for the process's end.
_auth0_clients: dict[tuple[str, str], Auth0Client] = {}


def forget_clients() -> None:
    """Drop the kept clients, for a process whose providers change (tests, the local system)."""
    _auth0_clients.clear()


@dataclass(frozen=True)
class Providers:
    """What the exports ask of the providers.

    Clients of Auth0 tenants are kept with their tokens for the life of the process. ``deadline`` returns the
    seconds that the invocation at hand has left.
    """

    deadline: Deadline
    secret: Callable[[str], Mapping[str, Any]] = read_secret

    def connections(self, source: Auth0Source, organization_id: str) -> list[str]:
        """Return the ids of the connections that are enabled for an organization."""
        with self._auth0(source.domain, source.secret) as client:
            return organization_connections(client, organization_id)

    def create_job(self, export: PlannedExport) -> str:
        """Create the job of one Auth0 export and return its id."""
        request = export.request
        with self._auth0(export.endpoint, export.secret) as client:
            job = create_users_export(
                client,
                connection_id=request.get("connection_id"),
                format=export.format,
                limit=request.get("limit"),
                fields=request["fields"],
            )
        return job.id

    def read_job(self, export: PlannedExport, job_id: str) -> JobStatus:
        """Return the state of an export's job."""
        with self._auth0(export.endpoint, export.secret) as client:
            return get_job(client, job_id)

    def location(self, export: PlannedExport, job_id: str, allowed_hosts: tuple[str, ...]) -> str:
        """Return a fresh location of the job's file, vetted. It is a secret."""
        with self._auth0(export.endpoint, export.secret) as client:
            return fresh_location(client, job_id, allowed_hosts)

    def cybozu(self, export: PlannedExport) -> CybozuClient:
        """Return a client of an export's cybozu.com domain; it holds nothing that is worth keeping."""
        credentials = CybozuCredentials.from_secret(self.secret(export.secret))
        return CybozuClient(export.endpoint, credentials, deadline=self.deadline)

    @contextmanager
    def _auth0(self, domain: str, secret: str) -> Iterator[Auth0Client]:
        key = (domain, secret)
        client = _auth0_clients.get(key)
        if client is None:
            client = Auth0Client(domain, Auth0Credentials.from_secret(self.secret(secret)))
            _auth0_clients[key] = client
        client.deadline = self.deadline
        try:
            yield client
        except (CredentialsRefusedError, ScopeMissingError):
            _auth0_clients.pop(key, None)
            raise
