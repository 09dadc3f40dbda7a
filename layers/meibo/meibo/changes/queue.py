"""The queue of changes and its DLQ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from meibo.archive.outcomes import Outcome
from meibo.changes.messages import Change, QueueMessage, RemoveChange
from meibo.observability import logger

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

# MaximumMessageSize of the DLQ in the template. The size includes the body and the name, type and value of each
# attribute: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_MessageAttributeValue.html
MAX_MESSAGE_BYTES: Final = 262_144
MAX_REASON_BYTES: Final = 2000
REASON_ATTRIBUTE: Final = "MeiboReason"
_ATTRIBUTE_BYTES: Final = len(REASON_ATTRIBUTE) + len("String")
# Maximum number of reasons per code if a message with the members of each reason would be too large.
_MAX_REASONS: Final = 10
# SQS accepts only the characters that XML 1.0 allows:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_NOT_ACCEPTED: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class DeadLetter:
    """A message for the DLQ. SQS ignores a message with the same deduplication id for five minutes.

    ``reason`` is the value of a message attribute. If it is empty, the message has no attribute.
    """

    body: str = field(repr=False)
    group_id: str
    deduplication_id: str
    reason: str


class ChangeQueue(Protocol):
    """The queue of changes and its DLQ."""

    def set_visibility_timeout(self, unprocessed: Sequence[QueueMessage], seconds: int) -> None:
        """Set the visibility timeout of messages that are returned to the queue."""

    def send_dead_letter(self, dead_letter: DeadLetter) -> None:
        """Send a message to the DLQ."""


class SqsChangeQueue:
    """The queue of changes and its DLQ in SQS."""

    def __init__(self, client: SQSClient, queue_url: str, dead_letters_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self._dead_letters_url = dead_letters_url

    def set_visibility_timeout(self, unprocessed: Sequence[QueueMessage], seconds: int) -> None:
        """Set the visibility timeout of messages that are returned to the queue.

        If SQS rejects the timeout of a message, the message remains hidden for the default visibility timeout of the
        queue. The rejection only delays the message, so it is logged and not raised.
        """
        response = self._client.change_message_visibility_batch(
            QueueUrl=self._queue_url,
            Entries=[
                {"Id": str(number), "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
                for number, message in enumerate(unprocessed)
            ],
        )
        if failed := response.get("Failed", []):
            codes = sorted({entry["Code"] for entry in failed})
            logger.warning(
                "messages remain hidden for the default visibility timeout",
                extra={"messages": len(failed), "codes": codes},
            )

    def send_dead_letter(self, dead_letter: DeadLetter) -> None:
        reason = dead_letter.reason
        self._client.send_message(
            QueueUrl=self._dead_letters_url,
            MessageBody=dead_letter.body,
            MessageGroupId=dead_letter.group_id,
            MessageDeduplicationId=dead_letter.deduplication_id,
            MessageAttributes={REASON_ATTRIBUTE: {"DataType": "String", "StringValue": reason}} if reason else {},
        )


def dead_letter_of_message(message: QueueMessage, reason: str) -> DeadLetter:
    """Return the DLQ message for a message that is not a valid change, with the body of this message."""
    return _dead_letter(message, message.body, reason)


def dead_letter_of_members(message: QueueMessage, change: Change, rejected: Sequence[Outcome]) -> DeadLetter:
    """Return the DLQ message for rejected members: a change that contains only these members, and the reasons.

    The message is a valid change that can be redriven. It does not exceed ``MAX_MESSAGE_BYTES``: if there are too many
    reasons, they are shortened or omitted. The outcome records below ``changes/`` contain all reasons.
    """
    update: dict[str, Any] = {"members": tuple(outcome.member for outcome in rejected)}
    if isinstance(change, RemoveChange) and change.confirm_removals is not None:
        update["confirm_removals"] = len(rejected)
    part = change.model_copy(update=update)
    reason = "; ".join(dict.fromkeys(outcome.reason for outcome in rejected if outcome.reason)) or "rejected"
    body = encode_message(part)
    for rejections in _rejections(rejected):
        detailed = encode_message(part, rejections)
        if _size(detailed) + _ATTRIBUTE_BYTES + min(_size(reason), MAX_REASON_BYTES) <= MAX_MESSAGE_BYTES:
            body = detailed
            break
    return _dead_letter(message, body, reason)


def encode_message(change: Change, rejections: Sequence[Mapping[str, Any]] | None = None) -> str:
    """Return a change as the body of a message, with ``rejections`` instead of the rejections of the change."""
    change = change.model_copy(update={"rejections": rejections})
    return _accepted(change.model_dump_json(exclude_unset=True, exclude=None if rejections else {"rejections"}))


def _rejections(rejected: Sequence[Outcome]) -> Iterator[list[dict[str, Any]]]:
    """Yield alternatives for ``rejections``, the most detailed first."""
    by_reason: dict[tuple[str, str | None], list[str]] = {}
    for outcome in rejected:
        by_reason.setdefault((outcome.code or "rejected", outcome.reason), []).append(outcome.member)
    yield [{"code": code, "reason": reason, "members": members} for (code, reason), members in by_reason.items()]
    counts: dict[str, int] = {}
    reasons: dict[str, list[str]] = {}
    for (code, reason), members in by_reason.items():
        counts[code] = counts.get(code, 0) + len(members)
        reasons.setdefault(code, []).extend([reason] if reason else [])
    yield [{"code": code, "reasons": reasons[code][:_MAX_REASONS], "count": number} for code, number in counts.items()]
    yield [{"code": code, "count": number} for code, number in counts.items()]


def _dead_letter(message: QueueMessage, body: str, reason: str) -> DeadLetter:
    room = MAX_MESSAGE_BYTES - _size(body) - _ATTRIBUTE_BYTES
    shortened = _accepted(reason).encode()[: max(0, min(room, MAX_REASON_BYTES))].decode(errors="ignore")
    return DeadLetter(body, message.group_id, message.message_id, shortened)


def _accepted(text: str) -> str:
    """Return the text with JSON escapes instead of the characters that SQS does not accept."""
    return _NOT_ACCEPTED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _size(text: str) -> int:
    return len(_accepted(text).encode())
