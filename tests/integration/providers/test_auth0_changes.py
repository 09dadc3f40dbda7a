"""Memberships, roles and invitations, changed in a simulated tenant over real HTTPS."""

from __future__ import annotations

from typing import Any

import pytest

from meibo.errors import ProviderBusyError, RequestRefusedError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.membership import (
    InvitationTerms,
    add_members,
    add_roles,
    create_invitation,
    list_invitations,
    remove_members,
    user_exists,
    users_by_email,
)
from meibo_simulators import SimulatedTenant, faults
from tests.support.clock import FakeClock


@pytest.fixture
def client(tenant: SimulatedTenant, clock: FakeClock) -> Auth0Client:
    return Auth0Client(tenant.domain, lambda: Auth0Credentials.from_secret(tenant.credentials()), clock=clock)


@pytest.fixture
def organization(tenant: SimulatedTenant) -> str:
    """An organization without members."""
    organization_id = tenant.organizations.ids()[0]
    tenant.organizations.remove_members(organization_id, tenant.organizations.members(organization_id))
    return organization_id


@pytest.fixture
def user_ids(tenant: SimulatedTenant) -> list[str]:
    return [tenant.directory.user_id(index) for index in range(20)]


def test_members_are_added_and_removed(
    tenant: SimulatedTenant, client: Auth0Client, organization: str, user_ids: list[str]
) -> None:
    add_members(client, organization, user_ids[:10])
    add_members(client, organization, user_ids[5:12])
    remove_members(client, organization, [*user_ids[:2], user_ids[19]])

    assert tenant.memberships[organization] == set(user_ids[2:12])


@pytest.mark.parametrize(
    "fault",
    [
        faults.html(500),
        faults.too_many_requests(retry_after=1),
        faults.reset(),
        faults.reset(after_processing=True),
    ],
)
def test_change_is_retried_while_the_tenant_is_busy(
    tenant: SimulatedTenant, client: Auth0Client, organization: str, user_ids: list[str], fault: faults.Action
) -> None:
    tenant.faults.add("* /api/v2/organizations/*/members*", fault, times=2)
    tenant.faults.add("* /api/v2/organizations/*/members*", fault, times=1, after=1)
    role = next(iter(tenant.organizations.roles))

    add_members(client, organization, user_ids[:3])
    add_roles(client, organization, user_ids[0], [role])
    remove_members(client, organization, user_ids[1:2])

    assert tenant.memberships[organization] == {user_ids[0], user_ids[2]}
    assert tenant.organizations.member_roles(organization, user_ids[0]) == [role]


def test_unknown_user_rejects_the_request(
    tenant: SimulatedTenant, client: Auth0Client, organization: str, user_ids: list[str]
) -> None:
    with pytest.raises(RequestRefusedError, match=organization) as caught:
        add_members(client, organization, [user_ids[0], "auth0|000000000000000000000000"])

    assert caught.value.status == 400
    assert tenant.memberships[organization] == frozenset()


def test_unknown_organization_has_status_404(client: Auth0Client, user_ids: list[str]) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        add_members(client, "org_9999999999999999", user_ids[:1])

    assert caught.value.status == 404


def test_roles_are_added_to_those_of_the_member(
    tenant: SimulatedTenant, client: Auth0Client, organization: str, user_ids: list[str]
) -> None:
    roles = list(tenant.organizations.roles)
    add_members(client, organization, user_ids[:1])

    add_roles(client, organization, user_ids[0], roles[:3])
    add_roles(client, organization, user_ids[0], roles[:1])

    assert tenant.organizations.member_roles(organization, user_ids[0]) == roles[:3]


def test_unknown_role_that_the_tenant_ignores_is_not_an_error(
    tenant: SimulatedTenant, client: Auth0Client, organization: str, user_ids: list[str]
) -> None:
    tenant.switches.unknown_role = "ignore"
    role = next(iter(tenant.organizations.roles))
    add_members(client, organization, user_ids[:1])

    add_roles(client, organization, user_ids[0], [role, "rol_9999999999999999"])

    assert tenant.organizations.member_roles(organization, user_ids[0]) == [role]


