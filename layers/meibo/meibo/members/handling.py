"""One invocation of ``change_members``: from the event to the partial batch response."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from meibo import aws
from meibo.archive.store import ObjectLock, S3ArchiveStore
from meibo.configuration import parse_documents
from meibo.members.delivery import Delivery, oldest_age_seconds
from meibo.members.engine import FINISH_SECONDS, ChangeEngine
from meibo.members.queue import SqsChangeQueue
from meibo.members.tenants import Tenants
from meibo.observability import MetricUnit, metrics
from meibo.pacing import Deadline
from meibo.secrets import read_configuration
from meibo.settings import ChangeMembersSettings

# Counts by the names that the alarms watch.
_METRICS = {"applied": "AppliedMembers", "rejected": "RejectedMembers", "failures": "FailedChangeGroups"}


def change_members(
    settings: ChangeMembersSettings, lock: ObjectLock | None, time_left: Deadline, found: list[Delivery]
) -> dict[str, Any]:
    """Carry out the messages' changes and return which messages stay on the queue."""
    tenants = Tenants(
        configuration=lambda: parse_documents(read_configuration(settings.configuration_parameter)),
        deadline=lambda: time_left() - FINISH_SECONDS,
        headroom=settings.concurrency,
    )
    engine = ChangeEngine(
        tenant=tenants,
        forget=tenants.forget,
        store=S3ArchiveStore(aws.s3(), settings.bucket, lock=lock),
        queue=SqsChangeQueue(aws.sqs(), settings.queue_url, settings.dead_letters_url),
        max_removals=settings.max_removals,
        time_left=time_left,
    )
    handed_back = engine.handle(found)
    for kind, name in _METRICS.items():
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=engine.counts[kind])
    # SQS leaves messages that were received three times out of ApproximateAgeOfOldestMessage, so the age of a change
    # that is stuck is a metric of its own. Zero if nothing is returned, so that the alarm on it can end.
    metrics.add_metric(
        name="OldestReturnedChangeAge",
        unit=MetricUnit.Seconds,
        value=oldest_age_seconds(handed_back, datetime.now(UTC)),
    )
    return {"batchItemFailures": [{"itemIdentifier": delivery.message_id} for delivery in handed_back]}
