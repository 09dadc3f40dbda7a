"""The stack's two queues, by the names that the template gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import boto3
import typer

from meibo.changes.dead_letters import encode_message

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

StackOption = Annotated[str, typer.Option("--stack", envvar="MEIBO_STACK", help="Name of the CloudFormation stack.")]
DEFAULT_STACK = "meibo"


@dataclass(frozen=True)
class Queues:
    """Both queues of a stack."""

    client: SQSClient
    changes: str
    dead_letters: str

    def letters(self) -> int:
        """Return how many dead letters there are, about."""
        attributes = self.client.get_queue_attributes(QueueUrl=self.dead_letters, AttributeNames=["All"])["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"]) + int(attributes["ApproximateNumberOfMessagesNotVisible"])

    def send(self, change: Mapping[str, Any], *, unique: str) -> str:
        """Put a change on the queue and return the message's id; ``unique`` makes repetitions one message."""
        return self.client.send_message(
            QueueUrl=self.changes,
            MessageBody=encode_message(change),
            MessageGroupId=change["organization_id"],
            MessageDeduplicationId=unique,
        )["MessageId"]


def queues_of(stack: str) -> Queues:
    """Find the queues of a stack; raises ClientError where there are none."""
    client = boto3.client("sqs")
    return Queues(
        client,
        client.get_queue_url(QueueName=f"{stack}-changes.fifo")["QueueUrl"],
        client.get_queue_url(QueueName=f"{stack}-changes-dead-letters.fifo")["QueueUrl"],
    )
