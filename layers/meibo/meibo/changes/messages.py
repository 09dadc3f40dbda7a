"""What a message on the queue may say, and where it says something else.

Plain Python: a function that starts for a single message should not first import a validation library. Faults
name the JSON path and never repeat what stands there, because that may be a person's address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from meibo.providers.auth0.invitations import MAX_TTL_SECONDS
from meibo.providers.auth0.membership import MAX_ROLES

VERSION: Final = 1
# One message costs at most a hundred requests, half a minute of a tenant's write limit.
MAX_MEMBERS: Final = 1000
MAX_ID_LENGTH: Final = 255
MAX_NAME_LENGTH: Final = 300
MAX_FAULTS_REPORTED: Final = 10

Action = Literal["add", "remove", "invite"]
ACTIONS: Final = get_args(Action)

CHANGE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
SOURCE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
ORGANIZATION_ID: Final = re.compile(r"org_[A-Za-z0-9]{16}")
ROLE_ID: Final = re.compile(r"rol_[A-Za-z0-9]{16}")
CONNECTION_ID: Final = re.compile(r"con_[A-Za-z0-9]{16}")
# A user id is the provider, a bar and the provider's own id, which may hold bars and anything printable.
USER_ID: Final = re.compile(r"[A-Za-z0-9_-]+\|[^\x00-\x1f\x7f]+")
EMAIL: Final = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s.]+(\.[^@\s.]+)+")
CLIENT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

REQUIRED: Final = ("version", "change_id", "source", "organization_id", "action", "members")
# ``rejections`` is what Meibo writes into a dead letter; a redriven one still has it, and it changes nothing.
OPTIONAL: Final = ("roles", "invitation", "confirm_removals", "requested_by", "dry_run", "rejections")
INVITATION_REQUIRED: Final = ("client_id", "inviter")
INVITATION_OPTIONAL: Final = ("ttl_sec", "connection_id", "send_email")


@dataclass(frozen=True)
class InvitationTerms:
    """How people are invited; the e-mail is sent by Auth0, and only where it is asked for."""

    client_id: str
    inviter: str = field(repr=False)
    ttl_sec: int | None = None
    connection_id: str | None = None
    send_email: bool = False


@dataclass(frozen=True, kw_only=True)
class Change:
    """One valid change. ``members`` are user ids, or e-mail addresses where the action is ``invite``."""

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
    """What is wrong at one place of a message."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@dataclass(frozen=True)
class ParsedMessage:
    """A message as it was understood: a change, or the faults that forbid it.

    ``document`` is what the message says where it is a JSON object at all, for the record of its rejection.
    """

    change: Change | None
    faults: tuple[MessageFault, ...]
    document: Mapping[str, Any] = field(repr=False)

    @property
    def reason(self) -> str:
        """The faults as one text."""
        told = "; ".join(str(fault) for fault in self.faults[:MAX_FAULTS_REPORTED])
        more = len(self.faults) - MAX_FAULTS_REPORTED
        return told + (f"; and {more} more" if more > 0 else "")


def parse_change(body: str, *, max_removals: int, group_id: str | None = None) -> ParsedMessage:
    """Read a message's body.

    ``max_removals`` is how many ids a change may remove without saying the number itself. ``group_id`` is the
    queue's message group, which must be the organization's id: else the order of its changes is not kept.
    """
    try:
        document = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        named = isinstance(error, _NamedTwiceError)
        problem = "names a key twice" if named else "is not valid JSON"
        return ParsedMessage(None, (MessageFault("$", problem),), {})
    if not isinstance(document, dict):
        return ParsedMessage(None, (MessageFault("$", "must be a JSON object"),), {})
    try:
        # Half a surrogate pair can be spelled in JSON and be written nowhere: not to the record, not to a letter.
        json.dumps(document, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return ParsedMessage(None, (MessageFault("$", "holds what is no text in UTF-8, or is nested too deep"),), {})
    faults = tuple(_faults(document, max_removals, group_id))
    return ParsedMessage(None if faults else _change(document), faults, document)


def is_user_id(text: str) -> bool:
    """Return whether a text is a user id that a change can name, without characters that cannot be printed."""
    return len(text) <= MAX_ID_LENGTH and USER_ID.fullmatch(text) is not None and text.isprintable()


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
    yield from _keys(document, "$", REQUIRED, OPTIONAL)
    version = document.get("version", VERSION)
    if type(version) is not int or version != VERSION:
        yield MessageFault("$.version", f"must be {VERSION}")
    yield from _text(document, "change_id", CHANGE_ID, "must be 1 to 128 letters, digits and . _ : / @ + -")
    yield from _text(document, "source", SOURCE, "must be the name of a source")
    yield from _text(document, "organization_id", ORGANIZATION_ID, "must be org_ and 16 letters or digits")
    action = document.get("action", "add")
    if action not in ACTIONS:
        yield MessageFault("$.action", "must be add, remove or invite")
        return
    yield from _member_faults(document.get("members", ()), action)
    yield from _role_faults(document, action)
    yield from _invitation_faults(document, action)
    yield from _guard_faults(document, action, max_removals)
    if not isinstance(document.get("requested_by", ""), str) or len(document.get("requested_by", "")) > MAX_NAME_LENGTH:
        yield MessageFault("$.requested_by", f"must be a text of at most {MAX_NAME_LENGTH} characters")
    if not isinstance(document.get("dry_run", False), bool):
        yield MessageFault("$.dry_run", "must be true or false")
    if group_id is not None and "organization_id" in document and group_id != document["organization_id"]:
        yield MessageFault(
            "$.organization_id", "must be the MessageGroupId as well, which keeps the order of its changes"
        )


def _keys(
    document: Mapping[str, Any], path: str, required: tuple[str, ...], optional: tuple[str, ...]
) -> Iterator[MessageFault]:
    for name in required:
        if name not in document:
            yield MessageFault(f"{path}.{name}", "is missing")
    for name in document:
        if name not in required and name not in optional:
            # A name that is no plain word may be anything, and would be told in a log.
            told = name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,39}", name) else "*"
            yield MessageFault(f"{path}.{told}", "is not a known field")


