"""A simulated tenant on a fake clock, and import files with their journal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo_cli.restore.import_jobs import send
from meibo_cli.restore.journal import Journal
from meibo_simulators import FIRST_CONNECTION, SimulatedTenant, tenant_api
from meibo_simulators.auth0 import imports
from tests.support.clock import FakeClock
from tests.support.wsgi import WsgiAdapter

CONNECTION = "Username-Password-Authentication"


def user(number: int) -> dict[str, Any]:
    return {
        "user_id": f"{number:024}",
        "email": f"Person{number}@example.jp",
        "email_verified": number % 2 == 0,
        "user_metadata": {"number": number} if number % 3 else {},
    }


@dataclass
class ImportTarget:
    """A tenant. ``received`` counts the user ids in the import requests that the tenant accepted."""

    tenant: SimulatedTenant
    clock: FakeClock
    adapter: WsgiAdapter
    received: Counter[str] = field(default_factory=Counter)

    def client(self) -> Auth0Client:
        credentials = Auth0Credentials.from_secret(self.tenant.credentials())
        return Auth0Client(self.tenant.domain, lambda: credentials, session=self.adapter.session(), clock=self.clock)

    def journal(self, folder: Path, *, files: int, users: int = 2, upsert: bool = False) -> Journal:
        """Write files with users, and their journal."""
        paths = []
        folder.mkdir()
        for number in range(files):
            path = folder / f"users-{number + 1:04d}.json"
            path.write_text(json.dumps([user(number * users + n) for n in range(users)]), encoding="utf-8")
            paths.append((path, users))
        return Journal.create(
            folder,
            paths,
            export_id="acme/users/ndjson/all",
            run_id="20261121T180000Z",
            source="acme",
            domain=self.tenant.domain,
            connection_id=FIRST_CONNECTION,
            connection=CONNECTION,
            upsert=upsert,
        )

    def send(self, folder: Path) -> Journal:
        """Continue the import of a folder, as a new process does."""
        journal = Journal.read(folder)
        send(self.client(), journal, clock=self.clock)
        return Journal.read(folder)

    def users(self) -> dict[str, Any]:
        """Return the metadata of the tenant's users by user id."""
        # The simulator finishes imports when the next request arrives.
        self.tenant.jobs.finish_imports()
        return {profile["user_id"]: profile.get("user_metadata", {}) for profile in self.tenant.directory.users()}


@contextmanager
def import_target() -> Iterator[ImportTarget]:
    clock = FakeClock()
    tenant = SimulatedTenant("empty", connections={FIRST_CONNECTION: 0})
    tenant.switches.import_seconds = 5
    tenant.switches.token_lifetime = 10**6
    tenant.start("empty.jp.auth0.com", clock)
    target = ImportTarget(tenant, clock, WsgiAdapter(tenant_api(tenant), clock.sleep))

    def import_users(directory: Any, job: Any, connection_id: str, rows: Any, *, upsert: bool) -> None:
        target.received.update(row["user_id"] for row in rows)
        imports.import_users(directory, job, connection_id, rows, upsert=upsert)

    with mock.patch("meibo_simulators.auth0.user_routes.import_users", import_users):
        yield target
