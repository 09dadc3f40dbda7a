"""The Auth0 client against a simulated tenant, over real HTTPS."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meibo.errors import ConfigurationError, ProviderBusyError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.fields import DEFAULT_FIELDS
from meibo.providers.auth0.jobs import create_users_export, get_job
from meibo_simulators import FIRST_CONNECTION, SimulatedTenant, faults
from tests.support.clock import FakeClock


def client_of(tenant: SimulatedTenant, clock: FakeClock, secret: dict[str, Any] | None = None) -> Auth0Client:
    credentials = Auth0Credentials.from_secret(secret or tenant.credentials())
    return Auth0Client(tenant.domain, lambda: credentials, clock=clock)


@pytest.fixture
def client(tenant: SimulatedTenant, clock: FakeClock) -> Auth0Client:
    return client_of(tenant, clock)


def export(client: Auth0Client, **changes: Any) -> str:
    request: dict[str, Any] = {
        "connection_id": FIRST_CONNECTION,
        "format": "ndjson",
        "limit": None,
        "fields": DEFAULT_FIELDS["ndjson"],
        **changes,
    }
    return create_users_export(client, **request)


def wait(client: Auth0Client, job_id: str) -> str:
    for _ in range(20):
        status = get_job(client, job_id).status
        if status != "pending":
            return status
    return "pending"


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "PS256"])
def test_private_key_is_accepted(tenant: SimulatedTenant, clock: FakeClock, algorithm: str) -> None:
    client = client_of(tenant, clock, tenant.key_credentials(algorithm))

    assert wait(client, export(client)) == "completed"


@pytest.mark.parametrize("skew", [-300, 300])
def test_private_key_is_accepted_with_a_wrong_clock(tenant: SimulatedTenant, clock: FakeClock, skew: int) -> None:
    client = client_of(tenant, FakeClock(clock.now() + skew), tenant.key_credentials())

    assert wait(client, export(client)) == "completed"


def test_token_that_expires_early_is_replaced(tenant: SimulatedTenant, client: Auth0Client) -> None:
    job_id = export(client)
    tenant.tokens.revoke()

    assert wait(client, job_id) == "completed"
    assert tenant.tokens.issued == 2


@pytest.mark.parametrize("scope", [True, False])
def test_expired_token_is_replaced(tenant: SimulatedTenant, client: Auth0Client, clock: FakeClock, scope: bool) -> None:
    tenant.switches.token_lifetime, tenant.switches.token_scope = 600, scope
    job_id = export(client)
    clock.sleep(601)

    assert wait(client, job_id) == "completed"
    assert tenant.tokens.issued == 2


@pytest.mark.parametrize("progress", [True, False])
@pytest.mark.parametrize("summary", [True, False])
def test_optional_properties_of_a_job_are_ignored(
    tenant: SimulatedTenant, client: Auth0Client, progress: bool, summary: bool
) -> None:
    tenant.switches.progress, tenant.switches.summary = progress, summary

    assert wait(client, export(client)) == "completed"


@pytest.mark.parametrize("nested", [True, False])
def test_parts_of_a_field_are_flat_keys(tenant: SimulatedTenant, client: Auth0Client, nested: bool) -> None:
    tenant.switches.nested_subfields = nested
    job_id = export(client, limit=1, fields=["user_id", "user_metadata.country"])

    row = json.loads(tenant.expected_file(job_id).content())

    assert set(row) == {"user_id", "user_metadata.country"}


def test_job_is_gone_after_24_hours(tenant: SimulatedTenant, client: Auth0Client, clock: FakeClock) -> None:
    job_id = export(client)
    wait(client, job_id)
    clock.time += 86_500

    assert get_job(client, job_id).reason == "missing"


def test_untrusted_certificate_is_an_error_without_a_retry(
    tenant: SimulatedTenant, client: Auth0Client, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")

    with pytest.raises(ConfigurationError, match="has a certificate that is not trusted here"):
        export(client)
    assert clock.slept == []


def test_closed_port_is_retried_until_the_invocation_ends(clock: FakeClock, tenant: SimulatedTenant) -> None:
    client = Auth0Client(
        "localhost:1", lambda: Auth0Credentials("client", "s3cret"), clock=clock, time_left=clock.deadline(60)
    )

    with pytest.raises(ProviderBusyError):
        export(client)

    assert 0 < sum(clock.slept) < 60


@pytest.mark.parametrize(
    "fault",
    [
        faults.respond(500),
        faults.html(502),
        faults.html(503),
        faults.too_many_requests(),
        faults.too_many_requests(retry_after=3),
        faults.too_many_requests(reset=1.0),
        faults.too_many_requests(reset=9e9),
        faults.reset(),
        faults.reset(after_processing=True),
        faults.break_body(20),
        faults.break_body(20, reset=False),
    ],
)
@pytest.mark.parametrize("path", ["POST /oauth/token", "POST /api/v2/jobs/users-exports", "GET /api/v2/jobs/*"])
def test_fault_of_any_request_is_retried(
    tenant: SimulatedTenant, client: Auth0Client, clock: FakeClock, path: str, fault: faults.Action
) -> None:
    met = tenant.faults.add(path, fault, times=2)

    assert wait(client, export(client)) == "completed"

    assert met.hits == 2
    assert len(clock.slept) >= 2


@pytest.mark.parametrize("tier", ["free", "essentials", "enterprise", "enterprise_nonproduction"])
@pytest.mark.parametrize("refill", ["second", "window"])
def test_single_client_is_never_throttled(tenant: SimulatedTenant, client: Auth0Client, tier: Any, refill: Any) -> None:
    tenant.switches.rate_tier, tenant.switches.rate_refill = tier, refill
    job_id = export(client)

    for _ in range(60):
        get_job(client, job_id)

    assert tenant.limits.refused == 0


def test_custom_domain_is_called_with_the_audience_of_the_tenant(tenant: SimulatedTenant, clock: FakeClock) -> None:
    tenant.tokens.api_host = "acme.jp.auth0.com"
    credentials = Auth0Credentials.from_secret(tenant.credentials())
    client = Auth0Client(tenant.domain, lambda: credentials, clock=clock, audience="https://acme.jp.auth0.com/api/v2/")

    assert create_users_export(
        client, connection_id=None, format="ndjson", limit=None, fields=[{"name": "user_id"}]
    ).startswith("job_")


def test_audience_that_auth0_does_not_know_is_named(tenant: SimulatedTenant, client: Auth0Client) -> None:
    tenant.tokens.api_host = "acme.jp.auth0.com"

    with pytest.raises(ConfigurationError) as error:
        create_users_export(client, connection_id=None, format="ndjson", limit=None, fields=[{"name": "user_id"}])

    assert str(error.value) == (
        f"Auth0 ({tenant.domain}) has no API with the audience https://{tenant.domain}/api/v2/; if the domain is a"
        " custom domain, set the audience to the Management API of the tenant, such as"
        " https://acme.jp.auth0.com/api/v2/"
    )
