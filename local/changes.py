"""The queue of membership changes on this machine, from both of its ends."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local.queue import EventSource, SqsQueue

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef


@dataclass
class LocalChanges:
    """The stack's queue, its dead letters, and what takes messages from one to the function."""

    client: SQSClient
    queue_url: str
    dead_letters_url: str
    source: EventSource

    def send(self, change: Any, *, group: str | None = None) -> str:
        """Put a change on the queue, as a document or as text; return the message's id."""
        body = change if isinstance(change, str) else json.dumps(change)
        if group is None:
            group = change.get("organization_id", "none") if isinstance(change, dict) else "none"
        return self.client.send_message(QueueUrl=self.queue_url, MessageBody=body, MessageGroupId=group)["MessageId"]

    def dead_letter_count(self) -> int:
        """Return how many dead letters wait."""
        return SqsQueue(self.client, self.dead_letters_url).size()

    def take_dead_letters(self) -> list[MessageTypeDef]:
        """Take every dead letter off its queue.

        A FIFO queue cannot be looked through: while one letter of a group is out, the next stays in.
        """
        found: list[MessageTypeDef] = []
        while messages := self._receive():
            found += messages
            SqsQueue(self.client, self.dead_letters_url).delete([message["ReceiptHandle"] for message in messages])
        return found

    def _receive(self) -> list[MessageTypeDef]:
        return self.client.receive_message(
            QueueUrl=self.dead_letters_url,
            MaxNumberOfMessages=10,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])
