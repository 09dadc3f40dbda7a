"""Outcome records: the result of each member of each message, archived under ``changes/`` as NDJSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from meibo.documents import FLATTEN, Document, Key, Text
from meibo.errors import ArchiveConflictError

OutcomeKind = Literal["applied", "rejected", "dry_run"]
# docs/changes.md documents the codes.
OutcomeCode = Literal[
    "invalid",
    "unknown_source",
    "unknown_organization",
    "refused",
    "roles_refused",
    "already_a_user",
    "invitation_differs",
    "unknown_user",
    "unknown_role",
]


@dataclass(frozen=True)
class Outcome(Document):
    """The final result of one member of one message; ``code`` and ``reason`` state why it was rejected.

    ``member`` is empty if the message has no member.
    """

    member: Text = field(repr=False)
    kind: Annotated[OutcomeKind, Key("outcome")]
    at: datetime
    # An OutcomeCode, or a code of a later version of Meibo.
    code: str | None = None
    reason: str | None = None
    invitation_id: str | None = None

    @classmethod
    def upgraded(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the document with an empty string for a member that is null."""
        return {**document, "member": document.get("member") or ""}


@dataclass(frozen=True, kw_only=True)
class OutcomeRecord(Document):
    """An archived outcome, with the values of its message.

    ``organization_id`` and ``action`` are None if they are missing or invalid in the message.
    """

    version_key: ClassVar[str | None] = "version"

    message_id: str
    change_id: str | None = None
    source: str
    organization_id: str | None = None
    action: str | None = None
    outcome: Annotated[Outcome, FLATTEN]
    requested_by: str | None = field(default=None, repr=False)
    sent_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the record. ``change_id`` and ``member`` may be null."""
        times = {"sent_at": _timestamp(self.sent_at), "at": _timestamp(self.outcome.at)}
        return {**super().to_json(), "change_id": self.change_id, "member": self.outcome.member or None, **times}


def parse_records(body: bytes, key: str) -> list[OutcomeRecord]:
    """Parse the records of an object; ``key`` is its key in messages. Raises the errors of ``from_json``."""
    # splitlines() would also split at characters that a JSON string can contain, such as U+2028.
    lines = [line for line in body.split(b"\n") if line]
    try:
        return [
            OutcomeRecord.from_json(json.loads(line), f"{key}, line {number}") for number, line in enumerate(lines, 1)
        ]
    except ValueError:
        raise ArchiveConflictError(f"{key}: expected an outcome per line, found a line that is not JSON") from None


def format_records(records: Iterable[OutcomeRecord]) -> bytes:
    """Return the records as NDJSON, as they are archived."""
    lines = (json.dumps(record.to_json(), ensure_ascii=False, separators=(",", ":")) for record in records)
    return "".join(f"{line}\n" for line in lines).encode()


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