def _text(
    document: Mapping[str, Any], name: str, form: re.Pattern[str], problem: str, path: str = "$"
) -> Iterator[MessageFault]:
    value = document.get(name)
    if name in document and not (isinstance(value, str) and form.fullmatch(value)):
        yield MessageFault(f"{path}.{name}", problem)


def _member_faults(members: Any, action: str) -> Iterator[MessageFault]:
    if not isinstance(members, list) or not members:
        if members != ():
            yield MessageFault("$.members", "must be a list with at least one entry")
        return
    if len(members) > MAX_MEMBERS:
        yield MessageFault("$.members", f"has {len(members)} entries; {MAX_MEMBERS} are the most")
        return
    form, problem = (
        (EMAIL, "must be an e-mail address, as the action is invite")
        if action == "invite"
        else (USER_ID, "must be a user id with its provider, like auth0|63d17c4a9d503d76c056c160")
    )
    # The provider compares addresses without regard to case, and so do we.
    same: Callable[[str], str] = str.casefold if action == "invite" else str
    first: dict[str, int] = {}
    for index, member in enumerate(members):
        if not isinstance(member, str) or len(member) > MAX_ID_LENGTH or not form.fullmatch(member):
            yield MessageFault(f"$.members[{index}]", problem)
            continue
        position = first.setdefault(same(member), index)
        if position != index:
            yield MessageFault(f"$.members[{index}]", f"is the same as members[{position}]")


def _role_faults(document: Mapping[str, Any], action: str) -> Iterator[MessageFault]:
    if "roles" not in document:
        return
    roles = document["roles"]
    if action == "remove":
        yield MessageFault("$.roles", "goes with add and invite only; who leaves loses the roles anyway")
        return
    if not isinstance(roles, list) or not 1 <= len(roles) <= MAX_ROLES:
        yield MessageFault("$.roles", f"must be a list of 1 to {MAX_ROLES} role ids")
        return
    for index, role in enumerate(roles):
        if not isinstance(role, str) or not ROLE_ID.fullmatch(role):
            yield MessageFault(f"$.roles[{index}]", "must be rol_ and 16 letters or digits")
        elif role in roles[:index]:
            yield MessageFault(f"$.roles[{index}]", f"is the same as roles[{roles.index(role)}]")


def _invitation_faults(document: Mapping[str, Any], action: str) -> Iterator[MessageFault]:
    if action != "invite":
        if "invitation" in document:
            yield MessageFault("$.invitation", "goes with the action invite only")
        return
    if "invitation" not in document:
        yield MessageFault("$.invitation", "is missing, and the action is invite")
        return
    invitation = document["invitation"]
    if not isinstance(invitation, dict):
        yield MessageFault("$.invitation", "must be an object")
        return
    path = "$.invitation"
    yield from _keys(invitation, path, INVITATION_REQUIRED, INVITATION_OPTIONAL)
    yield from _text(invitation, "client_id", CLIENT_ID, "must be the client id of the application", path)
    yield from _text(invitation, "connection_id", CONNECTION_ID, "must be con_ and 16 letters or digits", path)
    inviter = invitation.get("inviter", "-")
    if not isinstance(inviter, str) or not 1 <= len(inviter.strip()) <= MAX_NAME_LENGTH:
        yield MessageFault(f"{path}.inviter", f"must be a name of 1 to {MAX_NAME_LENGTH} characters")
    ttl = invitation.get("ttl_sec", 1)
    if type(ttl) is not int or not 1 <= ttl <= MAX_TTL_SECONDS:
        yield MessageFault(f"{path}.ttl_sec", f"must be a whole number of seconds from 1 to {MAX_TTL_SECONDS}")
    if not isinstance(invitation.get("send_email", False), bool):
        yield MessageFault(f"{path}.send_email", "must be true or false")


def _guard_faults(document: Mapping[str, Any], action: str, max_removals: int) -> Iterator[MessageFault]:
    members = document.get("members")
    count = len(members) if isinstance(members, list) else 0
    if "confirm_removals" in document:
        confirmed = document["confirm_removals"]
        if action != "remove":
            yield MessageFault("$.confirm_removals", "goes with the action remove only")
        elif type(confirmed) is not int or confirmed != count:
            yield MessageFault("$.confirm_removals", f"must be the exact number of members, which is {count}")
    elif action == "remove" and count > max_removals:
        yield MessageFault(
            "$.confirm_removals",
            f"is missing: {count} removals are more than the {max_removals} that need no confirmation",
        )


class _NamedTwiceError(ValueError):
    """An object names a key twice, so what it says depends on who reads it."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise _NamedTwiceError
    return document
