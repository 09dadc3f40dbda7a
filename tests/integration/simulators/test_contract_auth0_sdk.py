"""Contract tests of Auth0's Python SDK with a simulated tenant: its models parse every response, its pagers end.

A simulator tested only with Meibo's own client might contain the same misunderstandings as that client.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from auth0.authentication import GetToken
from auth0.authentication.exceptions import Auth0Error
from auth0.management import ManagementClient
from auth0.management.errors import (
    BadRequestError,
    ForbiddenError,
    NotFoundError,
    TooManyRequestsError,
    UnauthorizedError,
)

from meibo_simulators import FIRST_CONNECTION, SimulatedTenant, Simulators, faults

ONCE: Any = {"max_retries": 0}


@pytest.fixture
def simulators(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulators]:
    # The SDK uses the system clock, and reads the trusted authorities from the environment.
    tenant = SimulatedTenant("acme", users=300, organizations=70, members=20)
    with Simulators([tenant]) as started:
        for name, value in started.environment().items():
            monkeypatch.setenv(name, value)
        yield started


@pytest.fixture
def http(simulators: Simulators) -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10) as opened:
        yield opened


@pytest.fixture
def sdk(tenant: SimulatedTenant, http: httpx.Client) -> ManagementClient:
    return client(tenant, tenant.credentials(), http)


def client(tenant: SimulatedTenant, credentials: dict[str, str], http: httpx.Client) -> ManagementClient:
    return ManagementClient(
        domain=tenant.domain,
        client_id=credentials["client_id"],
        client_secret=credentials["client_secret"],
        httpx_client=http,
    )


def audience(tenant: SimulatedTenant) -> str:
    return f"https://{tenant.domain}/api/v2/"


def test_token_by_secret(tenant: SimulatedTenant) -> None:
    credentials = tenant.credentials()
    token = GetToken(tenant.domain, credentials["client_id"], client_secret=credentials["client_secret"])
    assert token.client_credentials(audience(tenant))["token_type"] == "Bearer"


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "PS256"])
def test_token_by_private_key(tenant: SimulatedTenant, algorithm: str) -> None:
    credentials = tenant.key_credentials(algorithm)
    token = GetToken(
        tenant.domain,
        credentials["client_id"],
        client_assertion_signing_key=credentials["private_key"],
        client_assertion_signing_alg=algorithm,
    )
    assert token.client_credentials(audience(tenant))["expires_in"] == 86400


def test_wrong_secret_raises_the_sdk_error(tenant: SimulatedTenant) -> None:
    token = GetToken(tenant.domain, tenant.client.id, client_secret="wrong")
    with pytest.raises(Auth0Error) as refused:
        token.client_credentials(audience(tenant))
    assert (refused.value.status_code, refused.value.error_code) == (401, "access_denied")


def test_export_job_and_its_file(tenant: SimulatedTenant, sdk: ManagementClient) -> None:
    created = sdk.jobs.users_exports.create(
        connection_id=FIRST_CONNECTION,
        format="json",
        fields=[{"name": "user_id"}, {"name": "name"}],
    )
    assert (created.status, created.type, created.connection_id) == ("pending", "users_export", FIRST_CONNECTION)
    assert created.id is not None
    job = sdk.jobs.get(created.id)
    while job.status != "completed":
        job = sdk.jobs.get(created.id)
    assert job.location is not None
    data = httpx.get(job.location).content
    rows = [json.loads(line) for line in gzip.decompress(data).decode().split("\n")[:-1]]
    assert len(rows) == tenant.expected_rows(FIRST_CONNECTION) == 150


@pytest.mark.parametrize("size", [10, 35, 100])
def test_pager_returns_the_organizations(tenant: SimulatedTenant, sdk: ManagementClient, size: int) -> None:
    assert [item.id for item in sdk.organizations.list(take=size)] == tenant.organizations.ids()


@pytest.mark.parametrize("always_next", [True, False])
def test_pager_returns_the_members(tenant: SimulatedTenant, sdk: ManagementClient, always_next: bool) -> None:
    tenant.switches.members_always_next = always_next
    organization = tenant.organizations.ids()[1]
    rows = list(sdk.organizations.members.list(organization, take=4, fields="user_id,roles"))
    assert {item.user_id for item in rows} == tenant.memberships[organization]
    assert any(item.roles for item in rows)


def test_organization_and_its_connections(tenant: SimulatedTenant, sdk: ManagementClient) -> None:
    organization = tenant.organizations.ids()[0]
    assert sdk.organizations.get(organization).id == organization
    ids = tenant.organizations.connections(organization)
    for size in (1, 50):
        # The SDK requests pages until a page is empty.
        pager = sdk.organizations.enabled_connections.list(organization, per_page=size)
        assert [item.connection_id for item in pager] == ids
    connections = list(sdk.connections.list(take=1))
    assert [item.id for item in connections] == list(tenant.directory.connections)
    assert {(item.authentication.active, item.show_as_button) for item in connections if item.authentication} == {
        (True, True)
    }


def test_members_and_roles_change(tenant: SimulatedTenant, sdk: ManagementClient) -> None:
    organization = tenant.organizations.ids()[8]
    people = [tenant.directory.user_id(number) for number in range(3)]
    roles = list(tenant.roles.by_id)[:2]
    sdk.organizations.members.create(organization, members=people)
    sdk.organizations.members.roles.assign(organization, people[0], roles=roles)
    sdk.organizations.members.delete(organization, members=people[1:])
    assert tenant.memberships[organization] == {people[0]}
    assert [item.id for item in sdk.organizations.members.roles.list(organization, people[0])] == roles
    sdk.organizations.members.roles.delete(organization, people[0], roles=roles)
    assert tenant.organizations.member_roles(organization, people[0]) == []


def test_invitation(tenant: SimulatedTenant, sdk: ManagementClient) -> None:
    created = sdk.organizations.invitations.create(
        tenant.organizations.ids()[0],
        inviter={"name": "HR"},
        invitee={"email": "new@example.jp"},
        client_id="portal",
        send_invitation_email=False,
    )
    assert created.id is not None
    assert created.id.startswith("uinv_")
    assert [item.id for item in sdk.organizations.invitations.list(tenant.organizations.ids()[0])] == [created.id]


def test_users(tenant: SimulatedTenant, sdk: ManagementClient) -> None:
    for expected in list(tenant.expected_users())[:80]:
        assert sdk.users.get(expected["user_id"]).email == expected["email"]
    rows = sdk.users.list_users_by_email(email=expected["email"])
    assert [item.user_id for item in rows] == [expected["user_id"]]


def test_import(tenant: SimulatedTenant, sdk: ManagementClient) -> None:
    tenant.switches.import_seconds = 0
    data = json.dumps([{"email": "a@example.jp"}, {"name": "no address"}]).encode()
    created = sdk.jobs.users_imports.create(
        users=("users.json", data), connection_id=FIRST_CONNECTION, send_completion_email=False
    )
    job = sdk.jobs.get(created.id)
    assert job.summary is not None
    assert (job.summary.inserted, job.summary.failed) == (1, 1)
    assert sdk.jobs.errors.get(created.id)
    assert tenant.jobs.completion_emails == 0


def test_error_responses_raise_the_sdk_errors(
    tenant: SimulatedTenant, sdk: ManagementClient, http: httpx.Client
) -> None:
    organization = tenant.organizations.ids()[0]
    with pytest.raises(BadRequestError, match="Array is too long"):
        sdk.organizations.members.create(organization, members=[f"auth0|{n}" for n in range(11)])
    with pytest.raises(NotFoundError, match="No organization found by that id or name"):
        sdk.organizations.get("org_0000000000000000")
    with pytest.raises(ForbiddenError, match="read:organizations"):
        client(tenant, tenant.limited_client("read:users"), http).organizations.get(organization)
    tenant.tokens.revoke()
    with pytest.raises(UnauthorizedError, match="Expired token"):
        sdk.organizations.get(organization)


def test_rate_limit_is_retried_or_raised(tenant: SimulatedTenant, sdk: ManagementClient) -> None:
    organization = tenant.organizations.ids()[0]
    tenant.faults.add("GET *", faults.too_many_requests(retry_after=1))
    assert sdk.organizations.get(organization).id == organization
    tenant.faults.add("GET *", faults.too_many_requests(retry_after=1))
    with pytest.raises(TooManyRequestsError):
        sdk.organizations.get(organization, request_options=ONCE)
