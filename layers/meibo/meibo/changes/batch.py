"""The messages of one invocation, as Lambda hands them over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from meibo.errors import EventError


@dataclass(frozen=True)
class QueueMessage:
    """One message, perhaps not for the first time."""

    message_id: str
    receipt: str = field(repr=False)
    body: str = field(repr=False)
    group_id: str
    sent_at: datetime
    receive_count: int

    @property
    def dt(self) -> str:
        """The UTC day on which the message was sent, which no redelivery changes."""
        return self.sent_at.strftime("%Y-%m-%d")


def parse_queue_event(event: Any) -> list[QueueMessage]:
    """Read the event of an SQS FIFO queue; raises EventError for anything else."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list) or not records:
        raise EventError("change_members is invoked by its queue: the event must have Records of an SQS FIFO queue")
    return [_message(record) for record in records]


def _message(record: Any) -> QueueMessage:
    try:
        attributes = record["attributes"]
        return QueueMessage(
            message_id=str(record["messageId"]),
            receipt=str(record["receiptHandle"]),
            body=str(record["body"]),
            group_id=str(attributes["MessageGroupId"]),
            sent_at=datetime.fromtimestamp(int(attributes["SentTimestamp"]) / 1000, UTC),
            receive_count=int(attributes["ApproximateReceiveCount"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EventError(
            f"a record of the event lacks what an SQS FIFO queue gives it ({type(error).__name__} at {error})"
            if isinstance(error, KeyError)
            else "a record of the event is not one of an SQS FIFO queue"
        ) from None


def oldest_age_seconds(messages: Iterable[QueueMessage], now: datetime) -> float:
    """Return how long ago the oldest of the messages was sent, or 0 if there is none."""
    return max((max(0.0, (now - message.sent_at).total_seconds()) for message in messages), default=0.0)


def by_group(messages: list[QueueMessage]) -> list[list[QueueMessage]]:
    """Return the messages of each group in their order, the groups in an order that differs at each delivery.

    Whose turn did not come in one invocation is soon the first in another, also where one group takes all the time
    because its organization cannot be reached.
    """
    groups: dict[str, list[QueueMessage]] = {}
    for message in messages:
        groups.setdefault(message.group_id, []).append(message)
    return sorted(groups.values(), key=lambda group: crc32(group[0].receipt.encode()))
