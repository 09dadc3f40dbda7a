"""Apply the changes of one invocation of ``change_members``.

The steps for each organization are: merge the changes, send the requests, write the outcomes, send rejected members to
the DLQ, and acknowledge the messages. Unfinished messages are returned to the queue in order, after the outcomes of
their finished members have been written.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from meibo import aws
from meibo.archive.outcomes import Outcome, OutcomeCode
from meibo.archive.storage import ArchiveStorage, S3Storage
from meibo.aws import busy_error
from meibo.changes.executor import StepExecutor, merge
from meibo.changes.messages import (
    InvalidChange,
    QueueMessage,
    by_group,
    oldest_age_seconds,
    parse_change,
)
from meibo.changes.outcome_store import OutcomeStore
from meibo.changes.queue import ChangeQueue, SqsChangeQueue, dead_letter_of_members, dead_letter_of_message
from meibo.clock import TimeLeft
from meibo.configuration import Configuration, parse_documents
from meibo.errors import AwsBusyError, MeiboError, OutOfTimeError, ProviderBusyError
from meibo.observability import MetricUnit, logger, metrics, safe_description
from meibo.providers.auth0.client import Auth0Client, clients
from meibo.providers.auth0.configuration import Auth0Source
from meibo.providers.base import ProviderContext
from meibo.secrets import read_configuration
from meibo.settings import ChangeMembersSettings, ObjectLock

# MaximumConcurrency of the event source mapping in template.yaml. Lambda requires at least 2, and two invocations can
# use the complete rate limit of a tenant. Each invocation reserves this number of requests per rate limit for the
# other invocation. https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
MAX_INVOCATIONS: Final = 2
# Reserved for writing the outcomes of ten messages and their DLQ messages.
MIN_FINISH_SECONDS: Final = 15.0
# Minimum and maximum backoff of messages without progress. MAX_BACKOFF_SECONDS, maxReceiveCount and the retention
# period of the queue depend on each other; docs/changes.md contains the calculation.
MIN_BACKOFF_SECONDS: Final = 30
MAX_BACKOFF_SECONDS: Final = 900
# Minimum time for a group. With less time, earlier requests may have used up the rate limit, and the next window (a
# second or a minute) may start too late. Such a group is returned without backoff if AWS or Auth0 is busy or the
# invocation runs out of time.
MIN_TURN_SECONDS: Final = MIN_FINISH_SECONDS + 60.0
# Maximum number of receives without backoff for a group that starts late. With the remaining 900 receives of
# maxReceiveCount and a backoff of 900 s, a message is retried for more than nine days.
MAX_LATE_RECEIVES: Final = 100

# The metrics of the alarms and the dashboard, by their key in ``ChangeApplier.counts``.
_METRICS: Final = {"applied": "AppliedMembers", "rejected": "RejectedMembers", "failures": "FailedChangeGroups"}
# A retry resolves these errors, so they do not count as failures of a group.
_BUSY: Final = (AwsBusyError, ProviderBusyError, OutOfTimeError)


@dataclass
class ChangeApplier:
    """Applies the messages of one invocation.

    ``client`` returns the client of a source, or None if there is no Auth0 source with this name. ``counts`` contains
    the number of outcomes of each kind in finished messages, the number of finished messages (``messages``), and the
    number of failed groups (``failures``).
    """

    client: Callable[[str], Auth0Client | None]
    storage: ArchiveStorage
    queue: ChangeQueue
    max_removals: int
    time_left: TimeLeft
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    counts: Counter[str] = field(default_factory=Counter)
    # Groups for which this invocation wrote an outcome.
    _progressed: set[str] = field(default_factory=set)
    _failed: set[str] = field(default_factory=set)
    _executors: dict[str, StepExecutor | None] = field(default_factory=dict)
    # The errors of the sources to which this invocation sends no more requests.
    _stopped: dict[str, MeiboError] = field(default_factory=dict)

    def apply(self, messages: Sequence[QueueMessage]) -> list[QueueMessage]:
        """Apply the messages and return the unfinished messages, in order within each group."""
        unprocessed: list[QueueMessage] = []
        for group in by_group(messages):
            unprocessed += self._apply_group(group)
        self.counts["failures"] = len(self._failed)
        return unprocessed

    def _apply_group(self, group: list[QueueMessage]) -> list[QueueMessage]:
        stores: list[OutcomeStore] = []
        finished: list[OutcomeStore] = []
        is_late = self.time_left() < MIN_TURN_SECONDS
        group_id = group[0].group_id
        error = self._guarded(group_id, lambda: self._execute(group, stores))
        error = self._guarded(group_id, lambda: self._finish(stores, finished)) or error
        unprocessed = group[len(finished) :]
        if unprocessed:
            seconds = self._wait_seconds(unprocessed[0], error, is_late=is_late)
            logger.info(
                "messages returned to the queue",
                extra={"group": group_id, "messages": len(unprocessed), "seconds": seconds},
            )
            self._guarded(group_id, lambda: self.queue.set_visibility_timeout(unprocessed, seconds))
        return unprocessed

    def _guarded(self, group_id: str, work: Callable[[], None]) -> Exception | None:
        """Call ``work`` and return its error, if any, so that the invocation continues with the other groups."""
        try:
            work()
        except Exception as raised:  # noqa: BLE001  # an error of a group must not fail the invocation
            error = busy_error(raised) or raised
            if isinstance(error, _BUSY):
                logger.info("group deferred", extra={"reason": str(error)})
                return error
            self._failed.add(group_id)
            if isinstance(error, MeiboError):
                logger.error("group failed", extra={"error": type(error).__name__, "reason": str(error)})
            else:
                logger.error("group failed unexpectedly", extra={"error": safe_description(error)})
            return error
        return None

    def _wait_seconds(self, first: QueueMessage, error: Exception | None, *, is_late: bool) -> int:
        """Return the visibility timeout, in seconds, of a group's messages that are returned to the queue.

        The messages are returned without backoff, but with the wait that Auth0 requires, if two conditions are met:

        - AWS or Auth0 is busy, or the invocation runs out of time.
        - Outcomes of this group were written, or the group started late and was received at most ``MAX_LATE_RECEIVES``
          times.

        In all other cases, backoff is required: S3 may be busy for hours, and without backoff the messages would reach
        maxReceiveCount too early.
        """
        retry_after = min(math.ceil(getattr(error, "retry_after", None) or 0.0), MAX_BACKOFF_SECONDS)
        if isinstance(error, _BUSY) and (
            first.group_id in self._progressed or (is_late and first.receive_count <= MAX_LATE_RECEIVES)
        ):
            return retry_after
        doublings = max(0, min(first.receive_count - 1, 10))
        return max(retry_after, min(MAX_BACKOFF_SECONDS, MIN_BACKOFF_SECONDS << doublings))

    # -- execute

    def _execute(self, group: list[QueueMessage], stores: list[OutcomeStore]) -> None:
        """Append the outcome store of each message to ``stores``, and send the requests for the pending members."""
        if self.time_left() < MIN_FINISH_SECONDS:
            raise OutOfTimeError(
                f"less than {MIN_FINISH_SECONDS:.0f} s remain for this group; its messages are returned to the queue"
            )
        for message in group:
            stores.append(self._open(message))  # noqa: PERF401  # after an error, the caller needs the opened stores
        changes = {
            index: store.change for index, store in enumerate(stores) if not isinstance(store.change, InvalidChange)
        }
        for step in merge([(index, change, stores[index].pending) for index, change in changes.items()]):
            executor = self._executor(step.source)
            if executor is None:
                continue
            try:
                for index, outcome in executor.execute(group[0].group_id, step, changes):
                    stores[index].add(outcome)
            except MeiboError as error:
                self._stopped[step.source] = error
                raise
            for store in stores:
                if not store.pending:
                    self._write(store)

    def _open(self, message: QueueMessage) -> OutcomeStore:
        change = parse_change(message.body, max_removals=self.max_removals, group_id=message.group_id)
        store = OutcomeStore(self.storage, message, change)
        if isinstance(change, InvalidChange):
            self._reject(store, "invalid", change.reason)
        elif store.pending and self._executor(change.source) is None:
            self._reject(
                store,
                "unknown_source",
                "$.source: expected the name of an Auth0 source in the configuration, found"
                f" {change.source}; add the source, then redrive the DLQ",
            )
        return store

    def _reject(self, store: OutcomeStore, code: OutcomeCode, reason: str) -> None:
        for member in store.pending:
            store.add(Outcome(member, "rejected", self.now(), code, reason))

    def _executor(self, source: str) -> StepExecutor | None:
        if source in self._stopped:
            raise self._stopped[source]
        if source not in self._executors:
            try:
                client = self.client(source)
            except MeiboError as error:
                self._stopped[source] = error
                raise
            self._executors[source] = None if client is None else StepExecutor(client, self.now)
        return self._executors[source]

    # -- finish

    def _finish(self, stores: Sequence[OutcomeStore], finished: list[OutcomeStore]) -> None:
        """Write the outcomes. Append the finished messages to ``finished``, up to the first unfinished message."""
        for store in stores:
            self._write(store)
        for store in stores:
            if store.pending:
                return
            self._send_dead_letter(store)
            finished.append(store)

    def _write(self, store: OutcomeStore) -> None:
        if store.write():
            self._progressed.add(store.message.group_id)

    def _send_dead_letter(self, store: OutcomeStore) -> None:
        """Send the rejected members of a finished message to the DLQ, and count the outcomes.

        The rejected members of a valid dry run are not sent. A message that is not a valid change is sent unchanged.
        """
        change, by_member = store.change, store.by_member
        outcomes = [by_member[member] for member in change.members]
        rejected = [outcome for outcome in outcomes if outcome.kind == "rejected"]
        valid = change.change if isinstance(change, InvalidChange) else change
        if rejected and (valid is None or (valid is not change and len(rejected) == len(outcomes))):
            self.queue.send_dead_letter(dead_letter_of_message(store.message, rejected[0].reason or ""))
        elif rejected and valid and not valid.dry_run:
            self.queue.send_dead_letter(dead_letter_of_members(store.message, valid, rejected))
        kinds = Counter[str](outcome.kind for outcome in outcomes)
        self.counts.update(kinds)
        self.counts["messages"] += 1
        logger.info(
            "message finished",
            extra={
                "change_id": None if isinstance(change, InvalidChange) else change.change_id,
                "message_id": store.message.message_id,
                "organization_id": store.message.group_id,
                **kinds,
            },
        )


def auth0_client(configuration: Configuration, name: str, context: ProviderContext) -> Auth0Client | None:
    """Return the client of a source, or None if there is no Auth0 source with this name."""
    source = configuration.source(name)
    if not isinstance(source, Auth0Source):
        return None
    return clients.client(source.domain, source.secret, context, audience=source.audience)


def change_members(
    settings: ChangeMembersSettings, object_lock: ObjectLock, time_left: TimeLeft, messages: list[QueueMessage]
) -> dict[str, Any]:
    """Apply the messages, and return the partial batch response with the unfinished messages."""
    # The configuration is read on first use, so that a configuration error fails the groups and not the invocation.
    configuration = cache(lambda: parse_documents(read_configuration(settings.configuration_parameter)))
    context = ProviderContext(lambda: time_left() - MIN_FINISH_SECONDS, headroom=MAX_INVOCATIONS)
    applier = ChangeApplier(
        client=lambda name: auth0_client(configuration(), name, context),
        storage=S3Storage(aws.s3(), settings.bucket, object_lock=object_lock),
        queue=SqsChangeQueue(aws.sqs(), settings.queue_url, settings.dead_letters_url),
        max_removals=settings.max_removals,
        time_left=time_left,
    )
    unprocessed = applier.apply(messages)
    for kind, name in _METRICS.items():
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=applier.counts[kind])
    # The SQS metric ApproximateAgeOfOldestMessage does not include a message that is received repeatedly without being
    # deleted, so Meibo publishes the age of returned messages. The value is 0 if no message is returned.
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    metrics.add_metric(
        name="OldestReturnedChangeAge",
        unit=MetricUnit.Seconds,
        value=oldest_age_seconds(unprocessed, datetime.now(UTC)),
    )
    return {"batchItemFailures": [{"itemIdentifier": message.message_id} for message in unprocessed]}
