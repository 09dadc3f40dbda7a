"""Simulated Auth0 tenants and cybozu.com domains over real HTTPS on loopback.

    with Simulators([SimulatedTenant("acme", users=50_000)], [SimulatedDomain(users=1_000)]) as simulators:
        os.environ |= simulators.environment()
        tenant = simulators.auth0["acme"]
        tenant.domain, tenant.allowed_hosts, tenant.credentials(), tenant.switches.location_ttl = 1, …

The simulators follow the recordings and the documentation of the two providers and reject the same requests. For
undocumented behaviour there is a switch. The package that runs in AWS imports nothing from here.
"""

from __future__ import annotations

import shutil
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meibo_simulators.auth0.directory import Connection
from meibo_simulators.auth0.tenant import FIRST_CONNECTION, SECOND_CONNECTION, SimulatedTenant
from meibo_simulators.clock import SYSTEM_CLOCK, Clock
from meibo_simulators.cybozu.domain import SimulatedDomain
from meibo_simulators.tls import make_certificates

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

__all__ = [
    "FIRST_CONNECTION",
    "SECOND_CONNECTION",
    "Connection",
    "SimulatedDomain",
    "SimulatedTenant",
    "Simulators",
]


class Simulators:
    """Serve tenants and domains from threads of this process; a context manager that stops them on exit."""

    def __init__(
        self,
        auth0: Iterable[SimulatedTenant] = (),
        cybozu: Iterable[SimulatedDomain] = (),
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.auth0 = {tenant.name: tenant for tenant in auth0}
        self.cybozu = {domain.name: domain for domain in cybozu}
        self._clock = clock
        self._folder: Path | None = None
        self.ca_file = Path()

    def start(self) -> Simulators:
        """Create the certificates and open the ports."""
        self._folder = Path(tempfile.mkdtemp(prefix="simulators-"))
        context, self.ca_file = make_certificates(self._folder)
        for site in self._sites():
            site.start(context, self._folder, self._clock)
        return self

    def stop(self) -> None:
        """Close the ports and delete the files."""
        for site in self._sites():
            site.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _sites(self) -> list[SimulatedTenant | SimulatedDomain]:
        return [*self.auth0.values(), *self.cybozu.values()]

    def __enter__(self) -> Simulators:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """Return the environment variables that make Python's ssl and requests trust the simulators."""
        return {"SSL_CERT_FILE": str(self.ca_file), "REQUESTS_CA_BUNDLE": str(self.ca_file)}

    def description(self) -> dict[str, Any]:
        """Return all the data that a client in another process needs."""
        return {
            "ca_file": str(self.ca_file),
            "auth0": {
                name: {
                    "domain": tenant.domain,
                    "file_host": tenant.file_host,
                    "allowed_hosts": tenant.allowed_hosts,
                    "credentials": tenant.credentials(),
                    "key_credentials": tenant.key_credentials(),
                    "organizations": tenant.organizations.count(),
                    "organization_ids": tenant.organizations.ids()[:100],
                    "role_ids": list(tenant.organizations.roles),
                    "user_ids": [user["user_id"] for user in islice(tenant.expected_users(), 500)],
                    "members": sum(len(members) for members in tenant.memberships.values()),
                    "connections": {
                        connection.id: {"name": connection.name, "users": connection.users}
                        for connection in tenant.directory.connections.values()
                    },
                }
                for name, tenant in self.auth0.items()
            },
            "cybozu": {
                name: {
                    "base_url": domain.base_url,
                    "credentials": domain.credentials(),
                    "token_credentials": domain.token_credentials(),
                    "users": domain.directory.count(),
                    "rows": domain.expected_rows(),
                }
                for name, domain in self.cybozu.items()
            },
        }
