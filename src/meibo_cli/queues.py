"""The queue of changes and the DLQ of a stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import boto3
import typer

from meibo.changes.messages import Change
from meibo.changes.queue import encode_message

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

StackOption = Annotated[str, typer.Option("--stack", envvar="MEIBO_STACK", help="Name of the CloudFormation stack.")]
DEFAULT_STACK = "meibo"


@dataclass(frozen=True)
class Queues:
    """Both queues of a stack. ``changes`` and ``dead_letters`` are their URLs."""

    client: SQSClient
    changes: str
    dead_letters: str

    def count_dead_letters(self) -> int:
        """Return the approximate number of DLQ messages, including hidden messages."""
        attributes = self.client.get_queue_attributes(QueueUrl=self.dead_letters, AttributeNames=["All"])["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"]) + int(attributes["ApproximateNumberOfMessagesNotVisible"])

    def send(self, change: Change, *, deduplication_id: str) -> str:
        """Send a change and return the message id. SQS drops a message if its deduplication id was used before."""
        return self.client.send_message(
            QueueUrl=self.changes,
            MessageBody=encode_message(change),
            MessageGroupId=change.organization_id,
            MessageDeduplicationId=deduplication_id,
        )["MessageId"]


def queues_of(stack: str) -> Queues:
    """Return the queues of a stack. Raises ClientError if they do not exist."""
    client = boto3.client("sqs")
    return Queues(
        client,
        client.get_queue_url(QueueName=f"{stack}-changes.fifo")["QueueUrl"],
        client.get_queue_url(QueueName=f"{stack}-changes-dead-letters.fifo")["QueueUrl"],
    )
