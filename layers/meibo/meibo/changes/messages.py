"""The messages on the queue: the event that delivers them, and the change in the body of each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args
from zlib import crc32

from meibo.errors import EventError
from meibo.providers.auth0.membership import MAX_ROLES, MAX_TTL_SECONDS, InvitationTerms

VERSION: Final = 1
# The members of a message require at most 100 requests, half of a tenant's write limit per minute.
MAX_MEMBERS: Final = 1000
MAX_ID_LENGTH: Final = 255
MAX_NAME_LENGTH: Final = 300
MAX_FAULTS_REPORTED: Final = 10

Action = Literal["add", "remove", "invite"]
ACTIONS: Final = get_args(Action)

SOURCE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
ORGANIZATION_ID: Final = re.compile(r"org_[A-Za-z0-9]{16}")
ROLE_ID: Final = re.compile(r"rol_[A-Za-z0-9]{16}")
# A user id is the name of the provider, a bar and the provider's own id, which may contain bars and spaces.
USER_ID: Final = re.compile(r"[A-Za-z0-9_-]+\|[^\x00-\x1f\x7f]+")
EMAIL: Final = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s.]+(\.[^@\s.]+)+")

REQUIRED: Final = ("version", "change_id", "source", "organization_id", "action", "members")
# Meibo writes ``rejections`` into DLQ messages. A redriven message still contains the field; it has no effect.
OPTIONAL: Final = ("roles", "invitation", "confirm_removals", "requested_by", "dry_run", "rejections")
INVITATION_REQUIRED: Final = ("client_id", "inviter")
INVITATION_OPTIONAL: Final = ("ttl_sec", "connection_id", "send_email")

# The pattern of each string field of a change or of its invitation, and its description for messages.
_STRINGS: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "change_id": (re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}"), "1 to 128 letters, digits and . _ : / @ + -"),
    "source": (SOURCE, "the name of a source: lower-case letters, digits and -"),
    "organization_id": (ORGANIZATION_ID, "org_ and 16 alphanumeric characters"),
    "requested_by": (re.compile(rf".{{0,{MAX_NAME_LENGTH}}}", re.DOTALL), f"at most {MAX_NAME_LENGTH} characters"),
    "client_id": (re.compile(r"[A-Za-z0-9_-]{1,64}"), "the client id of the application"),
    "connection_id": (re.compile(r"con_[A-Za-z0-9]{16}"), "con_ and 16 alphanumeric characters"),
    "inviter": (
        re.compile(rf"\s*\S(.{{0,{MAX_NAME_LENGTH - 2}}}\S)?\s*", re.DOTALL),
        f"a name of 1 to {MAX_NAME_LENGTH} characters",
    ),
}
_BOOLEANS: Final = ("dry_run", "send_email")


@dataclass(frozen=True)
class QueueMessage:
    """A delivery of a message by the queue."""

    message_id: str
    receipt: str = field(repr=False)
    body: str = field(repr=False)
    group_id: str
    sent_at: datetime
    receive_count: int

    @property
    def dt(self) -> str:
        """The UTC day on which the message was sent, which is the same at each delivery."""
        return self.sent_at.strftime("%Y-%m-%d")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One valid change. ``members`` are user ids, or e-mail addresses if the action is ``invite``."""

    change_id: str
    source: str
    organization_id: str
    action: Action
    members: tuple[str, ...] = field(repr=False)
    roles: tuple[str, ...] = ()
    invitation: InvitationTerms | None = None
    requested_by: str | None = field(default=None, repr=False)
    dry_run: bool = False


@dataclass(frozen=True)
class MessageFault:
    """A fault of a message: its JSON path and a description, which never contains the value."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@dataclass(frozen=True)
class ParsedMessage:
    """The result of parsing a body: a change, or the faults of the message.

    ``document`` is the JSON object of the body, for the record of its rejection; it is empty if there is none.
    """

    change: Change | None
    faults: tuple[MessageFault, ...]
    document: Mapping[str, Any] = field(repr=False)

    @property
    def reason(self) -> str:
        """The faults as one string."""
        reported = "; ".join(str(fault) for fault in self.faults[:MAX_FAULTS_REPORTED])
        more = len(self.faults) - MAX_FAULTS_REPORTED
        return reported + (f"; and {more} more" if more > 0 else "")


# -- the event


def parse_queue_event(event: Any) -> list[QueueMessage]:
    """Return the messages of an event of an SQS FIFO queue, raising EventError for any other event."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list) or not records:
        raise EventError("expected an event of an SQS FIFO queue with Records; change_members is invoked by its queue")
    return [_message(record) for record in records]


