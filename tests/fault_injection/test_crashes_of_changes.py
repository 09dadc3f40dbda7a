"""Every call that a batch of membership changes makes to the outside, and the function gone before or after it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fault_injection.kill_points import Counted, Killer, Point, summary, tried
from tests.fault_injection.system import WholeSystem, world

pytestmark = [
    pytest.mark.timeout(1200),
    # What vanishes closes nothing.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

NOBODY = "auth0|0000000000000000000000ff"
GUEST = "guest@example.net"
# More than a killed invocation and one that hands back need.
MAX_DELIVERIES = 8


class Changes:
    """One batch of changes of every kind, and what it has to come to."""

    def __init__(self, everything: WholeSystem) -> None:
        self.world = everything
        tenant = everything.tenant
        self.first, self.second = tenant.organizations.ids()[:2]
        self.people = [user["user_id"] for user in tenant.expected_users()]
        role = next(iter(tenant.organizations.roles))
        stays, leaves = self.people[20:33], self.people[:2]
        self.before = {self.first: set(leaves), self.second: set()}
        self.after = {self.first: set(stays) | {self.people[40]}, self.second: {self.people[3]}}
        self.messages = [
            # Two requests, in one of which somebody is unknown: it is split until the bad id stands alone.
            self._change(self.first, "add", [*stays, NOBODY]),
            self._change(self.first, "remove", leaves),
            self._change(self.first, "add", [self.people[40]], roles=[role]),
            self._change(self.second, "add", [self.people[3], self.people[4]]),
            self._change(self.second, "remove", [self.people[4]]),
            self._change(self.second, "invite", [GUEST], invitation={"client_id": "portal", "inviter": "Somebody"}),
            "{not json",
        ]
        self.outcomes = sorted(
            [*((one, "applied") for one in (*stays, *leaves, self.people[40], self.people[3]))]
            + [(self.people[4], "applied")] * 2
            + [(GUEST, "applied"), (NOBODY, "rejected"), ("", "rejected")]
        )

    def _change(self, organization: str, action: str, members: list[str], **more: Any) -> dict[str, Any]:
        return {
            "version": 1,
            "change_id": f"hr-{action}-{organization}",
            "source": "acme",
            "organization_id": organization,
            "action": action,
            "members": members,
            **more,
        }

    def begin(self) -> None:
        """Empty the world, give the organizations their first members and send the messages."""
        self.world.empty()
        organizations = self.world.tenant.organizations
        for organization, members in self.before.items():
            organizations.remove_members(organization, list(self.world.tenant.memberships[organization]))
            organizations.add_members(organization, sorted(members))
        self.world.tenant.invitations.all.clear()
        for message in self.messages:
            self.world.aws.changes.send(message)

    def deliver(self) -> int:
        """Let Lambda take the messages as often as they come back; return how often."""
        source = self.world.aws.changes.source
        for deliveries in range(1, MAX_DELIVERIES + 1):
            while source.poll():
                pass
            if source.queue.size() == 0:
                return deliveries
            self.world.let_time_pass()
        raise AssertionError(f"{source.queue.size()} messages still come back after {MAX_DELIVERIES} deliveries")

    def check(self) -> None:
        """Every member as asked, every outcome on record once, every bad id a dead letter, nobody invited twice."""
        for organization, members in self.after.items():
            assert set(self.world.tenant.memberships[organization]) == members
        lines = self.world.lines()
        assert sorted((line["member"] or "", line["outcome"]) for line in lines) == self.outcomes
        letters = Counter(letter["Body"] for letter in self.world.aws.changes.take_dead_letters())
        assert letters.pop("{not json") >= 1
        (left,) = {tuple(json.loads(body)["members"]) for body in letters}
        assert left == (NOBODY,)
        posts = [one for one in self.world.tenant.requests if one.path.endswith("/invitations")]
        assert sum(one.method == "POST" and one.status < 300 for one in posts) == 1, "invited twice"
        assert self.world.overwritten() == []


@pytest.fixture(scope="module")
def changes() -> Iterator[Changes]:
    with world(users=60, organizations=2, cybozu_users=1) as everything:
        everything.configure([{"dataset": "users"}], [])
        yield Changes(everything)


def test_no_change_is_lost_wherever_the_function_vanishes(changes: Changes, tell: Callable[[str], None]) -> None:
    # given: a batch that nothing disturbs, and every call that it makes
    changes.begin()
    changes.world.watch = counted = Counted()
    changes.deliver()
    changes.check()
    assert counted.services().keys() == {"HTTP", "s3", "secretsmanager", "sqs", "ssm"}

    def attempt(point: Point, killer: Killer) -> None:
        changes.begin()
        changes.world.watch = killer
        # when
        changes.deliver()
        # then
        changes.check()

    failures = tried(counted.points(), attempt)

    tell(summary("a batch of changes", counted, failures))
    assert not failures, "\n".join(failures)
