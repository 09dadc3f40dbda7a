"""Dead letters: rejected changes in the form in which they can be sent again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from meibo.changes.batch import QueueMessage
from meibo.changes.outcomes import Outcome

# MaximumMessageSize of the dead-letter queue in the template. SQS counts the body and each attribute's name, type and
# value: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_MessageAttributeValue.html
MAX_MESSAGE_BYTES: Final = 262_144
MAX_REASON_BYTES: Final = 2000
REASON_ATTRIBUTE: Final = "MeiboReason"
_ATTRIBUTE_BYTES: Final = len(REASON_ATTRIBUTE) + len("String")
# Of different reasons that share a code, where there is no room for which member has which.
_MAX_REASONS: Final = 10
# SQS accepts the characters of XML 1.0 only:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_NOT_ACCEPTED: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class DeadLetter:
    """One message for the dead-letter queue; its id makes a repetition within five minutes one message.

    ``reason`` is for the message attribute, which is left out if it is empty.
    """

    body: str = field(repr=False)
    group_id: str
    deduplication_id: str
    reason: str


def dead_letter_of_message(message: QueueMessage, reason: str) -> DeadLetter:
    """Return the letter of a message that is rejected whole: the message as it was received."""
    return _letter(message, message.body, reason)


def dead_letter_of_members(
    message: QueueMessage, document: Mapping[str, Any], rejected: Sequence[Outcome]
) -> DeadLetter:
    """Return a change of the same form that holds only the rejected members, and why they were rejected.

    It is a valid change: sent again after the cause is fixed, it does exactly what is missing. It is never larger than
    ``MAX_MESSAGE_BYTES``, because the change alone is no larger than the message that it comes from. The outcomes under
    ``changes/`` have the reason of each member.
    """
    members = [outcome.member for outcome in rejected]
    # The rejections of an earlier letter are superseded.
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
    return _letter(message, body, reason)


def encode_message(document: Mapping[str, Any]) -> str:
    """Return a change as the body of a message that SQS accepts."""
    return _accepted(json.dumps(document, ensure_ascii=False, separators=(",", ":")))


def _rejections(rejected: Sequence[Outcome]) -> Iterator[list[dict[str, Any]]]:
    """Yield what a letter says of its rejections, each time in fewer bytes."""
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


def _letter(message: QueueMessage, body: str, reason: str) -> DeadLetter:
    room = MAX_MESSAGE_BYTES - _size(body) - _ATTRIBUTE_BYTES
    shortened = _accepted(reason).encode()[: max(0, min(room, MAX_REASON_BYTES))].decode(errors="ignore")
    return DeadLetter(body, message.group_id, message.message_id, shortened)


def _accepted(text: str) -> str:
    """Return the text with each character that SQS does not accept as a JSON escape."""
    return _NOT_ACCEPTED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _size(text: str) -> int:
    return len(_accepted(text).encode())
