"""Store the outcome for each member of each message below ``changes/`` as NDJSON.

The outcomes of a message are written before the message is acknowledged. A member has at most one outcome per message:
if a message is delivered again, its stored outcomes are read, and only members without an outcome are processed. Each
delivery writes new parts.
"""

from __future__ import annotations

from itertools import count

from meibo.archive.keys import outcome_key
from meibo.archive.outcomes import Outcome, OutcomeRecord, format_records, parse_records
from meibo.archive.storage import ArchiveStorage
from meibo.changes.messages import Change, InvalidChange, QueueMessage


class OutcomeStore:
    """The outcomes of one message: stored outcomes, and new outcomes that are not stored yet."""

    def __init__(self, storage: ArchiveStorage, message: QueueMessage, change: Change | InvalidChange) -> None:
        self.message = message
        self.change = change
        self._storage = storage
        self._part = 1
        self._stored: dict[str, Outcome] = {}
        self._new: dict[str, Outcome] = {}
        if message.receive_count > 1:
            self._read()

    @property
    def by_member(self) -> dict[str, Outcome]:
        """All outcomes by member."""
        return {**self._stored, **self._new}

    @property
    def pending(self) -> list[str]:
        """The members of the change without an outcome."""
        return [member for member in self.change.members if member not in self._stored and member not in self._new]

    def add(self, outcome: Outcome) -> None:
        """Add the outcome for a member. It is ignored if the member already has an outcome."""
        if outcome.member not in self._stored:
            self._new.setdefault(outcome.member, outcome)

    def write(self) -> bool:
        """Write the new outcomes, and return whether outcomes were written.

        If another delivery of the message has already written the same part, the outcomes of that part are used.
        """
        written = False
        while self._new:
            records = [self._record(outcome) for outcome in self._new.values()]
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
            self._stored |= {record.outcome.member: record.outcome for record in parse_records(body, key)}
            self._new = {member: outcome for member, outcome in self._new.items() if member not in self._stored}

    def _key(self, part: int) -> str:
        return outcome_key(self.change.source, self.message.dt, self.message.message_id, part)

    def _record(self, outcome: Outcome) -> OutcomeRecord:
        change = self.change
        return OutcomeRecord(
            outcome=outcome,
            message_id=self.message.message_id,
            source=change.source,
            sent_at=self.message.sent_at,
            change_id=change.change_id,
            organization_id=change.organization_id,
            action=change.action,
            requested_by=change.requested_by,
        )
