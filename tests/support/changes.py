"""Apply changes from an in-memory queue to a simulated tenant, in virtual time and without sockets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from meibo.archive.storage import ArchiveStorage
from meibo.changes.apply import MIN_FINISH_SECONDS, ChangeApplier
from meibo.changes.messages import parse_queue_event
from meibo.changes.queue import ChangeQueue
from meibo.providers.auth0.client import ClientPool
from meibo.providers.base import ProviderContext
from meibo_local.lambda_service import InvocationResult
from meibo_local.queue import EventSource
from meibo_simulators import SimulatedTenant, tenant_api
from tests.support.clock import VirtualTime
from tests.support.fifo_queue import FifoQueue
from tests.support.memory_archive import MemoryStorage
from tests.support.wsgi import WsgiAdapter

DOMAIN = "acme.jp.auth0.com"
TIMEOUT = 300.0
POLL_SECONDS = 0.5


class TerminatedError(BaseException):
    """Raised to simulate the termination of the function's process."""


def change_message(organization_id: str, *members: str, action: str = "add", **more: Any) -> dict[str, Any]:
    """Return a change of the source ``acme``."""
    return {
        "version": 1,
        "change_id": "hr-1",
        "source": "acme",
        "organization_id": organization_id,
        "action": action,
        "members": list(members),
        **more,
    }


@dataclass
class Invoker:
    """An execution environment of the function with its own pool of clients."""

    harness: ChangeQueueHarness
    pool: ClientPool = field(default_factory=ClientPool)

    def __call__(self, event: dict[str, Any]) -> InvocationResult:
        harness = self.harness
        deadline = harness.clock.now() + harness.timeout

        def time_left() -> float:
            return deadline - harness.clock.now()

        context = ProviderContext(
            lambda: time_left() - MIN_FINISH_SECONDS,
            read_secret=lambda _name: harness.tenant.credentials(),
            new_session=lambda _connections: harness.adapter.session(),
            clock=harness.clock,
            headroom=harness.concurrency,
        )
        applier = ChangeApplier(
            client=lambda source: self.pool.client(DOMAIN, "meibo/acme", context) if source == "acme" else None,
            storage=harness.storage,
            queue=harness.function_queue,
            max_removals=harness.max_removals,
            time_left=time_left,
            now=lambda: datetime.fromtimestamp(harness.clock.now(), UTC),
        )
        unprocessed = applier.apply(parse_queue_event(event))
        harness.counts.update(applier.counts)
        return InvocationResult(
            {"batchItemFailures": [{"itemIdentifier": message.message_id} for message in unprocessed]}, failed=False
        )


@dataclass
class ChangeQueueHarness:
    """A tenant, a queue and an archive for the function. ``seconds`` is the round-trip time of a request."""

    tenant: SimulatedTenant
    clock: VirtualTime = field(default_factory=VirtualTime)
    concurrency: int = 2
    max_removals: int = 50
    timeout: float = TIMEOUT
    seconds: float = 0.0
    storage: ArchiveStorage = field(default_factory=MemoryStorage)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.tenant.start(DOMAIN, self.clock)
        self.queue = FifoQueue(self.clock.now)
        self.function_queue: ChangeQueue = self.queue
        self.adapter = WsgiAdapter(tenant_api(self.tenant), self.clock.sleep, self.seconds)
        self.organizations = self.tenant.organizations.ids()

    def source(self) -> EventSource:
        """Return an event source with its own execution environment."""
        return EventSource(
            self.queue,
            "arn:aws:sqs:ap-northeast-1:123456789012:meibo-changes.fifo",
            Invoker(self),
            batch_size=10,
            concurrency=self.concurrency,
            reports_failures=True,
        )

    def change(self, *members: str, action: str = "add", organization: int = 0, **more: Any) -> dict[str, Any]:
        return change_message(self.organizations[organization], *members, action=action, **more)

    def send(self, *members: str, unique: str | None = None, **more: Any) -> str:
        return self.put(self.change(*members, **more), unique=unique)

    def put(self, change: dict[str, Any], *, group: str | None = None, unique: str | None = None) -> str:
        return self.queue.send(json.dumps(change), group or change["organization_id"], unique=unique)

    def drain(self, *, rounds: int = 10_000_000) -> None:
        """Run the pollers until the queue is empty."""

        def poller() -> None:
            source = self.source()
            for _ in range(rounds):
                if not self.queue.size():
                    return
                if not source.poll():
                    self.clock.sleep(POLL_SECONDS)

        self.clock.run([poller] * self.concurrency)
        assert not self.queue.size(), "the queue is not empty"

    def members(self, organization: int = 0) -> frozenset[str]:
        return self.tenant.memberships[self.organizations[organization]]

    def lines(self, message_id: str | None = None) -> list[dict[str, Any]]:
        keys = sorted(self.storage.keys("changes/"))
        lines = [json.loads(line) for key in keys for line in (self.storage.read(key) or b"").splitlines()]
        return [line for line in lines if message_id in (None, line["message_id"])]

    def outcomes(self, message_id: str) -> Mapping[str | None, str]:
        lines = self.lines(message_id)
        outcomes = {line["member"]: line["outcome"] for line in lines}
        assert len(outcomes) == len(lines), "a member has two outcomes"
        return outcomes

    def dead_letters(self) -> list[dict[str, Any]]:
        return [json.loads(dead_letter.body) for dead_letter in self.queue.dead_letters]

    def requests(self, method: str, tail: str = "members") -> list[int]:
        """Return the statuses of the requests with this method and this last part of the path."""
        return [
            request.status
            for request in self.tenant.requests
            if request.method == method and request.path.rpartition("/")[2] == tail
        ]
