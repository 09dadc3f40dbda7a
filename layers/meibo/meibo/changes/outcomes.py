"""Outcomes: the result of each member of each message, archived under ``changes/`` as one JSON document per line.

The outcomes of a message are written before it is acknowledged. A member never gets a second outcome from the same
message: outcomes that exist are read, so a message that is delivered again resumes with the other members. A delivery
that ends early writes the outcomes it has as a part; the next delivery writes the next part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from typing import Any, Final

from meibo.archive.keys import outcome_key
from meibo.archive.outcome_record import Outcome, OutcomeRecord, format_records, parse_records
from meibo.archive.storage import ArchiveStorage
from meibo.changes.messages import ACTIONS, ORGANIZATION_ID, SOURCE, QueueMessage

# The source of messages without a valid source.
UNKNOWN_SOURCE: Final = "unknown"
_ACTION: Final = re.compile("|".join(ACTIONS))


class MessageOutcomes:
    """The outcomes of one message: those in the archive, and new ones that are not written yet."""

    def __init__(self, storage: ArchiveStorage, message: QueueMessage, document: Mapping[str, Any]) -> None:
        self._storage = storage
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
            records = [_record(outcome, self._message, self._document) for outcome in self._new.values()]
            if self._storage.put_bytes(
                self._key(self._part), format_records(records), content_type="application/x-ndjson"
            ):
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
            body = self._storage.read(key)
            if body is None:
                return
            self._part = part + 1
            outcomes = [record.outcome for record in parse_records(body, key)]
            self._stored |= {outcome.member: outcome for outcome in outcomes}
            self._new = {member: outcome for member, outcome in self._new.items() if member not in self._stored}

    def _key(self, part: int) -> str:
        """Return the key of the outcomes of the message, or of a further part of them."""
        return outcome_key(_source_of(self._document), self._message.dt, self._message.message_id, part)


def _source_of(document: Mapping[str, Any]) -> str:
    return _string(document.get("source"), SOURCE) or UNKNOWN_SOURCE


def _record(outcome: Outcome, message: QueueMessage, document: Mapping[str, Any]) -> OutcomeRecord:
    """Return the record of an outcome; ``document`` is the JSON object of the message, which may be invalid."""
    return OutcomeRecord(
        outcome=outcome,
        message_id=message.message_id,
        source=_source_of(document),
        sent_at=message.sent_at,
        change_id=_string(document.get("change_id")),
        organization_id=_string(document.get("organization_id"), ORGANIZATION_ID),
        action=_string(document.get("action"), _ACTION),
        requested_by=_string(document.get("requested_by")),
    )


def _string(value: Any, pattern: re.Pattern[str] | None = None) -> str | None:
    return value if isinstance(value, str) and (pattern is None or pattern.fullmatch(value)) else None
