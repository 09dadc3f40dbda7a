"""The queue of changes and its DLQ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from meibo.archive.outcome_record import Outcome
from meibo.changes.messages import QueueMessage
from meibo.observability import logger

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

# MaximumMessageSize of the DLQ in the template. SQS counts the body and each attribute's name, type and
# value: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_MessageAttributeValue.html
MAX_MESSAGE_BYTES: Final = 262_144
MAX_REASON_BYTES: Final = 2000
REASON_ATTRIBUTE: Final = "MeiboReason"
_ATTRIBUTE_BYTES: Final = len(REASON_ATTRIBUTE) + len("String")
# The reasons that are listed for each code, if there is no room for the members of each reason.
_MAX_REASONS: Final = 10
# SQS accepts the characters of XML 1.0 only:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_NOT_ACCEPTED: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class DeadLetter:
    """One message for the DLQ. SQS drops a repetition of its deduplication id within five minutes.

    ``reason`` is the value of the message attribute, which is omitted if it is empty.
    """

    body: str = field(repr=False)
    group_id: str
    deduplication_id: str
    reason: str


class ChangeQueue(Protocol):
    """The queue and its DLQ; tests implement it in memory."""

    def set_visibility_timeout(self, unprocessed: Sequence[QueueMessage], seconds: int) -> None:
        """Hide messages that are returned to the queue for this many seconds."""
        ...

    def send_dead_letter(self, dead_letter: DeadLetter) -> None:
        """Send a DLQ message."""
        ...


class SqsChangeQueue:
    """The queues in SQS."""

    def __init__(self, client: SQSClient, queue_url: str, dead_letters_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self._dead_letters_url = dead_letters_url

    def set_visibility_timeout(self, unprocessed: Sequence[QueueMessage], seconds: int) -> None:
        """Hide messages that are returned to the queue for this many seconds.

        A message for which SQS rejects the change stays hidden for the visibility timeout of the queue. That costs
        time only, so it is logged and not raised.
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
            logger.warning("messages stay hidden longer", extra={"messages": len(failed), "codes": codes})

    def send_dead_letter(self, dead_letter: DeadLetter) -> None:
        """Send a DLQ message."""
        reason = dead_letter.reason
        self._client.send_message(
            QueueUrl=self._dead_letters_url,
            MessageBody=dead_letter.body,
            MessageGroupId=dead_letter.group_id,
            MessageDeduplicationId=dead_letter.deduplication_id,
            MessageAttributes={REASON_ATTRIBUTE: {"DataType": "String", "StringValue": reason}} if reason else {},
        )


def dead_letter_of_message(message: QueueMessage, reason: str) -> DeadLetter:
    """Return the DLQ message of a message that is rejected as a whole: its body is the message as received."""
    return _dead_letter(message, message.body, reason)


def dead_letter_of_members(
    message: QueueMessage, document: Mapping[str, Any], rejected: Sequence[Outcome]
) -> DeadLetter:
    """Return the DLQ message of rejected members: a change that contains only them, with the reasons.

    It is a valid change. Sent again after the cause is fixed, it does exactly what is missing. It is never larger than
    ``MAX_MESSAGE_BYTES``, because the change alone is no larger than the message that it comes from. The outcomes under
    ``changes/`` contain the reason of each member.
    """
    members = [outcome.member for outcome in rejected]
    # The rejections of an earlier DLQ message are superseded.
    change = {name: value for name, value in document.items() if name != "rejections"} | {"members": members}
    if "confirm_removals" in change:
        change["confirm_removals"] = len(members)
    reason = "; ".join(dict.fromkeys(outcome.reason for outcome in rejected if outcome.reason)) or "rejected"
    body = encode_message(change)
    for rejections in _rejections(rejected):
        detailed = encode_message({**change, "rejections": rejections})
        if _size(detailed) + _ATTRIBUTE_BYTES + min(_size(reason), MAX_REASON_BYTES) <= MAX_MESSAGE_BYTES:
            body = detailed
            break
    return _dead_letter(message, body, reason)


def encode_message(document: Mapping[str, Any]) -> str:
    """Return a change as the body of a message that SQS accepts."""
    return _accepted(json.dumps(document, ensure_ascii=False, separators=(",", ":")))


def _rejections(rejected: Sequence[Outcome]) -> Iterator[list[dict[str, Any]]]:
    """Yield the value of ``rejections`` with less detail, and so fewer bytes, each time."""
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
    """Return the text with each character that SQS does not accept as a JSON escape."""
    return _NOT_ACCEPTED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _size(text: str) -> int:
    return len(_accepted(text).encode())
