"""SQS on this machine: the queue of changes and its event source mapping.

The event source mapping uses the batch size, the concurrency and the partial batch responses of the template.
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from unittest.mock import patch

from moto.sqs import models

from meibo_local.lambda_service import InvocationResult

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef


Invoke = Callable[[dict[str, Any]], InvocationResult]

# The pause of a poller after an empty response. It is doubled each time, up to the maximum, because messages may be
# hidden for minutes.
_MIN_IDLE_SECONDS = 0.05
_MAX_IDLE_SECONDS = 0.4


class Queue(Protocol):
    """A queue that an event source mapping polls: SQS, or the in-memory queue of the tests.

    Messages are dicts as in the SQS API.
    """

    def receive(self, max_messages: int) -> Sequence[Mapping[str, Any]]:
        """Return up to ``max_messages`` messages and hide them."""
        ...

    def delete(self, receipts: Sequence[str]) -> None:
        """Delete messages by their receipt handles."""
        ...

    def size(self) -> int:
        """Return the number of messages in the queue, including hidden messages."""
        ...


@contextmanager
def concurrent_receives() -> Iterator[None]:
    """Allow several threads to receive from a FIFO queue: moto iterates over a set that other threads change."""

    def pending_message_groups(queue: models.Queue) -> set[str]:
        return {message.group_id for message in queue.pending_messages.copy() if message.group_id is not None}

    with patch.object(models.Queue, "pending_message_groups", property(pending_message_groups)):
        yield


@dataclass(frozen=True)
class SqsQueue:
    """A queue that is accessed through the SQS API."""

    client: SQSClient
    url: str

    def receive(self, max_messages: int) -> list[MessageTypeDef]:
        """Return up to ``max_messages`` messages and hide them."""
        return self.client.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=max_messages,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])

    def delete(self, receipts: Sequence[str]) -> None:
        """Delete messages by their receipt handles."""
        for receipt in receipts:
            self.client.delete_message(QueueUrl=self.url, ReceiptHandle=receipt)

    def size(self) -> int:
        """Return the number of messages in the queue, including hidden messages."""
        attributes = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"]) + int(attributes["ApproximateNumberOfMessagesNotVisible"])


@dataclass
class EventSource:
    """An event source mapping. ``batches`` counts the invocations by result: done, partial or failed."""

    queue: Queue
    arn: str
    invoke: Invoke
    batch_size: int
    concurrency: int
    reports_failures: bool
    batches: dict[str, int] = field(default_factory=dict)

    def poll(self) -> bool:
        """Invoke the function with a batch of messages. Return False if no message is visible."""
        messages = self.queue.receive(self.batch_size)
        if not messages:
            return False
        result = self.invoke({"Records": [self._record(message) for message in messages]})
        failed = self._failed(result, {message["MessageId"] for message in messages})
        self.queue.delete([message["ReceiptHandle"] for message in messages if message["MessageId"] not in failed])
        kind = "failed" if result.failed else "partial" if failed else "done"
        self.batches[kind] = self.batches.get(kind, 0) + 1
        return True

    def drain(self, seconds: float, *, until: Callable[[], bool] | None = None) -> bool:
        """Poll with the maximum concurrency, for at most ``seconds``. Return whether the queue is empty.

        If ``until`` is specified, stop as soon as it returns True. Use it if some messages are never processed.
        """
        end = time.monotonic() + seconds
        errors: list[BaseException] = []

        def ended() -> bool:
            return bool(errors) or time.monotonic() >= end or (until is not None and until())

        def poll_repeatedly() -> None:
            idle = _MIN_IDLE_SECONDS
            try:
                while not ended():
                    if self.poll():
                        idle = _MIN_IDLE_SECONDS
                    elif self.queue.size() == 0:
                        return
                    else:
                        time.sleep(idle)
                        idle = min(2 * idle, _MAX_IDLE_SECONDS)
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the caller
                errors.append(error)

        threads = [threading.Thread(target=poll_repeatedly, daemon=True) for _ in range(self.concurrency)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return self.queue.size() == 0

    def _failed(self, result: InvocationResult, message_ids: set[str]) -> set[str]:
        """Return the ids of the messages that remain in the queue."""
        if result.failed:
            return message_ids
        if not self.reports_failures or not result.payload:
            return set()
        failures = result.payload.get("batchItemFailures") or []
        failed = {failure.get("itemIdentifier") for failure in failures}
        # If an id is missing or not an id of this batch, the complete batch fails.
        return failed if failed <= message_ids else message_ids

    def _record(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": dict(message["Attributes"]),
            "messageAttributes": {
                name: {"stringValue": value.get("StringValue"), "dataType": value["DataType"]}
                for name, value in message.get("MessageAttributes", {}).items()
            },
            "md5OfBody": message.get("MD5OfBody", ""),
            "eventSource": "aws:sqs",
            "eventSourceARN": self.arn,
            "awsRegion": self.arn.split(":")[3] if self.arn.count(":") > 2 else "",
        }


@dataclass
class LocalChanges:
    """The queue of changes, its DLQ and its event source mapping."""

    client: SQSClient
    queue_url: str
    dead_letters_url: str
    source: EventSource

    def send(self, change: Any, *, group: str | None = None) -> str:
        """Send a change, which is a document or a string, and return the message id."""
        body = change if isinstance(change, str) else json.dumps(change)
        if group is None:
            group = change.get("organization_id", "none") if isinstance(change, dict) else "none"
        return self.client.send_message(QueueUrl=self.queue_url, MessageBody=body, MessageGroupId=group)["MessageId"]

    @property
    def _dead_letters(self) -> SqsQueue:
        return SqsQueue(self.client, self.dead_letters_url)

    def dead_letter_count(self) -> int:
        """Return the number of messages in the DLQ."""
        return self._dead_letters.size()

    def take_dead_letters(self) -> list[MessageTypeDef]:
        """Remove and return the messages of the DLQ.

        Each batch is deleted before the next call, because a FIFO queue returns no message of a group while an earlier
        message of the group is hidden.
        """
        dead_letters: list[MessageTypeDef] = []
        while messages := self._dead_letters.receive(10):
            dead_letters += messages
            self._dead_letters.delete([message["ReceiptHandle"] for message in messages])
        return dead_letters
