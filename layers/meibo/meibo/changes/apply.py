"""Apply the changes of one invocation. The work of ``change_members``.

For each organization in turn: merge, send, write the outcomes, bury what was rejected, and only then let go of the
message. What cannot be finished is handed back in order, with what was done of it on record.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from meibo import aws
from meibo.archive.storage import ArchiveStore, S3ArchiveStore
from meibo.aws import busy_error
from meibo.changes.batch import QueueMessage, by_group, oldest_age_seconds
from meibo.changes.dead_letters import dead_letter_of_members, dead_letter_of_message
from meibo.changes.executor import StepExecutor
from meibo.changes.membership_api import MembershipApi, MembershipApis
from meibo.changes.merge import merge
from meibo.changes.messages import ParsedMessage, parse_change
from meibo.changes.outcomes import Outcome, OutcomeRecord
from meibo.changes.queue import ChangeQueue, SqsChangeQueue
from meibo.configuration import parse_documents
from meibo.errors import (
    AwsBusyError,
    MeiboError,
    OutOfTimeError,
    ProviderBusyError,
)
from meibo.http.ratelimit import Deadline
from meibo.observability import MetricUnit, logger, metrics, safe_description
from meibo.providers.base import ProviderContext
from meibo.secrets import read_configuration
from meibo.settings import ChangeMembersSettings, Retention

# How many invocations apply changes at a time: MaximumConcurrency of the event source mapping in template.yaml. Two use
# up the rate limit of a tenant, and Lambda accepts no smaller number. Each leaves as many requests of a limit unused.
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
MAX_INVOCATIONS: Final = 2
# Kept back for writing the records and dead letters of ten messages.
FINISH_SECONDS: Final = 15.0
# How long a message that nothing could be done for stays hidden, the first time and at most. The longest wait, the
# queue's maxReceiveCount and its retention belong together: docs/changes.md has the arithmetic.
FIRST_WAIT_SECONDS: Final = 30
MAX_WAIT_SECONDS: Final = 900
# A group whose turn begins so late may find no request left in the current window of a rate limit, which Auth0 refills
# every second or every minute.
LATE_SECONDS: Final = FINISH_SECONDS + 60.0
# How often a group may be received again at once because its turn came late. The other 900 receives of the queue's
# maxReceiveCount, with a back-off of 900 s each, still take more than nine days.
MAX_LATE_RECEIVES: Final = 100


@dataclass
class Entry:
    """One message while it is worked on."""

    message: QueueMessage
    reading: ParsedMessage
    record: OutcomeRecord

    @property
    def members(self) -> tuple[str, ...]:
        """Whose outcomes the message needs; where it names nobody, its own stands under no member."""
        if self.reading.change:
            return self.reading.change.members
        named = self.reading.document.get("members")
        usable = (one for one in named if isinstance(one, str) and one) if isinstance(named, list) else ()
        return tuple(dict.fromkeys(usable)) or ("",)

    @property
    def todo(self) -> list[str]:
        """The members without an outcome."""
        return [member for member in self.members if not self.record.settled(member)]


@dataclass
class ChangeApplier:
    """Carries out changes.

    ``api`` returns the membership API of a source, or None if no Auth0 source has that name. ``time_left`` returns the
    seconds of the invocation. ``counts`` holds the outcomes of the members whose messages are finished, and the number
    of groups that failed as ``failures``.
    """

    api: Callable[[str], MembershipApi | None]
    store: ArchiveStore
    queue: ChangeQueue
    max_removals: int
    time_left: Deadline
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    counts: Counter[str] = field(default_factory=Counter)
    # The groups in which this invocation settled a member.
    _progressed: set[str] = field(default_factory=set)
    _failed: set[str] = field(default_factory=set)
    _senders: dict[str, StepExecutor | None] = field(default_factory=dict)
    # The sources that are left alone for the rest of the invocation.
    _stopped: dict[str, MeiboError] = field(default_factory=dict)

    def handle(self, messages: list[QueueMessage]) -> list[QueueMessage]:
        """Work through the messages and return those that are handed back, in order within each group."""
        unprocessed: list[QueueMessage] = []
        for group in by_group(messages):
            unprocessed += self._group(group)
        self.counts["failures"] = len(self._failed)
        return unprocessed

    def _group(self, group: list[QueueMessage]) -> list[QueueMessage]:
        entries: list[Entry] = []
        done: list[Entry] = []
        late = self.time_left() < LATE_SECONDS
        group_id = group[0].group_id
        stop = self._guarded(group_id, lambda: self._work(group, entries))
        stop = self._guarded(group_id, lambda: self._finish(entries, done)) or stop
        left = group[len(done) :]
        if left:
            seconds = self._wait(left[0], stop, late=late)
            logger.info("handed back", extra={"group": group_id, "messages": len(left), "seconds": seconds})
            self._guarded(group_id, lambda: self.queue.set_visibility_timeout(left, seconds))
        return left

    def _guarded(self, group_id: str, work: Callable[[], None]) -> Exception | None:
        """Do what may fail for one group without failing the others; return why it stopped, if it did."""
        try:
            work()
        except (AwsBusyError, ProviderBusyError, OutOfTimeError) as error:
            logger.info("stopped for now", extra={"reason": str(error)})
            return error
        except MeiboError as error:
            logger.error("failed", extra={"error": type(error).__name__, "reason": str(error)})
            self._failed.add(group_id)
            return error
        except Exception as error:  # noqa: BLE001  # whatever it is, the other organizations' changes go on
            if busy := busy_error(error):
                logger.info("stopped for now", extra={"reason": str(busy)})
                return busy
            logger.error("failed unexpectedly", extra={"error": safe_description(error)})
            self._failed.add(group_id)
            return error
        return None

    def _wait(self, first: QueueMessage, stop: Exception | None, *, late: bool) -> int:
        """Return for how many seconds a group's messages are hidden when they are returned to the queue.

        Only a group that settled a member, or whose turn came when the time was nearly over, is received again as soon
        as the provider allows. The progress of other groups does not count: it would use up the receives of a group
        that is stuck.
        """
        retry_after = min(math.ceil(getattr(stop, "retry_after", None) or 0.0), MAX_WAIT_SECONDS)
        if isinstance(stop, (ProviderBusyError, OutOfTimeError)) and (
            first.group_id in self._progressed or (late and first.receive_count <= MAX_LATE_RECEIVES)
        ):
            return retry_after
        doublings = max(0, min(first.receive_count - 1, 10))
        return max(retry_after, min(MAX_WAIT_SECONDS, FIRST_WAIT_SECONDS << doublings))

    # -- working

    def _work(self, group: list[QueueMessage], entries: list[Entry]) -> None:
        if self.time_left() < FINISH_SECONDS:
            raise OutOfTimeError("the invocation's time is over before this group's turn")
        for message in group:
            entries.append(self._open(message))  # noqa: PERF401  # those before one that fails are needed too
        changes = {index: entry.reading.change for index, entry in enumerate(entries) if entry.reading.change}
        for step in merge([(index, change, entries[index].todo) for index, change in changes.items()]):
            sender = self._sender(step.source)
            if sender is None:
                continue
            try:
                for index, outcome in sender.take(group[0].group_id, step, changes):
                    entries[index].record.add(outcome)
                    self._progressed.add(group[0].group_id)
            except MeiboError as error:
                self._stopped[step.source] = error
                raise
            for entry in entries:
                if not entry.todo:
                    entry.record.write()

    def _open(self, message: QueueMessage) -> Entry:
        reading = parse_change(message.body, max_removals=self.max_removals, group_id=message.group_id)
        entry = Entry(message, reading, OutcomeRecord(self.store, message, reading.document))
        change = reading.change
        if change is None:
            self._reject(entry, "invalid", reading.reason)
        elif entry.todo and self._sender(change.source) is None:
            self._reject(entry, "unknown_source", f"$.source: the configuration has no Auth0 source {change.source}")
        return entry

    def _reject(self, entry: Entry, code: str, reason: str) -> None:
        for member in entry.todo:
            entry.record.add(Outcome(member, "rejected", self.now(), code, reason))

    def _sender(self, source: str) -> StepExecutor | None:
        if source in self._stopped:
            raise self._stopped[source]
        if source not in self._senders:
            try:
                api = self.api(source)
            except MeiboError as error:
                self._stopped[source] = error
                raise
            self._senders[source] = None if api is None else StepExecutor(api, self.now)
        return self._senders[source]

    # -- finishing

    def _finish(self, entries: Sequence[Entry], done: list[Entry]) -> None:
        # What was done goes on record first, also for messages that are handed back.
        for entry in entries:
            entry.record.write()
        for entry in entries:
            if entry.todo:
                return
            self._send_dead_letter(entry)
            done.append(entry)

    def _send_dead_letter(self, entry: Entry) -> None:
        """Send the rejected members of a finished message to the dead-letter queue, and count its outcomes."""
        recorded = entry.record.outcomes
        outcomes = [recorded[member] for member in entry.members]
        rejected = [outcome for outcome in outcomes if outcome.kind == "rejected"]
        change = entry.reading.change
        if change is None and len(rejected) == len(outcomes):
            self.queue.send_dead_letter(dead_letter_of_message(entry.message, rejected[0].reason or ""))
        elif rejected and not (change and change.dry_run):
            self.queue.send_dead_letter(dead_letter_of_members(entry.message, entry.reading.document, rejected))
        kinds = Counter[str](outcome.kind for outcome in outcomes)
        self.counts.update(kinds)
        self.counts["messages"] += 1
        logger.info(
            "done",
            extra={
                "change_id": change.change_id if change else None,
                "message_id": entry.message.message_id,
                "organization_id": entry.message.group_id,
                **kinds,
            },
        )


# Counts by the names that the alarms watch.
_METRICS = {"applied": "AppliedMembers", "rejected": "RejectedMembers", "failures": "FailedChangeGroups"}


def change_members(
    settings: ChangeMembersSettings, retention: Retention | None, time_left: Deadline, messages: list[QueueMessage]
) -> dict[str, Any]:
    """Carry out the messages' changes and return which messages stay on the queue."""
    applier = ChangeApplier(
        api=MembershipApis(
            lambda: parse_documents(read_configuration(settings.configuration_parameter)),
            ProviderContext(lambda: time_left() - FINISH_SECONDS, headroom=MAX_INVOCATIONS),
        ),
        store=S3ArchiveStore(aws.s3(), settings.bucket, retention=retention),
        queue=SqsChangeQueue(aws.sqs(), settings.queue_url, settings.dead_letters_url),
        max_removals=settings.max_removals,
        time_left=time_left,
    )
    unprocessed = applier.handle(messages)
    for kind, name in _METRICS.items():
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=applier.counts[kind])
    # SQS leaves messages that were received three times out of ApproximateAgeOfOldestMessage, so the age of a change
    # that is stuck is a metric of its own. Zero if nothing is returned, so that the alarm on it can end.
    metrics.add_metric(
        name="OldestReturnedChangeAge",
        unit=MetricUnit.Seconds,
        value=oldest_age_seconds(unprocessed, datetime.now(UTC)),
    )
    return {"batchItemFailures": [{"itemIdentifier": message.message_id} for message in unprocessed]}