def _message(record: Any) -> QueueMessage:
    try:
        attributes = record["attributes"]
        return QueueMessage(
            message_id=str(record["messageId"]),
            receipt=str(record["receiptHandle"]),
            body=str(record["body"]),
            group_id=str(attributes["MessageGroupId"]),
            sent_at=datetime.fromtimestamp(int(attributes["SentTimestamp"]) / 1000, UTC),
            receive_count=int(attributes["ApproximateReceiveCount"]),
        )
    except KeyError as error:
        raise EventError(f"Records: expected records of an SQS FIFO queue, found one without {error}") from None
    except (TypeError, ValueError):
        raise EventError("Records: expected records of an SQS FIFO queue, found a malformed one") from None


def by_group(messages: Iterable[QueueMessage]) -> list[list[QueueMessage]]:
    """Return the messages of each group in their order, and the groups in an order that differs at each delivery.

    So each group is soon the first, even if the time of each invocation is spent on a group whose organization is
    unavailable.
    """
    groups: dict[str, list[QueueMessage]] = {}
    for message in messages:
        groups.setdefault(message.group_id, []).append(message)
    return sorted(groups.values(), key=lambda group: crc32(group[0].receipt.encode()))


def oldest_age_seconds(messages: Iterable[QueueMessage], now: datetime) -> float:
    """Return the seconds since the oldest of the messages was sent, or 0 if there is none."""
    return max((max(0.0, (now - message.sent_at).total_seconds()) for message in messages), default=0.0)


# -- the change


def parse_change(body: str, *, max_removals: int, group_id: str | None = None) -> ParsedMessage:
    """Parse the body of a message.

    A change that removes more than ``max_removals`` members must confirm the number. ``group_id`` is the message group
    of the queue; it must be the id of the organization, because the queue keeps the order within a group only.
    """
    try:
        document = json.loads(body, object_pairs_hook=_json_object)
    except _DuplicateKeyError:
        return _no_object("expected each key once, found a duplicate key")
    except (ValueError, RecursionError):
        return _no_object("expected valid JSON")
    if not isinstance(document, dict):
        return _no_object("expected a JSON object")
    try:
        # JSON can contain half a surrogate pair, which neither the record nor a DLQ message can.
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return _no_object("expected text that can be encoded as UTF-8, found half a surrogate pair")
    except RecursionError:
        return _no_object("expected fewer levels of nested JSON")
    faults = tuple(_faults(document, max_removals, group_id))
    return ParsedMessage(None if faults else _change(document), faults, document)


def is_user_id(text: str) -> bool:
    """Return whether a string is a user id that a change can contain, and is printable."""
    return len(text) <= MAX_ID_LENGTH and USER_ID.fullmatch(text) is not None and text.isprintable()


def _no_object(problem: str) -> ParsedMessage:
    return ParsedMessage(None, (MessageFault("$", problem),), {})


def _change(document: Mapping[str, Any]) -> Change:
    invitation = document.get("invitation")
    return Change(
        change_id=document["change_id"],
        source=document["source"],
        organization_id=document["organization_id"],
        action=document["action"],
        members=tuple(document["members"]),
        roles=tuple(document.get("roles", ())),
        invitation=None if invitation is None else InvitationTerms(**invitation),
        requested_by=document.get("requested_by"),
        dry_run=document.get("dry_run", False),
    )


def _faults(document: dict[str, Any], max_removals: int, group_id: str | None) -> Iterator[MessageFault]:
    yield from _field_faults(document, "$", REQUIRED, OPTIONAL)
    action = document.get("action", "add")
    if action not in ACTIONS:
        yield MessageFault("$.action", "expected add, remove or invite")
        return
    yield from _member_faults(document.get("members", ()), action)
    yield from _role_faults(document, action)
    yield from _invitation_faults(document, action)
    yield from _removal_faults(document, action, max_removals)
    if group_id is not None and "organization_id" in document and group_id != document["organization_id"]:
        yield MessageFault("$.organization_id", "expected the MessageGroupId, because the order is kept per group")


