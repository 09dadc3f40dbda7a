"""Organizations, their connections and members, read from a simulated tenant over real HTTPS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meibo.errors import CredentialsRefusedError, MeiboError, RequestRefusedError, ScopeMissingError, WrongFormatError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.organizations import (
    MemberReader,
    enabled_connections,
    organization_connections,
    organizations,
)
from meibo_simulators import FIRST_CONNECTION, SECOND_CONNECTION, SimulatedTenant, faults
from tests.support.clock import FakeClock

Reading = Callable[[Auth0Client, str], Any]

READINGS: dict[str, tuple[Reading, str]] = {
    "organizations": (lambda client, _: list(organizations(client)), "read:organizations"),
    "enabled_connections": (enabled_connections, "read:organization_connections"),
    "members": (lambda client, one: list(MemberReader(client).pages(one)), "read:organization_members"),
}


def client_of(tenant: SimulatedTenant, clock: FakeClock, secret: dict[str, str] | None = None) -> Auth0Client:
    credentials = Auth0Credentials.from_secret(secret or tenant.credentials())
    return Auth0Client(tenant.domain, credentials, clock=clock)


@pytest.fixture
def client(tenant: SimulatedTenant, clock: FakeClock) -> Auth0Client:
    return client_of(tenant, clock)


@pytest.fixture
def organization(tenant: SimulatedTenant) -> str:
    return tenant.organizations.ids()[0]


def member_ids(reader: MemberReader, organization_id: str) -> list[str]:
    return [row["user_id"] for page in reader.pages(organization_id) for row in page.rows]


def test_every_organization_is_listed_once(tenant: SimulatedTenant, client: Auth0Client) -> None:
    found = [row["id"] for page in organizations(client) for row in page.rows]

    assert found == tenant.organizations.ids()
    assert len([one for one in tenant.requests if one.path == "/api/v2/organizations"]) == 3


def test_a_list_goes_on_where_it_was_left_although_organizations_come_and_go(
    tenant: SimulatedTenant, client: Auth0Client, clock: FakeClock
) -> None:
    expected = tenant.organizations.ids()
    first = next(iter(organizations(client)))
    tenant.organizations.remove(first.rows[-1]["id"])

    rest = [row["id"] for page in organizations(client_of(tenant, clock), first.next) for row in page.rows]

    assert [row["id"] for row in first.rows] + rest == expected


@pytest.mark.parametrize("limit_is_length", [True, False])
@pytest.mark.parametrize("paged", [True, False])
def test_enabled_connections_take_one_request(
    tenant: SimulatedTenant, client: Auth0Client, organization: str, limit_is_length: bool, paged: bool
) -> None:
    tenant.switches.enabled_connections_limit_is_length = limit_is_length
    tenant.switches.enabled_connections_paged = paged
    tenant.organizations.enable(organization, [SECOND_CONNECTION, FIRST_CONNECTION])

    assert organization_connections(client, organization) == [SECOND_CONNECTION, FIRST_CONNECTION]
    assert len([one for one in tenant.requests if one.path.endswith("/enabled_connections")]) == 1


@pytest.mark.parametrize("always_next", [True, False])
@pytest.mark.parametrize("with_roles", [True, False])
def test_every_member_is_read_whichever_way_the_list_ends(
    tenant: SimulatedTenant, client: Auth0Client, organization: str, always_next: bool, with_roles: bool
) -> None:
    tenant.switches.members_always_next = always_next
    everyone = [user["user_id"] for user in tenant.expected_users()]
    tenant.organizations.add_members(organization, everyone[:345])

    found = member_ids(MemberReader(client, with_roles=with_roles), organization)

    assert sorted(found) == sorted(tenant.memberships[organization])
    assert len(found) >= 345


def test_members_have_their_roles(tenant: SimulatedTenant, client: Auth0Client, organization: str) -> None:
    rows = [row for page in MemberReader(client).pages(organization) for row in page.rows]

    for row in rows:
        expected = tenant.organizations.member_roles(organization, row["user_id"])
        assert [role["id"] for role in row["roles"]] == expected


@pytest.mark.parametrize("text", ["both", "missing"])
def test_without_the_scope_for_roles_members_are_read_all_the_same(
    tenant: SimulatedTenant, clock: FakeClock, organization: str, text: Any
) -> None:
    tenant.switches.members_refusal = text
    reader = MemberReader(client_of(tenant, clock, tenant.limited_client("read:organization_members")))

    assert sorted(member_ids(reader, organization)) == sorted(tenant.memberships[organization])
    assert not reader.with_roles


def test_an_organization_that_was_deleted_meanwhile_has_status_404(
    tenant: SimulatedTenant, client: Auth0Client, organization: str
) -> None:
    tenant.organizations.vanished.add(organization)

    for read in (
        lambda: enabled_connections(client, organization),
        lambda: member_ids(MemberReader(client), organization),
    ):
        with pytest.raises(RequestRefusedError, match=organization) as caught:
            read()
        assert caught.value.status == 404


@pytest.mark.parametrize("what", READINGS)
def test_a_missing_scope_is_named(tenant: SimulatedTenant, clock: FakeClock, organization: str, what: str) -> None:
    read, scope = READINGS[what]
    client = client_of(tenant, clock, tenant.limited_client("read:roles"))

    with pytest.raises(ScopeMissingError, match=scope):
        read(client, organization)


@pytest.mark.parametrize("what", READINGS)
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
def test_a_refusal_is_told_at_every_call(
    tenant: SimulatedTenant,
    client: Auth0Client,
    organization: str,
    what: str,
    fault: faults.Action,
    error: type[MeiboError],
) -> None:
    tenant.faults.add("GET *", fault, times=None)

    with pytest.raises(error):
        READINGS[what][0](client, organization)


@pytest.mark.parametrize("what", READINGS)
@pytest.mark.parametrize(
    "fault",
    [faults.html(503), faults.too_many_requests(retry_after=2), faults.reset(), faults.break_body(10)],
)
def test_a_busy_tenant_is_waited_out_at_every_call(
    tenant: SimulatedTenant, client: Auth0Client, clock: FakeClock, organization: str, what: str, fault: faults.Action
) -> None:
    tenant.faults.add("GET *", fault, times=2)

    READINGS[what][0](client, organization)

    assert len(clock.slept) == 2


@pytest.mark.parametrize("refill", ["second", "window"])
def test_many_small_calls_keep_within_the_essentials_limits(
    tenant: SimulatedTenant, client: Auth0Client, clock: FakeClock, refill: Any
) -> None:
    tenant.switches.rate_tier, tenant.switches.rate_refill = "essentials", refill
    start = clock.now()

    ids = [row["id"] for page in organizations(client) for row in page.rows]
    for organization_id in ids:
        enabled_connections(client, organization_id)

    assert tenant.limits.refused == 0
    if refill == "second":
        # 50 a minute is all there is; the pace wastes next to nothing of it.
        assert len(ids) / ((clock.now() - start) / 60) >= 0.95 * 50
