"""What the function asks of SQS itself: hiding what it hands back, and sending dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from meibo.changes.batch import QueueMessage
from meibo.changes.dead_letters import REASON_ATTRIBUTE, DeadLetter
from meibo.observability import logger

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class ChangeQueue(Protocol):
    """The queue and its dead-letter queue."""

    def set_visibility_timeout(self, unprocessed: Sequence[QueueMessage], seconds: int) -> None:
        """Let messages that are handed back be delivered again after so many seconds."""
        ...

    def send_dead_letter(self, letter: DeadLetter) -> None:
        """Send a dead letter."""
        ...


class SqsChangeQueue:
    """The real queues."""

    def __init__(self, client: SQSClient, queue_url: str, dead_letters_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self._dead_letters_url = dead_letters_url

    def set_visibility_timeout(self, unprocessed: Sequence[QueueMessage], seconds: int) -> None:
        """Let messages that are handed back be delivered again after so many seconds.

        Without it they would stay hidden for the queue's whole visibility time-out. What fails here costs that
        wait and nothing else, so it is told and passed over.
        """
        answer = self._client.change_message_visibility_batch(
            QueueUrl=self._queue_url,
            Entries=[
                {"Id": str(number), "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
                for number, message in enumerate(unprocessed)
            ],
        )
        failed = answer.get("Failed", [])
        if failed:
            logger.warning(
                "messages stay hidden longer",
                extra={"messages": len(failed), "codes": sorted({f["Code"] for f in failed})},
            )

    def send_dead_letter(self, letter: DeadLetter) -> None:
        """Send a dead letter."""
        self._client.send_message(
            QueueUrl=self._dead_letters_url,
            MessageBody=letter.body,
            MessageGroupId=letter.group_id,
            MessageDeduplicationId=letter.deduplication_id,
            MessageAttributes=(
                {REASON_ATTRIBUTE: {"DataType": "String", "StringValue": letter.reason}} if letter.reason else {}
            ),
        )
