"""Enabled connections and members of an organization, read from a simulated tenant over real HTTPS.

The tests of the pipeline read all other lists of a tenant over HTTPS.
"""

from __future__ import annotations

import pytest

from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.organizations import OrganizationApi
from meibo_simulators import FIRST_CONNECTION, SECOND_CONNECTION, SimulatedTenant
from tests.support.clock import FakeClock


@pytest.fixture
def api(tenant: SimulatedTenant, clock: FakeClock) -> OrganizationApi:
    credentials = Auth0Credentials.from_secret(tenant.credentials())
    return OrganizationApi(Auth0Client(tenant.domain, lambda: credentials, clock=clock))


@pytest.fixture
def organization(tenant: SimulatedTenant) -> str:
    return tenant.organizations.ids()[0]


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
    ids: list[str] = []
    cursor: str | None = None

    while not ids or cursor is not None:
        page, _ = api.members(organization, cursor, with_roles=with_roles)
        ids += [row.value["user_id"] for row in page.rows]
        cursor = page.next

    assert sorted(ids) == sorted(tenant.memberships[organization])
    assert len(ids) >= 345
