"""Changes are applied at the documented rate limits of the provider, without 429 responses."""

from __future__ import annotations

from collections import Counter

import pytest

from meibo_simulators import SimulatedTenant
from tests.support.changes import ChangeQueueHarness

# https://auth0.com/docs/troubleshoot/customer-support/operational-policies/rate-limit-policy
BURST, A_MINUTE = 20, 200
ORGANIZATIONS = 40
IDS = 20_000


@pytest.mark.parametrize("concurrency", [2, 5])
@pytest.mark.parametrize("ids_a_message", [100, 500])
def test_twenty_thousand_ids_are_applied_at_the_rate_limit(ids_a_message: int, concurrency: int) -> None:
    # given
    tenant = SimulatedTenant("acme", users=IDS, organizations=ORGANIZATIONS, members=0)
    tenant.switches.rate_tier = "essentials"
    world = ChangeQueueHarness(tenant, concurrency=concurrency, seconds=0.15)
    people = [user["user_id"] for user in tenant.expected_users()]
    each = IDS // ORGANIZATIONS
    expected = {}
    for number, organization in enumerate(world.organizations):
        expected[organization] = people[number * each : (number + 1) * each]
        for start in range(0, each, ids_a_message):
            members = expected[organization][start : start + ids_a_message]
            world.send(*members, organization=number, change_id=f"hr-{number}-{start}")
    began = world.clock.now()

    # when
    world.drain()

    # then: as fast as the limit allows, the burst being there at the beginning
    seconds = world.clock.now() - began
    at_best = (IDS / 10 - BURST) / A_MINUTE * 60
    assert at_best / seconds >= 0.95
    # nothing lost and nothing twice
    assert {organization: world.tenant.memberships[organization] for organization in expected} == {
        organization: frozenset(members) for organization, members in expected.items()
    }
    outcomes = Counter((line["organization_id"], line["member"]) for line in world.lines())
    assert len(outcomes) == IDS
    assert set(outcomes.values()) == {1}
    assert {line["outcome"] for line in world.lines()} == {"applied"}
    assert world.queue.letters == []
    assert world.queue.expired == []
    # refused at most once a minute
    posts = world.requests("POST")
    assert posts.count(204) == IDS // 10
    assert tenant.limits.refused <= seconds / 60
