"""SQS on this machine: the queue of changes and its event source mapping.

Batch size, concurrency and partial batch responses are the template's; how long a message stays hidden and when it
becomes a dead letter is the queue's own business. https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from meibo_local.lambda_service import InvocationResult

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef


Invoke = Callable[[dict[str, Any]], InvocationResult]

# How long a poller that found nothing waits, twice as long each time: messages may be hidden for minutes.
_MIN_IDLE_SECONDS = 0.05
_MAX_IDLE_SECONDS = 0.4


class Queue(Protocol):
    """What an event source mapping asks of a queue. Messages are dicts as SQS gives them."""

    def receive(self, most: int) -> Sequence[Mapping[str, Any]]:
        """Return up to so many messages, which are hidden from now on."""
        ...

    def delete(self, receipts: Sequence[str]) -> None:
        """Delete messages by their receipt handles."""
        ...

    def size(self) -> int:
        """Return how many messages the queue holds, hidden ones included."""
        ...


@dataclass(frozen=True)
class SqsQueue:
    """A queue behind the SQS API."""

    client: SQSClient
    url: str

    def receive(self, most: int) -> Sequence[Mapping[str, Any]]:
        """Return up to so many messages, which are hidden from now on."""
        answer = self.client.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=most,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return answer.get("Messages", [])

    def delete(self, receipts: Sequence[str]) -> None:
        """Delete messages by their receipt handles."""
        for receipt in receipts:
            self.client.delete_message(QueueUrl=self.url, ReceiptHandle=receipt)

    def size(self) -> int:
        """Return how many messages the queue holds, hidden ones included."""
        attributes = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"]) + int(attributes["ApproximateNumberOfMessagesNotVisible"])


@dataclass
class EventSource:
    """One event source mapping. ``batches`` counts invocations by how they ended."""

    queue: Queue
    arn: str
    invoke: Invoke
    batch_size: int
    concurrency: int
    reports_failures: bool
    batches: dict[str, int] = field(default_factory=dict)

    def poll(self) -> bool:
        """Take one batch through the function; return whether there was one."""
        messages = self.queue.receive(self.batch_size)
        if not messages:
            return False
        outcome = self.invoke({"Records": [self._record(message) for message in messages]})
        failed = self._failed(outcome, {message["MessageId"] for message in messages})
        self.queue.delete([message["ReceiptHandle"] for message in messages if message["MessageId"] not in failed])
        kind = "failed" if outcome.failed else "partial" if failed else "done"
        self.batches[kind] = self.batches.get(kind, 0) + 1
        return True

    def drain(self, seconds: float, *, until: Callable[[], bool] | None = None) -> bool:
        """Poll with as many threads as invocations may run until the queue is empty; return whether it is.

        ``until`` ends it earlier, for a queue whose rest is meant to stay.
        """
        end = time.monotonic() + seconds
        errors: list[BaseException] = []

        def over() -> bool:
            return bool(errors) or time.monotonic() >= end or (until is not None and until())

        def work() -> None:
            idle = _MIN_IDLE_SECONDS
            try:
                while not over():
                    if self.poll():
                        idle = _MIN_IDLE_SECONDS
                    elif self.queue.size() == 0:
                        return
                    else:
                        time.sleep(idle)
                        idle = min(2 * idle, _MAX_IDLE_SECONDS)
            except BaseException as error:  # noqa: BLE001  # carried to the thread that waits
                errors.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(self.concurrency)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return self.queue.size() == 0

    def _failed(self, outcome: InvocationResult, sent: set[str]) -> set[str]:
        """Return the ids of the messages that stay on the queue."""
        if outcome.failed:
            return sent
        if not self.reports_failures or not outcome.payload:
            return set()
        failures = outcome.payload.get("batchItemFailures") or []
        named = {failure.get("itemIdentifier") for failure in failures}
        # An id that is not of this batch, or none, makes the whole batch fail.
        return named if named <= sent else sent

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
