"""Requests to the providers through a proxy on loopback."""

from __future__ import annotations

import pytest

from meibo.errors import ConfigurationError, MeiboError, ProviderBusyError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.organizations import OrganizationApi
from meibo.providers.cybozu.client import CybozuClient, CybozuCredentials
from meibo_simulators import FIRST_CONNECTION, SimulatedDomain, SimulatedTenant, Simulators
from meibo_simulators.cybozu.secure_access import SecureAccess
from meibo_simulators.proxy import SimulatedProxy
from tests.support.clock import FakeClock

CREDENTIALS = ("meibo", "p@ss:word")


def client_of(tenant: SimulatedTenant, clock: FakeClock) -> Auth0Client:
    credentials = Auth0Credentials.from_secret(tenant.credentials())
    return Auth0Client(tenant.domain, lambda: credentials, clock=clock)


def request_through(
    proxy: str, tenant: SimulatedTenant, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> MeiboError:
    """Send a request through the proxy, and return its error."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(MeiboError) as error:
        client_of(tenant, clock).request("GET", "connections", subject="connections", scope="", bucket="other")
    assert "s3cr3t" not in str(error.value)
    assert not tenant.requests
    return error.value


def test_requests_are_sent_through_the_proxy(
    simulators: Simulators, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, domain = simulators.auth0["acme"], simulators.cybozu["example"]
    with SimulatedProxy(credentials=CREDENTIALS) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)

        document = client_of(tenant, clock).request("GET", "connections", subject="x", scope="", bucket="other")
        client = CybozuClient(domain.base_url, CybozuCredentials.from_secret(domain.credentials()), clock=clock)
        users = b"".join(client.stream_csv("users"))

    assert FIRST_CONNECTION in {connection["id"] for connection in document}
    assert users == domain.expected_csv()
    assert set(proxy.connections) == {tenant.domain, domain.host}


def test_client_certificate_passes_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = SimulatedDomain(users=30, secure_access=SecureAccess())
    with Simulators(cybozu=[domain]) as simulators, SimulatedProxy() as proxy:
        for name, value in simulators.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        client = CybozuClient(domain.base_url, CybozuCredentials.from_secret(domain.credentials()), clock=FakeClock())

        assert b"".join(client.stream_csv("users")) == domain.expected_csv()
    assert set(proxy.connections) == {domain.host}


def test_host_in_no_proxy_is_called_directly(
    tenant: SimulatedTenant, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "localhost")

    assert OrganizationApi(client_of(tenant, clock)) is not None
    assert client_of(tenant, clock).request("GET", "connections", subject="x", scope="", bucket="other")


def test_missing_credentials_of_the_proxy_are_named(
    tenant: SimulatedTenant, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SimulatedProxy(credentials=CREDENTIALS) as proxy:
        error = request_through(f"http://{proxy.address}", tenant, clock, monkeypatch)

    assert isinstance(error, ConfigurationError)
    assert str(error) == (
        f"Auth0 ({tenant.domain}) cannot be reached: the proxy rejected its credentials (407); set"
        " HTTPS_PROXY=http://user:password@host:port"
    )


def test_rejection_by_the_proxy_is_named(
    tenant: SimulatedTenant, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SimulatedProxy(denied_hosts=("localhost",)) as proxy:
        error = request_through(proxy.url, tenant, clock, monkeypatch)

    assert isinstance(error, ConfigurationError)
    assert str(error) == (
        f"Auth0 ({tenant.domain}) cannot be reached: the proxy rejected the connection (403); allow the host in the"
        " proxy"
    )


def test_unreachable_proxy_is_named_and_retried(
    tenant: SimulatedTenant, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = request_through("http://s3cr3t:s3cr3t@127.0.0.1:1", tenant, clock, monkeypatch)

    assert isinstance(error, ProviderBusyError)
    assert "cannot be reached: the proxy does not respond; check HTTPS_PROXY at each of" in str(error)


@pytest.mark.parametrize("value", ["http://", "socks5://s3cr3t@127.0.0.1:1", "http://127.0.0.1:s3cr3t"])
def test_invalid_proxy_is_named(
    value: str, tenant: SimulatedTenant, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = request_through(value, tenant, clock, monkeypatch)

    assert isinstance(error, ConfigurationError)
    assert "expected HTTPS_PROXY to be the URL of an HTTP proxy" in str(error)
