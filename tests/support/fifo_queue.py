"""An in-memory SQS FIFO queue on a fake clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meibo.changes.messages import QueueMessage
from meibo.changes.queue import DeadLetter

DEDUPLICATION_SECONDS = 300


@dataclass
class Message:
    body: str
    group: str
    sent: float
    id: str
    visible_at: float = 0.0
    received: int = 0
    receipt: str = ""


@dataclass
class FifoQueue:
    """A FIFO queue with its DLQ, for senders, the event source mapping and the function.

    While a message of a group is hidden, no other message of the group is delivered, which preserves the order.
    """

    now: Callable[[], float]
    visibility: float = 1800.0
    max_receives: int = 1000
    messages: list[Message] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    expired: list[Message] = field(default_factory=list)
    _sent: dict[str, float] = field(default_factory=dict)

    # -- for senders

    def send(self, body: str, group: str, *, unique: str | None = None) -> str:
        key = unique or hashlib.sha256((group + body).encode()).hexdigest()
        if self._is_duplicate(f"queue:{group}:{key}"):
            return ""
        # SQS returns a random UUID. Here, the id contains a number, so that failures are reproducible.
        message = Message(body, group, self.now(), f"00000000-0000-4000-8000-{len(self._sent):012d}")
        self.messages.append(message)
        return message.id

    # -- for the event source mapping

    def receive(self, max_messages: int) -> Sequence[Mapping[str, Any]]:
        now = self.now()
        blocked = {message.group for message in self.messages if message.visible_at > now}
        chosen: list[Message] = []
        for message in list(self.messages):
            if len(chosen) == max_messages:
                break
            if message.group in blocked:
                continue
            if message.received >= self.max_receives:
                self.messages.remove(message)
                self.expired.append(message)
                continue
            message.received += 1
            message.receipt = f"{message.id}:{message.received}"
            message.visible_at = now + self.visibility
            chosen.append(message)
        return [self._record(message) for message in chosen]

    def delete(self, receipts: Sequence[str]) -> None:
        self.messages = [message for message in self.messages if message.receipt not in receipts]

    def size(self) -> int:
        return len(self.messages)

    # -- for the function

    def set_visibility_timeout(self, unprocessed: Sequence[QueueMessage], seconds: int) -> None:
        receipts = {delivery.receipt for delivery in unprocessed}
        for message in self.messages:
            if message.receipt in receipts:
                message.visible_at = self.now() + seconds

    def send_dead_letter(self, dead_letter: DeadLetter) -> None:
        if not self._is_duplicate(f"dead-letter:{dead_letter.group_id}:{dead_letter.deduplication_id}"):
            self.dead_letters.append(dead_letter)

    def _is_duplicate(self, key: str) -> bool:
        first = self._sent.get(key)
        if first is not None and self.now() - first < DEDUPLICATION_SECONDS:
            return True
        self._sent[key] = self.now()
        return False

    @staticmethod
    def _record(message: Message) -> dict[str, Any]:
        return {
            "MessageId": message.id,
            "ReceiptHandle": message.receipt,
            "Body": message.body,
            "Attributes": {
                "MessageGroupId": message.group,
                "SentTimestamp": str(int(message.sent * 1000)),
                "ApproximateReceiveCount": str(message.received),
            },
        }
