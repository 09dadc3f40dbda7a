"""What became of each member of each message, kept in the archive under ``changes/``.

One line a member, written before the message is acknowledged and never twice: a record that exists is read and
believed, so a message that is delivered again goes on where the last delivery ended. A delivery that ends early
writes what it did as a part; the next one adds the next part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any, Literal

from meibo.archive.keys import outcome_key
from meibo.archive.storage import ArchiveStore
from meibo.changes.batch import QueueMessage
from meibo.changes.messages import ACTIONS, ORGANIZATION_ID, SOURCE

Kind = Literal["applied", "rejected", "dry_run"]

LINE_VERSION = 1
# Where a message does not say (in the right form) which source it is for.
UNKNOWN_SOURCE = "unknown"
_ACTION = re.compile("|".join(ACTIONS))


@dataclass(frozen=True)
class Outcome:
    """The final outcome of one member of one message. ``code`` and ``reason`` say why it was rejected."""

    member: str = field(repr=False)
    kind: Kind
    at: datetime
    code: str | None = None
    reason: str | None = None
    invitation_id: str | None = None


def record_key(source: str, message: QueueMessage, part: int = 1) -> str:
    """Return the key of a message's record, or of a further part of it."""
    name = message.message_id if part == 1 else f"{message.message_id}-{part}"
    return outcome_key(source, message.dt, name)


def source_of(document: Mapping[str, Any]) -> str:
    """Return the source that a message's record belongs to."""
    source = document.get("source")
    return source if isinstance(source, str) and SOURCE.fullmatch(source) else UNKNOWN_SOURCE


class OutcomeRecord:
    """The record of one message."""

    def __init__(self, store: ArchiveStore, message: QueueMessage, document: Mapping[str, Any]) -> None:
        self._store = store
        self._message = message
        self._document = document
        self._source = source_of(document)
        self._part = 1
        self._stored: dict[str, Outcome] = {}
        self._new: dict[str, Outcome] = {}
        if message.receive_count > 1:
            self._read()

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """The outcomes so far, by member."""
        return {**self._stored, **self._new}

    def settled(self, member: str) -> bool:
        """Tell whether a member has its outcome."""
        return member in self._stored or member in self._new

    def add(self, outcome: Outcome) -> None:
        """Take in an outcome; the first one of a member is final."""
        if not self.settled(outcome.member):
            self._new[outcome.member] = outcome

    def write(self) -> None:
        """Write what is new. Where another delivery wrote first, what it says counts."""
        while self._new:
            key = record_key(self._source, self._message, self._part)
            if self._store.put_lines(key, [self._line(outcome) for outcome in self._new.values()]):
                self._stored |= self._new
                self._new = {}
                self._part += 1
            else:
                self._read()

    def _read(self) -> None:
        for part in count(self._part):
            lines = self._store.get_lines(record_key(self._source, self._message, part))
            if lines is None:
                return
            self._part = part + 1
            self._stored |= {outcome.member: outcome for outcome in _outcomes(lines)}
            self._new = {member: outcome for member, outcome in self._new.items() if member not in self._stored}

    def _line(self, outcome: Outcome) -> dict[str, Any]:
        line = {
            "version": LINE_VERSION,
            "message_id": self._message.message_id,
            "change_id": _text(self._document.get("change_id")),
            "source": self._source,
            # Of a message that is not valid anything may stand here; it is in the dead letter.
            "organization_id": _text(self._document.get("organization_id"), ORGANIZATION_ID),
            "action": _text(self._document.get("action"), _ACTION),
            "member": outcome.member or None,
            "outcome": outcome.kind,
            "code": outcome.code,
            "reason": outcome.reason,
            "invitation_id": outcome.invitation_id,
            "requested_by": _text(self._document.get("requested_by")),
            "sent_at": _timestamp(self._message.sent_at),
            "at": _timestamp(outcome.at),
        }
        return {name: value for name, value in line.items() if value is not None or name in ("change_id", "member")}


def _outcomes(lines: list[Any]) -> Iterator[Outcome]:
    for line in lines:
        yield Outcome(
            member=line.get("member") or "",
            kind=line["outcome"],
            at=datetime.fromisoformat(line["at"]),
            code=line.get("code"),
            reason=line.get("reason"),
            invitation_id=line.get("invitation_id"),
        )


def _text(value: Any, form: re.Pattern[str] | None = None) -> str | None:
    return value if isinstance(value, str) and (form is None or form.fullmatch(value)) else None


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