def _field_faults(
    document: Mapping[str, Any], path: str, required: tuple[str, ...], optional: tuple[str, ...]
) -> Iterator[MessageFault]:
    """Yield the faults that depend on a single field: missing and unknown names, strings and booleans."""
    for name in required:
        if name not in document:
            yield MessageFault(f"{path}.{name}", "is missing")
    for name, value in document.items():
        if name not in required and name not in optional:
            # Reasons are logged, and a name that is not an identifier may contain anything.
            shown = name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,39}", name) else "*"
            yield MessageFault(f"{path}.{shown}", "is not a known field")
        elif name == "version" and (type(value) is not int or value != VERSION):
            yield MessageFault(f"{path}.{name}", f"expected {VERSION}")
        elif name in _STRINGS and not (isinstance(value, str) and _STRINGS[name][0].fullmatch(value)):
            yield MessageFault(f"{path}.{name}", f"expected {_STRINGS[name][1]}")
        elif name in _BOOLEANS and not isinstance(value, bool):
            yield MessageFault(f"{path}.{name}", "expected true or false")


def _member_faults(members: Any, action: str) -> Iterator[MessageFault]:
    if not isinstance(members, list) or not 1 <= len(members) <= MAX_MEMBERS:
        if members != ():
            count = f"{len(members)} entries" if isinstance(members, list) else "something else"
            yield MessageFault("$.members", f"expected a list of 1 to {MAX_MEMBERS} entries, found {count}")
        return
    pattern, expected = (
        (EMAIL, "an e-mail address, because the action is invite")
        if action == "invite"
        else (USER_ID, "a user id with its provider, such as auth0|63d17c4a9d503d76c056c160")
    )
    # Auth0 compares e-mail addresses without regard to case.
    normalize: Callable[[str], str] = str.casefold if action == "invite" else str
    first: dict[str, int] = {}
    for index, member in enumerate(members):
        if not isinstance(member, str) or len(member) > MAX_ID_LENGTH or not pattern.fullmatch(member):
            yield MessageFault(f"$.members[{index}]", f"expected {expected}")
            continue
        position = first.setdefault(normalize(member), index)
        if position != index:
            yield MessageFault(f"$.members[{index}]", f"is a duplicate of members[{position}]")


def _role_faults(document: Mapping[str, Any], action: str) -> Iterator[MessageFault]:
    if "roles" not in document:
        return
    roles = document["roles"]
    if action == "remove":
        yield MessageFault("$.roles", "is not allowed with the action remove; a removed member loses its roles anyway")
        return
    if not isinstance(roles, list) or not 1 <= len(roles) <= MAX_ROLES:
        yield MessageFault("$.roles", f"expected a list of 1 to {MAX_ROLES} role ids")
        return
    for index, role in enumerate(roles):
        if not isinstance(role, str) or not ROLE_ID.fullmatch(role):
            yield MessageFault(f"$.roles[{index}]", "expected rol_ and 16 alphanumeric characters")
        elif role in roles[:index]:
            yield MessageFault(f"$.roles[{index}]", f"is a duplicate of roles[{roles.index(role)}]")


def _invitation_faults(document: Mapping[str, Any], action: str) -> Iterator[MessageFault]:
    path = "$.invitation"
    if (action == "invite") != ("invitation" in document):
        yield MessageFault(
            path, "is missing, but the action is invite" if action == "invite" else "is allowed with invite only"
        )
    elif action == "invite":
        invitation = document["invitation"]
        if not isinstance(invitation, dict):
            yield MessageFault(path, "expected a JSON object")
            return
        yield from _field_faults(invitation, path, INVITATION_REQUIRED, INVITATION_OPTIONAL)
        ttl = invitation.get("ttl_sec", 1)
        if type(ttl) is not int or not 1 <= ttl <= MAX_TTL_SECONDS:
            yield MessageFault(f"{path}.ttl_sec", f"expected an integer from 1 to {MAX_TTL_SECONDS} (seconds)")


def _removal_faults(document: Mapping[str, Any], action: str, max_removals: int) -> Iterator[MessageFault]:
    members = document.get("members")
    count = len(members) if isinstance(members, list) else 0
    if "confirm_removals" in document:
        confirmed = document["confirm_removals"]
        if action != "remove":
            yield MessageFault("$.confirm_removals", "is allowed with the action remove only")
        elif type(confirmed) is not int or confirmed != count:
            yield MessageFault("$.confirm_removals", f"expected the number of members, {count}")
    elif action == "remove" and count > max_removals:
        yield MessageFault(
            "$.confirm_removals",
            f"is missing: {count} removals are more than the {max_removals} that need no confirmation; send the exact"
            " number to confirm it",
        )


class _DuplicateKeyError(ValueError):
    """A JSON object has a key twice, and parsers differ in which value counts."""


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise _DuplicateKeyError
    return document