def test_roles_of_a_user_who_is_not_a_member_are_rejected(
    client: Auth0Client, organization: str, user_ids: list[str], tenant: SimulatedTenant
) -> None:
    role = next(iter(tenant.organizations.roles))

    with pytest.raises(RequestRefusedError) as caught:
        add_roles(client, organization, user_ids[0], [role])

    assert caught.value.status == 404


def test_roles_that_the_tenant_accepts_before_the_membership_remain(
    tenant: SimulatedTenant, client: Auth0Client, organization: str, user_ids: list[str]
) -> None:
    tenant.switches.roles_of_non_member = "accept"
    role = next(iter(tenant.organizations.roles))

    add_roles(client, organization, user_ids[0], [role])
    add_members(client, organization, user_ids[:1])

    assert tenant.memberships[organization] == {user_ids[0]}
    assert tenant.organizations.member_roles(organization, user_ids[0]) == [role]


def test_unknown_role_is_named_in_the_error(client: Auth0Client, organization: str, user_ids: list[str]) -> None:
    add_members(client, organization, user_ids[:1])

    with pytest.raises(RequestRefusedError, match="rol_9999999999999999"):
        add_roles(client, organization, user_ids[0], ["rol_9999999999999999"])


@pytest.mark.parametrize("status", [200, 201])
def test_invitation_is_created_without_an_e_mail_and_listed(
    tenant: SimulatedTenant, client: Auth0Client, organization: str, status: Any
) -> None:
    tenant.switches.invitation_status = status
    role = next(iter(tenant.organizations.roles))
    terms = InvitationTerms(client_id="portal", inviter="Human Resources", ttl_sec=3600)
    invitation = create_invitation(client, organization, "New@example.com", terms, [role])

    assert list_invitations(client, organization) == {("new@example.com", "portal"): [invitation]}
    assert (tenant.invitations.created, tenant.invitations.emails) == (1, 0)


def test_invitation_with_an_unknown_outcome_is_not_created_again(
    tenant: SimulatedTenant, client: Auth0Client, organization: str
) -> None:
    tenant.faults.add("POST */invitations", faults.reset(after_processing=True))

    with pytest.raises(ProviderBusyError) as caught:
        create_invitation(client, organization, "new@example.com", InvitationTerms(client_id="portal", inviter="HR"))

    assert caught.value.uncertain
    assert tenant.invitations.created == 1
    assert list(list_invitations(client, organization)) == [("new@example.com", "portal")]


def test_users_are_looked_up(tenant: SimulatedTenant, client: Auth0Client, user_ids: list[str]) -> None:
    profile = tenant.directory.get(user_ids[0])
    assert profile is not None

    assert users_by_email(client, profile["email"]) == [user_ids[0]]
    assert users_by_email(client, profile["email"].upper()) == [user_ids[0]]
    assert users_by_email(client, "missing@example.com") == []
    assert user_exists(client, user_ids[0])
    assert not user_exists(client, "auth0|000000000000000000000000")


@pytest.mark.parametrize("retry_after", [False, True])
def test_429_is_retried_with_and_without_retry_after(
    tenant: SimulatedTenant,
    client: Auth0Client,
    clock: FakeClock,
    organization: str,
    user_ids: list[str],
    retry_after: bool,
) -> None:
    tenant.switches.rate_tier, tenant.switches.retry_after = "essentials", retry_after
    for _ in range(20):
        tenant.limits.take("write_members")

    add_members(client, organization, user_ids[:1])

    assert tenant.limits.refused == 1
    assert 0 < sum(clock.slept) < 5
    assert tenant.memberships[organization] == {user_ids[0]}


@pytest.mark.parametrize("tier", ["free", "essentials"])
def test_writes_use_the_limit_without_429(
    tenant: SimulatedTenant, client: Auth0Client, clock: FakeClock, organization: str, user_ids: list[str], tier: str
) -> None:
    tenant.switches.rate_tier = tier  # type: ignore[assignment] # mypy widens the parameter
    start = clock.now()

    for number in range(300):
        (add_members if number % 2 else remove_members)(client, organization, user_ids[:1])

    a_minute = {"free": 120, "essentials": 200}[tier]
    assert tenant.limits.refused == 0
    assert 300 / ((clock.now() - start) / 60) >= 0.95 * a_minute
