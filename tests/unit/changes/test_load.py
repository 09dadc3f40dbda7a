"""Changes are applied at the documented rate limits of Auth0, without 429 responses."""

from __future__ import annotations

from collections import Counter

import pytest

from meibo_simulators import SimulatedTenant
from tests.support.changes import ChangeQueueHarness

# https://auth0.com/docs/troubleshoot/customer-support/operational-policies/rate-limit-policy
BURST, PER_MINUTE = 20, 200
ORGANIZATIONS = 40


@pytest.mark.parametrize(
    ("ids", "ids_per_message", "concurrency"),
    [(20_000, 500, 2), (20_000, 500, 5), (8_000, 100, 2), (8_000, 100, 5)],
)
def test_changes_are_applied_at_the_rate_limit(ids: int, ids_per_message: int, concurrency: int) -> None:
    tenant = SimulatedTenant("acme", users=ids, organizations=ORGANIZATIONS, members=0)
    tenant.switches.rate_tier = "essentials"
    harness = ChangeQueueHarness(tenant, concurrency=concurrency, seconds=0.15)
    user_ids = [user["user_id"] for user in tenant.expected_users()]
    ids_per_organization = ids // ORGANIZATIONS
    expected = {}
    for number, organization in enumerate(harness.organizations):
        expected[organization] = user_ids[number * ids_per_organization : (number + 1) * ids_per_organization]
        for start in range(0, ids_per_organization, ids_per_message):
            members = expected[organization][start : start + ids_per_message]
            harness.send(*members, organization=number, change_id=f"hr-{number}-{start}")
    start_time = harness.clock.now()

    harness.drain()

    # then: as fast as the limit and the initial burst allow
    seconds = harness.clock.now() - start_time
    min_seconds = (ids / 10 - BURST) / PER_MINUTE * 60
    assert min_seconds / seconds >= 0.95
    # and: each id has one outcome
    assert {organization: harness.tenant.memberships[organization] for organization in expected} == {
        organization: frozenset(members) for organization, members in expected.items()
    }
    outcomes = Counter((line["organization_id"], line["member"]) for line in harness.lines())
    assert len(outcomes) == ids
    assert set(outcomes.values()) == {1}
    assert {line["outcome"] for line in harness.lines()} == {"applied"}
    assert harness.queue.dead_letters == []
    assert harness.queue.expired == []
    # and: at most one 429 response per minute
    posts = harness.requests("POST")
    assert posts.count(204) == ids // 10
    assert tenant.limits.refused <= seconds / 60
