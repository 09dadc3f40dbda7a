"""What a change could not do, kept on the dead-letter queue in the form in which it can be sent again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from meibo.members.delivery import Delivery
from meibo.members.outcomes import Outcome

# SQS takes 256 KiB with the attributes: the queue takes less (see the template), so that a letter always fits.
LONGEST_BODY_BYTES: Final = 250_000
LONGEST_REASON: Final = 1000


@dataclass(frozen=True)
class DeadLetter:
    """One message for the dead-letter queue; its id makes a repetition within five minutes one message."""

    body: str = field(repr=False)
    group_id: str
    deduplication_id: str
    reason: str


def letter_of_message(delivery: Delivery, reason: str) -> DeadLetter:
    """Return the letter of a message that is rejected whole: the message itself, unread as it may be."""
    return DeadLetter(delivery.body, delivery.group_id, delivery.message_id, reason[:LONGEST_REASON])


def letter_of_members(delivery: Delivery, document: Mapping[str, Any], rejected: Sequence[Outcome]) -> DeadLetter:
    """Return a change of the same form that holds the rejected members only, with the reasons.

    It is valid as it is: sent again once the cause is repaired, it does exactly what is missing.
    """
    members = [outcome.member for outcome in rejected]
    # The reasons of an earlier death are not the reasons of this one.
    change = {name: value for name, value in document.items() if name != "rejections"} | {"members": members}
    if "confirm_removals" in change:
        change["confirm_removals"] = len(members)
    reasons: dict[str, list[str]] = {}
    for outcome in rejected:
        reasons.setdefault(outcome.reason or "", []).append(outcome.member)
    told: list[dict[str, Any]] = [{"reason": reason, "members": ids} for reason, ids in reasons.items()]
    body = _encode({**change, "rejections": told})
    if len(body.encode()) > LONGEST_BODY_BYTES:
        # Which member has which reason is in the record under changes/.
        told = [{"reason": reason, "count": len(ids)} for reason, ids in reasons.items()]
        body = _encode({**change, "rejections": told})
    return DeadLetter(body, delivery.group_id, delivery.message_id, ("; ".join(reasons) or "rejected")[:LONGEST_REASON])


def _encode(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    # Two characters that SQS does not take: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    return text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
