"""The providers as the exports need them: clients of the sources, with credentials from their secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import requests

from meibo.errors import CredentialsRefusedError, ScopeMissingError
from meibo.exports.plan import PlannedExport
from meibo.http.ratelimit import Clock, Deadline
from meibo.http.transport import new_session
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.jobs import JobStatus, create_users_export, get_job
from meibo.providers.auth0.location import fresh_location
from meibo.providers.auth0.organizations import (
    MemberReader,
    enabled_connections,
    organization_connections,
    organizations,
)
from meibo.providers.auth0.pagination import Page
from meibo.providers.cybozu.client import CONNECTIONS as CYBOZU_CONNECTIONS
from meibo.providers.cybozu.client import CybozuClient
from meibo.providers.cybozu.credentials import CybozuCredentials
from meibo.secrets import read_secret

if TYPE_CHECKING:
    from meibo.configuration import Auth0Source

T = TypeVar("T")

# Each question waits for the answer to the last one.
_AUTH0_CONNECTIONS = 1

_auth0_clients: dict[tuple[str, str], Auth0Client] = {}


def forget_clients() -> None:
    """Drop the kept clients, for a process whose providers change (tests, the local system)."""
    _auth0_clients.clear()


@dataclass(frozen=True)
class ProviderClients:
    """What the exports ask of the providers.

    Clients of Auth0 tenants are kept with their tokens for the life of the process. Where a kept one is refused, its
    secret may have been rotated since: it is read again, and the question asked once more. ``deadline`` returns the
    seconds that the invocation at hand has left; ``session`` and ``clock`` are what the clients reach out and wait by.
    """

    deadline: Deadline
    secret: Callable[[str], Mapping[str, Any]] = read_secret
    session: Callable[[int], requests.Session] = new_session
    clock: Clock | None = None

    def connections(self, source: Auth0Source, organization_id: str) -> list[str]:
        """Return the ids of the connections that are enabled for an organization."""
        return self.ask_auth0(
            source.domain, source.secret, lambda client: organization_connections(client, organization_id)
        )

    def create_job(self, export: PlannedExport) -> str:
        """Create the job of one Auth0 export and return its id."""
        request = export.request
        job = self.ask_auth0(
            export.endpoint,
            export.secret,
            lambda client: create_users_export(
                client,
                connection_id=request.get("connection_id"),
                format=export.format,
                limit=request.get("limit"),
                fields=request["fields"],
            ),
        )
        return job.id

    def read_job(self, export: PlannedExport, job_id: str) -> JobStatus:
        """Return the state of an export's job."""
        return self.ask_auth0(export.endpoint, export.secret, lambda client: get_job(client, job_id))

    def location(self, export: PlannedExport, job_id: str, allowed_hosts: tuple[str, ...]) -> str:
        """Return a fresh location of the job's file, vetted. It is a secret."""
        return self.ask_auth0(
            export.endpoint, export.secret, lambda client: fresh_location(client, job_id, allowed_hosts)
        )

    def tenant(self, export: PlannedExport, deadline: Deadline) -> Auth0OrganizationApi:
        """Return what answers the questions of a walk through an export's tenant."""
        return Auth0OrganizationApi(replace(self, deadline=deadline), export)

    @contextmanager
    def cybozu(self, export: PlannedExport) -> Iterator[CybozuClient]:
        """Give a client of an export's cybozu.com domain, whose connections end with it."""
        credentials = CybozuCredentials.from_secret(self.secret(export.secret))
        with self.session(CYBOZU_CONNECTIONS) as session:
            yield CybozuClient(export.endpoint, credentials, session=session, clock=self.clock, deadline=self.deadline)

    def ask_auth0(self, domain: str, secret: str, question: Callable[[Auth0Client], T]) -> T:
        """Ask one question of a tenant's client."""
        key = (domain, secret)
        kept = _auth0_clients.get(key)
        if kept is not None:
            kept.deadline = self.deadline
            try:
                return question(kept)
            except (CredentialsRefusedError, ScopeMissingError):
                _auth0_clients.pop(key, None)
        client = Auth0Client(
            domain,
            Auth0Credentials.from_secret(self.secret(secret)),
            session=self.session(_AUTH0_CONNECTIONS),
            clock=self.clock,
            deadline=self.deadline,
        )
        answer = question(client)
        _auth0_clients[key] = client
        return answer


@dataclass(frozen=True)
class Auth0OrganizationApi:
    """The questions of a walk, each one call: a secret that was rotated on a long way does not end it."""

    providers: ProviderClients
    export: PlannedExport

    @property
    def name(self) -> str:
        """How messages name the tenant."""
        return f"Auth0 ({self.export.endpoint})"

    def organizations(self, cursor: str | None) -> Page:
        """Return a page of the list of organizations."""
        return self._ask(lambda client: next(organizations(client, cursor)))

    def enabled_connections(self, organization_id: str) -> list[dict[str, Any]]:
        """Return an organization's enabled connections."""
        return self._ask(lambda client: enabled_connections(client, organization_id))

    def members(self, organization_id: str, cursor: str | None, *, with_roles: bool) -> tuple[Page, bool]:
        """Return a page of an organization's members, and whether it has their roles."""

        def question(client: Auth0Client) -> tuple[Page, bool]:
            reader = MemberReader(client, with_roles=with_roles)
            return next(reader.pages(organization_id, cursor)), reader.with_roles

        return self._ask(question)

    def _ask(self, question: Callable[[Auth0Client], T]) -> T:
        return self.providers.ask_auth0(self.export.endpoint, self.export.secret, question)
