"""Serve a small tenant and a small domain, and call them with the requests library."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from meibo_simulators import SimulatedDomain, SimulatedTenant, Simulators
from tests.support.clock import FakeClock

TIMEOUT = 10


class Api:
    """An HTTP client of a tenant, with a token of the default client or of the given credentials."""

    def __init__(self, tenant: SimulatedTenant, ca_file: Path, credentials: dict[str, str] | None = None) -> None:
        self.tenant = tenant
        self.base = f"https://{tenant.domain}"
        self.session = trusting(ca_file)
        answer = self.token(credentials or tenant.credentials())
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def token(self, credentials: dict[str, str], **form: str) -> requests.Response:
        body = {"grant_type": "client_credentials", "audience": f"{self.base}/api/v2/", **credentials, **form}
        return self.session.post(f"{self.base}/oauth/token", data=body, timeout=TIMEOUT)

    def call(self, method: str, path: str, **arguments: Any) -> requests.Response:
        return self.session.request(method, f"{self.base}/api/v2{path}", timeout=TIMEOUT, **arguments)

    def get(self, path: str, **parameters: Any) -> requests.Response:
        return self.call("GET", path, params=parameters)

    def post(self, path: str, body: Any) -> requests.Response:
        return self.call("POST", path, json=body)

    def delete(self, path: str, body: Any = None) -> requests.Response:
        return self.call("DELETE", path, json=body)

    def completed(self, **body: Any) -> dict[str, Any]:
        """Create an export job and poll until it is completed."""
        job = self.post("/jobs/users-exports", body).json()
        while job["status"] != "completed":
            job = self.get(f"/jobs/{job['id']}").json()
        return dict(job)

    def download(self, location: str, **headers: str) -> requests.Response:
        session = trusting(Path(str(self.session.verify)))
        return session.get(location, headers=headers, timeout=TIMEOUT, allow_redirects=False)


class Domain:
    """An HTTP client of a domain."""

    def __init__(self, domain: SimulatedDomain, ca_file: Path) -> None:
        self.domain = domain
        self.session = trusting(ca_file)

    def get(self, path: str, headers: dict[str, str] | None = None, **arguments: Any) -> requests.Response:
        given = password(self.domain.credentials()) if headers is None else headers
        url = f"{self.domain.base_url}{path}"
        return self.session.get(url, headers=given, timeout=TIMEOUT, allow_redirects=False, **arguments)


def trusting(ca_file: Path) -> requests.Session:
    session = requests.Session()
    # Otherwise REQUESTS_CA_BUNDLE of the environment would override the session's CA file.
    session.trust_env = False
    session.verify = str(ca_file)
    return session


def password(credentials: dict[str, str]) -> dict[str, str]:
    pair = f"{credentials['login']}:{credentials['password']}"
    return {"X-Cybozu-Authorization": base64.b64encode(pair.encode()).decode()}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_795_300_000.25)


@pytest.fixture
def simulators(clock: FakeClock) -> Iterator[Simulators]:
    tenant = SimulatedTenant("acme", users=200)
    domain = SimulatedDomain("example", users=250)
    with Simulators([tenant], [domain], clock=clock) as started:
        yield started


@pytest.fixture
def tenant(simulators: Simulators) -> SimulatedTenant:
    return simulators.auth0["acme"]


@pytest.fixture
def api(simulators: Simulators, tenant: SimulatedTenant) -> Api:
    return Api(tenant, simulators.ca_file)


@pytest.fixture
def domain(simulators: Simulators) -> Domain:
    return Domain(simulators.cybozu["example"], simulators.ca_file)
