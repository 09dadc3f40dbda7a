"""Outcome records: the result of each member of each message, archived under ``changes/`` as NDJSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Self, cast, get_args

from meibo.documents import Fields
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

VERSION: Final = 1
_KINDS: Final[dict[str, OutcomeKind]] = {kind: kind for kind in get_args(OutcomeKind)}
_ALWAYS_PRESENT: Final = frozenset({"change_id", "member"})


@dataclass(frozen=True)
class Outcome:
    """The final result of one member of one message; ``code`` and ``reason`` state the reason of a rejection.

    ``member`` is empty if the message has no member.
    """

    member: str = field(repr=False)
    kind: OutcomeKind
    at: datetime
    code: OutcomeCode | None = None
    reason: str | None = None
    invitation_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class OutcomeRecord:
    """An outcome as it is archived, with the values of its message.

    ``organization_id`` and ``action`` are None if they are missing or invalid in the message.
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
    def from_json(cls, document: Any, name: str) -> Self:
        """Read a record; ``name`` names it in errors.

        Raises ArchiveConflictError if it is not an outcome record, and ConfigurationError if a later version of Meibo
        wrote it.
        """
        fields = Fields(document, name)
        fields.check_version("version", VERSION)
        return cls(
            outcome=Outcome(
                member=fields.optional_string("member") or "",
                kind=fields.choice("outcome", _KINDS),
                at=fields.moment("at"),
                # Not checked: a later version of Meibo may write other codes.
                code=cast("OutcomeCode | None", fields.optional_string("code")),
                reason=fields.optional_string("reason"),
                invitation_id=fields.optional_string("invitation_id"),
            ),
            message_id=fields.string("message_id"),
            source=fields.string("source"),
            sent_at=fields.moment("sent_at"),
            **{key: fields.optional_string(key) for key in ("change_id", "organization_id", "action", "requested_by")},
        )

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
    """Return the records of an object. Errors as in ``OutcomeRecord.from_json``; ``key`` names the object in them."""
    # Not splitlines(), which also splits at characters that a JSON string can contain, such as U+2028.
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
