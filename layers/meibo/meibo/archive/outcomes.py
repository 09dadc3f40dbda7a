"""Outcome records: the result for each member in each message, archived below ``changes/`` as NDJSON."""

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
    """The final result for one member in one message. ``code`` and ``reason`` state why the member was rejected.

    ``member`` is empty if the message contains no member.
    """

    member: Text = field(repr=False)
    kind: Annotated[OutcomeKind, Key("outcome")]
    at: datetime
    # An OutcomeCode, or a code that only a later version of Meibo defines.
    code: str | None = None
    reason: str | None = None
    invitation_id: str | None = None

    @classmethod
    def upgraded(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the document with an empty string instead of null as the member."""
        return {**document, "member": document.get("member") or ""}


@dataclass(frozen=True, kw_only=True)
class OutcomeRecord(Document):
    """An archived outcome, with values of its message.

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
        """Return the JSON object of the record. ``change_id`` and ``member`` are always present, and may be null."""
        times = {"sent_at": _timestamp(self.sent_at), "at": _timestamp(self.outcome.at)}
        return {**super().to_json(), "change_id": self.change_id, "member": self.outcome.member or None, **times}


def parse_records(body: bytes, key: str) -> list[OutcomeRecord]:
    """Return the records in an object. ``key`` names the object in messages. Raises the errors of ``from_json``."""
    # splitlines() would also split at characters that a JSON string can contain, such as U+2028.
    lines = [line for line in body.split(b"\n") if line]
    try:
        return [
            OutcomeRecord.from_json(json.loads(line), f"{key}, line {number}") for number, line in enumerate(lines, 1)
        ]
    except ValueError:
        raise ArchiveConflictError(f"{key}: expected one outcome per line, found a line that is not JSON") from None


def format_records(records: Iterable[OutcomeRecord]) -> bytes:
    """Return the records as NDJSON."""
    lines = (json.dumps(record.to_json(), ensure_ascii=False, separators=(",", ":")) for record in records)
    return "".join(f"{line}\n" for line in lines).encode()


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
