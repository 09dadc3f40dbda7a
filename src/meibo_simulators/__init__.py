"""Simulated Auth0 tenants and cybozu.com domains over real HTTPS on loopback.

    with Simulators([SimulatedTenant("acme", users=50_000)], [SimulatedDomain(users=1_000)]) as simulators:
        os.environ |= simulators.environment()
        tenant = simulators.auth0["acme"]
        tenant.domain, tenant.allowed_hosts, tenant.credentials(), tenant.switches.location_ttl = 1, …

The simulators follow the recordings and the documentation of the two providers, and reject the same requests. Switches
control undocumented behavior. The package that runs in AWS does not import this package.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from meibo_simulators.auth0.api import tenant_application
from meibo_simulators.auth0.directory import Connection
from meibo_simulators.auth0.file_host import file_host_application
from meibo_simulators.auth0.tenant import FIRST_CONNECTION, SECOND_CONNECTION, SimulatedTenant
from meibo_simulators.cybozu.api import domain_application
from meibo_simulators.cybozu.domain import SimulatedDomain
from meibo_simulators.server import HttpsServer, InstrumentedApplication, server_context, write_authority
from meibo_simulators.site import Clock, Site

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = [
    "FIRST_CONNECTION",
    "SECOND_CONNECTION",
    "Connection",
    "SimulatedDomain",
    "SimulatedTenant",
    "Simulators",
    "tenant_api",
]


def tenant_api(tenant: SimulatedTenant) -> WSGIApplication:
    """Return the WSGI application of a tenant's Management API, for tests that call it without a server."""
    return InstrumentedApplication(tenant_application(tenant), tenant)


class Simulators:
    """A context manager that serves tenants and domains from threads of this process."""

    def __init__(
        self,
        auth0: Iterable[SimulatedTenant] = (),
        cybozu: Iterable[SimulatedDomain] = (),
        *,
        clock: Clock = time.time,
    ) -> None:
        self.auth0 = {tenant.name: tenant for tenant in auth0}
        self.cybozu = {domain.name: domain for domain in cybozu}
        self._clock = clock
        self._folder: Path | None = None
        self._servers: list[HttpsServer] = []
        self.ca_file = Path()

    def start(self) -> Simulators:
        """Create the certificates and open the ports."""
        self._folder = folder = Path(tempfile.mkdtemp(prefix="simulators-"))
        self.ca_file = write_authority(folder)

        def serve(application: WSGIApplication, site: Site) -> str:
            context = server_context()
            site.configure_tls(context)
            server = HttpsServer(InstrumentedApplication(application, site), context)
            self._servers.append(server)
            server.start()
            return f"localhost:{server.port}"

        for tenant in self.auth0.values():
            tenant.files.folder = folder
            tenant.files.host = serve(file_host_application(tenant), tenant)
            tenant.start(serve(tenant_application(tenant), tenant), self._clock)
        for domain in self.cybozu.values():
            domain.start(serve(domain_application(domain), domain), self._clock)
        return self

    def stop(self) -> None:
        """Close the ports and delete the files."""
        sites: list[Site] = [*self.auth0.values(), *self.cybozu.values()]
        for site in sites:
            site.stopping.set()
        while self._servers:
            self._servers.pop().stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Simulators:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """Return the environment variables that make Python's ssl and requests trust the simulators."""
        return {"SSL_CERT_FILE": str(self.ca_file), "REQUESTS_CA_BUNDLE": str(self.ca_file)}
