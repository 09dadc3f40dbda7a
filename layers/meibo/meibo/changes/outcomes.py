"""Outcomes: the result of each member of each message, archived under ``changes/`` as one JSON document per line.

The outcomes of a message are written before it is acknowledged. A member never gets a second outcome from the same
message: outcomes that exist are read, so a message that is delivered again resumes with the other members. A delivery
that ends early writes the outcomes it has as a part; the next delivery writes the next part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any, Final, Literal, Self, get_args

from meibo.archive.keys import outcome_key
from meibo.archive.storage import ArchiveStore
from meibo.changes.messages import ACTIONS, ORGANIZATION_ID, SOURCE, QueueMessage
from meibo.errors import ArchiveConflictError

OutcomeKind = Literal["applied", "rejected", "dry_run"]

VERSION: Final = 1
# The source of messages without a valid one.
UNKNOWN_SOURCE: Final = "unknown"
_KINDS: Final[dict[str, OutcomeKind]] = {kind: kind for kind in get_args(OutcomeKind)}
_ACTION: Final = re.compile("|".join(ACTIONS))
_ALWAYS_PRESENT: Final = frozenset({"change_id", "member"})


@dataclass(frozen=True)
class Outcome:
    """The final result of one member of one message; ``code`` and ``reason`` say why it was rejected.

    ``member`` is empty if the message has no member.
    """

    member: str = field(repr=False)
    kind: OutcomeKind
    at: datetime
    code: str | None = None
    reason: str | None = None
    invitation_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class OutcomeRecord:
    """An outcome as it is archived, with the facts of its message.

    ``organization_id`` and ``action`` are None if the message has no valid one; its dead letter has them as received.
    """

    outcome: Outcome
    message_id: str
    source: str
    sent_at: datetime
    change_id: str | None = None
    organization_id: str | None = None
    action: str | None = None
    requested_by: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, outcome: Outcome, message: QueueMessage, document: Mapping[str, Any]) -> Self:
        """Return the record of an outcome; ``document`` is the JSON object of the message, which may be invalid."""
        return cls(
            outcome=outcome,
            message_id=message.message_id,
            source=_source_of(document),
            sent_at=message.sent_at,
            change_id=_string(document.get("change_id")),
            organization_id=_string(document.get("organization_id"), ORGANIZATION_ID),
            action=_string(document.get("action"), _ACTION),
            requested_by=_string(document.get("requested_by")),
        )

    @classmethod
    def from_json(cls, document: Any, key: str) -> Self:
        """Read a line of the object ``key``, raising ArchiveConflictError if it is no outcome of this version."""
        try:
            version = document["version"]
            if version != VERSION:
                raise ArchiveConflictError(
                    f"{key}: expected outcomes of version {VERSION}, found version {str(version)[:10]}; update Meibo"
                )
            return cls(
                outcome=Outcome(
                    member=_string(document.get("member")) or "",
                    kind=_KINDS[document["outcome"]],
                    at=datetime.fromisoformat(document["at"]),
                    code=_string(document.get("code")),
                    reason=_string(document.get("reason")),
                    invitation_id=_string(document.get("invitation_id")),
                ),
                message_id=str(document["message_id"]),
                source=str(document["source"]),
                sent_at=datetime.fromisoformat(document["sent_at"]),
                change_id=_string(document.get("change_id")),
                organization_id=_string(document.get("organization_id")),
                action=_string(document.get("action")),
                requested_by=_string(document.get("requested_by")),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ArchiveConflictError(f"{key}: expected an outcome per line, found something else") from None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the record, without the fields that have no value."""
        outcome = self.outcome
        document = {
            "version": VERSION,
            "message_id": self.message_id,
            "change_id": self.change_id,
            "source": self.source,
            "organization_id": self.organization_id,
            "action": self.action,
            "member": outcome.member or None,
            "outcome": outcome.kind,
            "code": outcome.code,
            "reason": outcome.reason,
            "invitation_id": outcome.invitation_id,
            "requested_by": self.requested_by,
            "sent_at": _timestamp(self.sent_at),
            "at": _timestamp(outcome.at),
        }
        return {name: value for name, value in document.items() if value is not None or name in _ALWAYS_PRESENT}


def parse_records(body: bytes, key: str) -> list[OutcomeRecord]:
    """Return the records of an object, raising ArchiveConflictError if it contains anything else."""
    # Not splitlines(), which also splits at characters that a JSON string can contain, such as U+2028.
    try:
        lines = [json.loads(line) for line in body.split(b"\n") if line]
    except ValueError:
        raise ArchiveConflictError(f"{key}: expected an outcome per line, found a line that is not JSON") from None
    return [OutcomeRecord.from_json(line, key) for line in lines]


class MessageOutcomes:
    """The outcomes of one message: those in the archive, and new ones that are not written yet."""

    def __init__(self, store: ArchiveStore, message: QueueMessage, document: Mapping[str, Any]) -> None:
        self._store = store
        self._message = message
        self._document = document
        self._part = 1
        self._stored: dict[str, Outcome] = {}
        self._new: dict[str, Outcome] = {}
        if message.receive_count > 1:
            self._read()

    @property
    def by_member(self) -> dict[str, Outcome]:
        """The outcomes so far, by member."""
        return {**self._stored, **self._new}

    def has(self, member: str) -> bool:
        """Return whether a member has an outcome."""
        return member in self._stored or member in self._new

    def add(self, outcome: Outcome) -> None:
        """Add an outcome unless the member has one, because the first outcome is final."""
        if not self.has(outcome.member):
            self._new[outcome.member] = outcome

    def write(self) -> bool:
        """Write the new outcomes and return whether there were any.

        If another delivery of the message wrote the same part first, its outcomes replace those of this delivery.
        """
        written = False
        while self._new:
            records = [OutcomeRecord.of(outcome, self._message, self._document) for outcome in self._new.values()]
            if self._store.put_lines(self._key(self._part), [record.to_json() for record in records]):
                self._stored |= self._new
                self._new = {}
                self._part += 1
                written = True
            else:
                self._read()
        return written

    def _read(self) -> None:
        for part in count(self._part):
            key = self._key(part)
            lines = self._store.get_lines(key)
            if lines is None:
                return
            self._part = part + 1
            outcomes = [OutcomeRecord.from_json(line, key).outcome for line in lines]
            self._stored |= {outcome.member: outcome for outcome in outcomes}
            self._new = {member: outcome for member, outcome in self._new.items() if member not in self._stored}

    def _key(self, part: int) -> str:
        """Return the key of the outcomes of the message, or of a further part of them."""
        name = self._message.message_id if part == 1 else f"{self._message.message_id}-{part}"
        return outcome_key(_source_of(self._document), self._message.dt, name)


def _source_of(document: Mapping[str, Any]) -> str:
    return _string(document.get("source"), SOURCE) or UNKNOWN_SOURCE


def _string(value: Any, pattern: re.Pattern[str] | None = None) -> str | None:
    return value if isinstance(value, str) and (pattern is None or pattern.fullmatch(value)) else None


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
