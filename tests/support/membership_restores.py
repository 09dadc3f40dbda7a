"""Restore the memberships of a plan to a simulated tenant, in virtual time and without sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo_cli.restore.directory_execution import PlanExecution
from meibo_cli.restore.directory_plan import DirectoryPlan, PlannedObject, open_progress, plan_writer
from meibo_cli.restore.memberships import DirectSender, MembershipSender, QueueSender
from meibo_cli.stack import Queues
from meibo_simulators import SimulatedTenant
from tests.support.changes import DOMAIN, ChangeQueueHarness
from tests.support.fifo_queue import FifoQueue

# The limits of an Essentials tenant for additions of members and of roles. A request adds up to ten members, or the
# roles of one member: https://auth0.com/docs/troubleshoot/customer-support/operational-policies/rate-limit-policy
BURST, PER_MINUTE, USERS_PER_REQUEST = 20, 200, 10
REQUEST_SECONDS = 0.15


@dataclass(frozen=True)
class Pace:
    """The result of a restore: its duration, the minimum duration within the limit, and the number of 429 responses."""

    memberships: int
    roles: int
    min_seconds: float
    seconds: float
    refused: int

    @property
    def share(self) -> float:
        """The share of the rate limit that was used."""
        return self.min_seconds / self.seconds


class SqsClient:
    """A client of SQS for an in-memory queue."""

    def __init__(self, queue: FifoQueue) -> None:
        self._queue = queue

    def send_message(self, **message: str) -> dict[str, str]:
        unique = message["MessageDeduplicationId"]
        return {"MessageId": self._queue.send(message["MessageBody"], message["MessageGroupId"], unique=unique)}


class MembershipRestore:
    """A restore of memberships in several organizations. Every ``role_interval``-th membership has a role."""

    def __init__(self, folder: Path, *, memberships: int, organizations: int = 120, role_interval: int = 0) -> None:
        self.tenant = SimulatedTenant("acme", users=memberships, organizations=organizations, members=0)
        self.tenant.switches.rate_tier = "essentials"
        self.harness = ChangeQueueHarness(self.tenant, seconds=REQUEST_SECONDS)
        self._folder = folder
        self._role = next(iter(self.tenant.roles.by_id))
        share = -(-memberships // organizations)
        #: The roles of each member by organization and user.
        self.expected = {
            (self.harness.organizations[number // share], user["user_id"]): (
                [self._role] if role_interval and number % role_interval == 0 else []
            )
            for number, user in enumerate(self.tenant.expected_users())
        }
        sizes = Counter(organization for organization, _ in self.expected)
        self._requests = sum(-(-size // USERS_PER_REQUEST) for size in sizes.values())
        self._roles = sum(map(len, self.expected.values()))
        with plan_writer(folder) as writer:
            for planned in self._objects():
                writer.add(planned)
        self._plan = DirectoryPlan(
            run_id="20261121T180000Z",
            source="acme",
            domain=DOMAIN,
            upsert=False,
            sha256=writer.sha256,
            counts={kind: dict(counts) for kind, counts in writer.counts.items()},
            skipped={},
            targets={id_: id_ for id_ in (self._role, *self.harness.organizations)},
        )

    def _objects(self) -> Iterator[PlannedObject]:
        for (organization, user), roles in self.expected.items():
            common: dict[str, Any] = {"state": "create", "organization": organization, "user": user, "target": user}
            yield PlannedObject(kind="membership", **common)
            for role in roles:
                yield PlannedObject(kind="member_role", role=role, **common)

    def through_queue(self) -> Pace:
        """Send the memberships to the queue, and process the queue with the function."""
        return self._measure(QueueSender(Queues(SqsClient(self.harness.queue), "", "")), self.harness.drain)  # type: ignore[arg-type]  # sends only

    def without_queue(self) -> Pace:
        """Send the memberships directly."""
        return self._measure(DirectSender(self._client()))

    def _client(self) -> Auth0Client:
        credentials = Auth0Credentials.from_secret(self.tenant.credentials())
        session, clock = self.harness.adapter.session(), self.harness.clock
        return Auth0Client(DOMAIN, lambda: credentials, session=session, clock=clock)

    def _measure(self, sender: MembershipSender, drain: Callable[[], None] = lambda: None) -> Pace:
        start = self.harness.clock.now()
        with open_progress(self._folder) as progress:
            PlanExecution(self._client(), self._folder, self._plan, progress, sender, source="acme").run()
        drain()
        # Members and roles have separate limits.
        return Pace(
            memberships=len(self.expected),
            roles=self._roles,
            min_seconds=(max(self._requests, self._roles) - BURST) / PER_MINUTE * 60,
            seconds=self.harness.clock.now() - start,
            refused=self.tenant.limits.refused,
        )

    def check(self) -> None:
        """Assert that the tenant has all memberships and roles, and that the outcomes are complete.

        A restore through the queue writes one outcome per membership. A restore without the queue writes no outcomes.
        An invocation may repeat the last requests of the previous invocation, so up to 1 % more requests are allowed.
        """
        tenant = self.tenant
        assert {
            (organization, user): tenant.organizations.member_roles(organization, user)
            for organization in self.harness.organizations
            for user in tenant.memberships[organization]
        } == self.expected
        statuses = Counter(request.status for request in tenant.requests if request.path.startswith("/api/v2/"))
        assert set(statuses) == {204}
        requests = self._requests + self._roles
        assert requests <= statuses[204] <= 1.01 * requests
        assert len(self.harness.lines()) in (0, len(self.expected))
