"""Organizations, their connections and members, read from a simulated tenant over real HTTPS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meibo.errors import CredentialsRefusedError, MeiboError, RequestRefusedError, ScopeMissingError, WrongFormatError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.organizations import OrganizationApi
from meibo.providers.auth0.pagination import Page
from meibo_simulators import FIRST_CONNECTION, SECOND_CONNECTION, SimulatedTenant, faults
from tests.support.clock import FakeClock

Reading = Callable[[OrganizationApi, str], Any]

READINGS: dict[str, tuple[Reading, str]] = {
    "organizations": (lambda api, _: api.organizations(None), "read:organizations"),
    "enabled_connections": (OrganizationApi.enabled_connections, "read:organization_connections"),
    "members": (lambda api, organization_id: api.members(organization_id, None), "read:organization_members"),
}


def api_of(tenant: SimulatedTenant, clock: FakeClock, secret: dict[str, str] | None = None) -> OrganizationApi:
    credentials = Auth0Credentials.from_secret(secret or tenant.credentials())
    return OrganizationApi(Auth0Client(tenant.domain, lambda: credentials, clock=clock))


@pytest.fixture
def api(tenant: SimulatedTenant, clock: FakeClock) -> OrganizationApi:
    return api_of(tenant, clock)


@pytest.fixture
def organization(tenant: SimulatedTenant) -> str:
    return tenant.organizations.ids()[0]


def list_rows(read_page: Callable[[str | None], Page], page: Page | None = None) -> list[dict[str, Any]]:
    """Return the rows of the pages that follow a page, or of all pages."""
    rows: list[dict[str, Any]] = []
    while page is None or page.next is not None:
        page = read_page(None if page is None else page.next)
        rows += [row.value for row in page.rows]
    return rows


def members(api: OrganizationApi, organization_id: str, *, with_roles: bool = True) -> list[dict[str, Any]]:
    return list_rows(lambda cursor: api.members(organization_id, cursor, with_roles=with_roles)[0])


def test_every_organization_is_listed_once(tenant: SimulatedTenant, api: OrganizationApi) -> None:
    assert [row["id"] for row in list_rows(api.organizations)] == tenant.organizations.ids()
    assert len([request for request in tenant.requests if request.path == "/api/v2/organizations"]) == 3


def test_list_resumes_from_a_cursor_after_an_organization_was_deleted(
    tenant: SimulatedTenant, api: OrganizationApi, clock: FakeClock
) -> None:
    expected = tenant.organizations.ids()
    first = api.organizations(None)
    tenant.organizations.remove(first.rows[-1].value["id"])

    rest = list_rows(api_of(tenant, clock).organizations, first)

    assert [row["id"] for row in [*(row.value for row in first.rows), *rest]] == expected


@pytest.mark.parametrize("limit_is_length", [True, False])
@pytest.mark.parametrize("paged", [True, False])
def test_enabled_connections_take_one_request(
    tenant: SimulatedTenant, api: OrganizationApi, organization: str, limit_is_length: bool, paged: bool
) -> None:
    tenant.switches.enabled_connections_limit_is_length = limit_is_length
    tenant.switches.enabled_connections_paged = paged
    tenant.organizations.enable(organization, [SECOND_CONNECTION, FIRST_CONNECTION])

    assert api.connection_ids(organization) == [SECOND_CONNECTION, FIRST_CONNECTION]
    assert len([request for request in tenant.requests if request.path.endswith("/enabled_connections")]) == 1


@pytest.mark.parametrize("always_next", [True, False])
@pytest.mark.parametrize("with_roles", [True, False])
def test_every_member_is_read_with_and_without_a_last_cursor(
    tenant: SimulatedTenant, api: OrganizationApi, organization: str, always_next: bool, with_roles: bool
) -> None:
    tenant.switches.members_always_next = always_next
    users = [user["user_id"] for user in tenant.expected_users()]
    tenant.organizations.add_members(organization, users[:345])

    ids = [row["user_id"] for row in members(api, organization, with_roles=with_roles)]

    assert sorted(ids) == sorted(tenant.memberships[organization])
    assert len(ids) >= 345


def test_members_have_their_roles(tenant: SimulatedTenant, api: OrganizationApi, organization: str) -> None:
    for row in members(api, organization):
        expected = tenant.organizations.member_roles(organization, row["user_id"])
        assert [role["id"] for role in row["roles"]] == expected


@pytest.mark.parametrize("text", ["both", "missing"])
def test_members_are_read_without_the_scope_for_roles(
    tenant: SimulatedTenant, clock: FakeClock, organization: str, text: Any
) -> None:
    tenant.switches.members_refusal = text
    api = api_of(tenant, clock, tenant.limited_client("read:organization_members"))

    ids = [row["user_id"] for row in members(api, organization)]

    assert sorted(ids) == sorted(tenant.memberships[organization])
    assert not api.members(organization, None)[1]


def test_organization_that_was_deleted_meanwhile_has_status_404(
    tenant: SimulatedTenant, api: OrganizationApi, organization: str
) -> None:
    tenant.organizations.vanished.add(organization)

    for read in (
        lambda: api.enabled_connections(organization),
        lambda: api.members(organization, None),
    ):
        with pytest.raises(RequestRefusedError, match=organization) as caught:
            read()
        assert caught.value.status == 404


@pytest.mark.parametrize("dataset", READINGS)
def test_missing_scope_is_named(tenant: SimulatedTenant, clock: FakeClock, organization: str, dataset: str) -> None:
    read, scope = READINGS[dataset]
    api = api_of(tenant, clock, tenant.limited_client("read:roles"))

    with pytest.raises(ScopeMissingError, match=scope):
        read(api, organization)


@pytest.mark.parametrize("dataset", READINGS)
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.respond(401, "{}"), CredentialsRefusedError),
        (faults.html(403), ScopeMissingError),
        (faults.html(404), RequestRefusedError),
        (faults.html(200), WrongFormatError),
        (faults.respond(200, "{}", {"Content-Type": "application/json"}), WrongFormatError),
    ],
)
def test_error_response_to_any_request_is_raised(
    tenant: SimulatedTenant,
    api: OrganizationApi,
    organization: str,
    dataset: str,
    fault: faults.Action,
    error: type[MeiboError],
) -> None:
    tenant.faults.add("GET *", fault, times=None)

    with pytest.raises(error):
        READINGS[dataset][0](api, organization)


@pytest.mark.parametrize("dataset", READINGS)
@pytest.mark.parametrize(
    "fault",
    [faults.html(503), faults.too_many_requests(retry_after=2), faults.reset(), faults.break_body(10)],
)
def test_any_request_to_a_busy_tenant_is_retried(
    tenant: SimulatedTenant,
    api: OrganizationApi,
    clock: FakeClock,
    organization: str,
    dataset: str,
    fault: faults.Action,
) -> None:
    tenant.faults.add("GET *", fault, times=2)

    READINGS[dataset][0](api, organization)

    assert len(clock.slept) == 2


@pytest.mark.parametrize("refill", ["second", "window"])
def test_many_requests_stay_within_the_limits_of_essentials(
    tenant: SimulatedTenant, api: OrganizationApi, clock: FakeClock, refill: Any
) -> None:
    tenant.switches.rate_tier, tenant.switches.rate_refill = "essentials", refill
    start = clock.now()

    ids = [row["id"] for row in list_rows(api.organizations)]
    for organization_id in ids:
        api.enabled_connections(organization_id)

    assert tenant.limits.refused == 0
    if refill == "second":
        # The limit is 50 requests per minute.
        assert len(ids) / ((clock.now() - start) / 60) >= 0.95 * 50
