"""Parse the event that contains messages of the queue, and the change in the body of each message."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self, get_args
from zlib import crc32

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, TypeAdapter, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from meibo.errors import EventError
from meibo.providers.auth0.configuration import ORGANIZATION_ID, OrganizationId
from meibo.providers.auth0.membership import MAX_NAME_LENGTH, MAX_ROLES, InvitationTerms
from meibo.providers.configuration import NAME, Name
from meibo.validation import Fault, Omissible, StrictModel, invalid, model_faults, parse_json, pattern_field

VERSION: Final = 1
# Adding or removing this number of members requires 100 requests if there are no roles and no id is rejected.
MAX_MEMBERS: Final = 1000
MAX_ID_LENGTH: Final = 255
MAX_FAULTS_REPORTED: Final = 10

Action = Literal["add", "remove", "invite"]
ACTIONS: Final = get_args(Action)

# The source in the outcome records of messages without a valid source.
UNKNOWN_SOURCE: Final = "unknown"
ROLE_ID: Final = re.compile(r"rol_[A-Za-z0-9]{16}")
# A user id consists of the name of an identity provider, a vertical bar, and the id at this provider, which may contain
# bars and spaces.
USER_ID: Final = re.compile(r"[A-Za-z0-9_-]+\|[^\x00-\x1f\x7f]+")
EMAIL: Final = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s.]+(\.[^@\s.]+)+")
_FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


@dataclass(frozen=True)
class QueueMessage:
    """A message that the queue delivered."""

    message_id: str
    receipt: str = field(repr=False)
    body: str = field(repr=False)
    group_id: str
    sent_at: datetime
    receive_count: int

    @property
    def dt(self) -> str:
        """The UTC date on which the message was sent. It is the same for each delivery."""
        return self.sent_at.strftime("%Y-%m-%d")


def parse_queue_event(event: Any) -> list[QueueMessage]:
    """Return the messages in the event of an SQS FIFO queue, raising EventError for any other event."""
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
        raise EventError(f"Records: expected records of an SQS FIFO queue, found a record without {error}") from None
    except (TypeError, ValueError):
        raise EventError("Records: expected records of an SQS FIFO queue, found a malformed record") from None


def by_group(messages: Iterable[QueueMessage]) -> list[list[QueueMessage]]:
    """Return the messages of each group, in their order.

    The order of the groups differs for each delivery. Otherwise, a group that uses all the time of an invocation could
    always delay the same groups.
    """
    groups: dict[str, list[QueueMessage]] = {}
    for message in messages:
        groups.setdefault(message.group_id, []).append(message)
    return sorted(groups.values(), key=lambda group: crc32(group[0].receipt.encode()))


def oldest_age_seconds(messages: Iterable[QueueMessage], now: datetime) -> float:
    """Return the seconds since the oldest message was sent, or 0 if there are no messages."""
    return max((max(0.0, (now - message.sent_at).total_seconds()) for message in messages), default=0.0)


# -- the change


def _ids(
    pattern: re.Pattern[str], expected: str, *, maximum: int, normalize: Callable[[str], str] = str
) -> BeforeValidator:
    """Return a validator of a list of ids, which reports all invalid ids and duplicates."""

    def validate(values: Any) -> tuple[str, ...]:
        if not isinstance(values, list) or not 1 <= len(values) <= maximum:
            found = f"{len(values)} entries" if isinstance(values, list) else "no list"
            raise ValueError(f"expected a list of 1 to {maximum} entries, found {found}")
        errors: list[InitErrorDetails] = []
        first: dict[str, int] = {}
        for index, value in enumerate(values):
            if not isinstance(value, str) or len(value) > MAX_ID_LENGTH or not pattern.fullmatch(value):
                problem = f"expected {expected}"
            elif (position := first.setdefault(normalize(value), index)) != index:
                problem = f"is a duplicate of the entry [{position}]"
            else:
                continue
            errors.append(InitErrorDetails(type=invalid(problem), loc=(index,), input=None))
        if errors:
            raise ValidationError.from_exception_data("ids", errors)
        return tuple(values)

    return BeforeValidator(validate)


UserIds = Annotated[
    tuple[str, ...],
    _ids(USER_ID, "a user id with its provider, such as auth0|63d17c4a9d503d76c056c160", maximum=MAX_MEMBERS),
    Field(repr=False),
]
EmailAddresses = Annotated[
    tuple[str, ...],
    # Addresses that differ only in case count as duplicates.
    _ids(EMAIL, "an e-mail address, because the action is invite", maximum=MAX_MEMBERS, normalize=str.casefold),
    Field(repr=False),
]
RoleIds = Annotated[tuple[str, ...], _ids(ROLE_ID, "rol_ and 16 alphanumeric characters", maximum=MAX_ROLES)]


class Change(StrictModel):
    """Base class of the changes. ``members`` are user ids, or e-mail addresses if the action is ``invite``."""

    version: Annotated[StrictInt, Field(ge=VERSION, le=VERSION)]
    change_id: Annotated[
        str,
        pattern_field(
            pattern="^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$",
            expected="1 to 128 letters, digits and . _ : / @ + -, beginning with an alphanumeric character",
        ),
    ]
    source: Name
    organization_id: OrganizationId
    action: Action
    members: tuple[str, ...]
    requested_by: Omissible[Annotated[str, Field(max_length=MAX_NAME_LENGTH)]] = Field(default=None, repr=False)
    dry_run: StrictBool = False
    # Meibo adds ``rejections`` to DLQ messages. The field has no effect when the message is redriven.
    rejections: Any = Field(default=None, repr=False)


class AddChange(Change):
    """Add users to an organization, and assign roles to them."""

    action: Literal["add"]
    members: UserIds
    roles: RoleIds = ()


class RemoveChange(Change):
    """Remove users from an organization. The users lose their roles in the organization."""

    action: Literal["remove"]
    members: UserIds
    confirm_removals: Omissible[StrictInt] = None

    @model_validator(mode="after")
    def _check_confirmation(self) -> Self:
        if self.confirm_removals not in (None, len(self.members)):
            raise invalid(f"expected the number of members, {len(self.members)}", steps=("confirm_removals",))
        return self


class InviteChange(Change):
    """Invite people to an organization by e-mail address."""

    action: Literal["invite"]
    members: EmailAddresses
    roles: RoleIds = ()
    invitation: InvitationTerms


_CHANGE: Final[TypeAdapter[Change]] = TypeAdapter(
    Annotated[AddChange | RemoveChange | InviteChange, Field(discriminator="action")]
)


@dataclass(frozen=True, kw_only=True)
class InvalidChange:
    """A message that is not a valid change: its errors, and the valid values, which are copied to the outcome records.

    ``members`` contains an empty string if the message has no members. ``change`` is the change if it is valid but
    rejected because of MaxRemovals or the MessageGroupId.
    """

    faults: tuple[Fault, ...]
    change_id: str | None = field(default=None, repr=False)
    source: str = UNKNOWN_SOURCE
    organization_id: str | None = None
    action: str | None = None
    members: tuple[str, ...] = field(default=("",), repr=False)
    requested_by: str | None = field(default=None, repr=False)
    change: Change | None = field(default=None, repr=False)

    @property
    def reason(self) -> str:
        """The first errors as one string, and the number of further errors."""
        reported = "; ".join(str(fault) for fault in self.faults[:MAX_FAULTS_REPORTED])
        more = len(self.faults) - MAX_FAULTS_REPORTED
        return reported + (f"; and {more} more" if more > 0 else "")


def parse_change(body: str, *, max_removals: int = MAX_MEMBERS, group_id: str | None = None) -> Change | InvalidChange:
    """Parse the body of a message.

    A change that removes more than ``max_removals`` members must confirm the number. ``group_id`` is the
    MessageGroupId. It must be the id of the organization, because the queue preserves the order within a group only.
    """
    try:
        document, faults = parse_json(body)
    except ValueError:
        return _invalid([Fault((), "expected valid JSON")])
    if not isinstance(document, dict):
        return _invalid([Fault((), "expected a JSON object")])
    if faults:
        return _invalid(faults)
    change = validate_change(document)
    if isinstance(change, InvalidChange):
        return change
    if isinstance(change, RemoveChange) and change.confirm_removals is None and len(change.members) > max_removals:
        problem = (
            f"is missing: {len(change.members)} removals exceed the maximum of {max_removals} without confirmation; set"
            " it to the number of members"
        )
        faults.append(Fault(("confirm_removals",), problem))
    if group_id not in (None, change.organization_id):
        faults.append(
            Fault(
                ("organization_id",),
                "expected the MessageGroupId, because the queue preserves the order within a group only",
            )
        )
    return _invalid(faults, document, change) if faults else change


def validate_change(document: Mapping[str, Any]) -> Change | InvalidChange:
    """Return the change in a JSON object. MaxRemovals and the MessageGroupId are not checked."""
    try:
        return _CHANGE.validate_python(document)
    except ValidationError as error:
        return _invalid(model_faults(error, document), document)


def is_user_id(text: str) -> bool:
    """Return whether a string is a printable user id."""
    return len(text) <= MAX_ID_LENGTH and USER_ID.fullmatch(text) is not None and text.isprintable()


def _invalid(
    faults: Iterable[Fault], document: Mapping[str, Any] | None = None, change: Change | None = None
) -> InvalidChange:
    """Return the errors of a message, and the valid values in it."""
    fields = document or {}
    members = fields.get("members")
    values = [member for member in members if isinstance(member, str) and member] if isinstance(members, list) else []
    return InvalidChange(
        faults=tuple(Fault(("$", *map(_printable, fault.steps)), fault.problem) for fault in faults),
        change_id=_string(fields.get("change_id")),
        source=_string(fields.get("source"), NAME) or UNKNOWN_SOURCE,
        organization_id=_string(fields.get("organization_id"), ORGANIZATION_ID),
        action=_string(fields.get("action"), "|".join(ACTIONS)),
        members=tuple(dict.fromkeys(values)) or ("",),
        requested_by=_string(fields.get("requested_by")),
        change=change,
    )


def _printable(step: str | int) -> str | int:
    # Errors are logged, and the name of an unknown field may contain user data.
    return step if isinstance(step, int) or _FIELD_NAME.fullmatch(step) else "*"


def _string(value: Any, pattern: str = "(?s).*") -> str | None:
    return value if isinstance(value, str) and re.fullmatch(pattern, value) else None
