"""A CSV file of changes with one row per member, validated as a whole before anything is sent."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from meibo.changes.messages import (
    ACTIONS,
    EMAIL,
    MAX_MEMBERS,
    VERSION,
    Change,
    InvalidChange,
    validate_change,
)
from meibo.errors import ConfigurationError
from meibo.formatting import format_count

# The limit of the queue (MaximumMessageSize in the template) minus space for the other fields of a message.
MAX_MEMBERS_BYTES: Final = 200_000
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
# The accepted column names, and the columns that they refer to.
COLUMNS: Final = {
    "organization": "organization",
    "organization_id": "organization",
    "org": "organization",
    "action": "action",
    "member": "member",
    "user": "member",
    "user_id": "member",
    "email": "member",
    "e-mail": "member",
    "roles": "roles",
}
REQUIRED: Final = ("organization", "action", "member")
# If the options for invitations are missing, this is reported once, and the rows are validated with these values.
_PLACEHOLDER: Final = {"client_id": "x", "inviter": "x"}

# A function that accepts an e-mail address and returns the ids of the users who have it.
FindUsers = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Row:
    """A row of the file. ``line`` is the number of its first line."""

    line: int
    organization: str
    action: str
    member: str = field(repr=False)
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class SheetFault:
    """An error in the file. ``line`` is 0 if the error does not belong to a line."""

    line: int
    problem: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}" if self.line else self.problem


@dataclass(frozen=True)
class Sheet:
    """The changes of a valid file."""

    changes: tuple[Change, ...]

    def count(self, action: str) -> int:
        """Return the number of members in the changes with this action."""
        return sum(len(change.members) for change in self.changes if change.action == action)


class SheetError(ConfigurationError):
    """The file has errors, so nothing was sent."""

    def __init__(self, faults: Sequence[SheetFault]) -> None:
        unique = sorted(dict.fromkeys(faults), key=lambda fault: fault.line)
        super().__init__(f"the file has {format_count(len(unique), 'error')}; nothing was sent")
        self.faults = tuple(str(fault) for fault in unique)


def read_sheet(
    path: Path, common: Mapping[str, Any], *, users: FindUsers, invitation: Mapping[str, Any] | None
) -> Sheet:
    """Read a CSV file (UTF-8, with a header) and return its changes. Raises SheetError with all errors.

    ``common`` contains the fields that all changes share (source, change_id, …). ``users`` looks up the e-mail address
    of a member to be added or removed. The address of a member to be invited is not looked up; it requires
    ``invitation``.
    """
    rows, faults = _rows(path)
    resolved = list(_resolved(rows, users, faults))
    faults += _duplicates(resolved)
    if invitation is None and any(row.action == "invite" for row in resolved):
        faults.append(SheetFault(0, "invitations require --client-id and --inviter"))
    for row in resolved:
        # The Lambda function validates changes in the same way. Here, each row is a separate change, so that each error
        # has the number of its line.
        faults += _faults(row.line, next(grouped_changes([row], common, invitation or _PLACEHOLDER)))
    changes: list[Change] = []
    if not faults:
        for change in grouped_changes(resolved, common, invitation):
            if isinstance(change, InvalidChange):
                faults += _faults(0, change)
            else:
                changes.append(change)
    if faults:
        raise SheetError(faults)
    return Sheet(tuple(changes))


def _faults(line: int, change: Change | InvalidChange) -> list[SheetFault]:
    faults = change.faults if isinstance(change, InvalidChange) else ()
    return [
        SheetFault(line, f"{fault.path.removeprefix('$.').replace('members[0]', 'member')}: {fault.problem}")
        for fault in faults
    ]


def _rows(path: Path) -> tuple[list[Row], list[SheetFault]]:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigurationError(f"{path.name}: expected at most {MAX_FILE_BYTES // 1024**2} MiB; split the file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path.name}: expected UTF-8, found an invalid byte at position {error.start}; save the file as CSV UTF-8"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    faults: list[SheetFault] = []
    rows: list[Row] = []
    try:
        header = _header(next(reader, []))
        line = reader.line_num + 1
        for values in reader:
            if any(value.strip() for value in values):
                row = _row(line, header, values, faults)
                rows += [row] if row else []
            line = reader.line_num + 1
    except csv.Error as error:
        raise SheetError([*faults, SheetFault(reader.line_num, str(error))]) from None
    if not rows and not faults:
        faults = [SheetFault(0, "expected at least one row below the header, found none")]
    return rows, faults


def _header(names: Sequence[str]) -> list[str]:
    header = [COLUMNS.get(name.strip().lower(), "") for name in names]
    problems = [
        f"column {number}: expected {_list(dict.fromkeys(COLUMNS.values()))}, found {name!r}"
        for number, name in enumerate(names, 1)
        if not header[number - 1]
    ]
    problems += [f"the column {name} is missing" for name in REQUIRED if name not in header]
    problems += [
        f"the column {name} appears more than once" for name in dict.fromkeys(header) if name and header.count(name) > 1
    ]
    if problems:
        raise SheetError([SheetFault(0, problem) for problem in problems])
    return header


def _list(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"


def _row(line: int, header: list[str], values: list[str], faults: list[SheetFault]) -> Row | None:
    if len(values) != len(header):
        faults.append(SheetFault(line, f"expected {len(header)} columns as in the header, found {len(values)}"))
        return None
    cells = {name: value.strip() for name, value in zip(header, values, strict=True)}
    action = cells["action"].lower()
    if action not in ACTIONS:
        faults.append(SheetFault(line, f"action: expected {_list(ACTIONS)}, found {cells['action']!r}"))
        return None
    roles = tuple(role for role in re.split(r"[;\s]+", cells.get("roles", "")) if role)
    return Row(line, cells["organization"], action, cells["member"], roles)


def _resolved(rows: Sequence[Row], users: FindUsers, faults: list[SheetFault]) -> Iterator[Row]:
    """Yield the rows, with the user id for each e-mail address that is to be added or removed."""
    for row in rows:
        if row.action == "invite" or "|" in row.member or not EMAIL.fullmatch(row.member):
            yield row
            continue
        ids = users(row.member)
        if len(ids) == 1:
            yield replace(row, member=ids[0])
        elif ids:
            problem = f"{len(ids)} users have this e-mail address; use one of the ids {', '.join(ids)}"
            faults.append(SheetFault(row.line, problem))
        else:
            problem = "no user has this e-mail address; invite the address, or use a user id"
            faults.append(SheetFault(row.line, problem))


def _duplicates(rows: Sequence[Row]) -> Iterator[SheetFault]:
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        earlier = first.setdefault((row.organization, row.member.casefold()), row)
        if earlier is not row:
            is_same = (earlier.action, earlier.roles) == (row.action, row.roles)
            reason = "is the same" if is_same else "has another action or other roles"
            yield SheetFault(
                row.line,
                f"expected one row per organization and member, but line {earlier.line} {reason}; keep one of them",
            )


def grouped_changes(
    rows: Sequence[Row], common: Mapping[str, Any], invitation: Mapping[str, Any] | None
) -> Iterator[Change | InvalidChange]:
    """Yield the changes of the rows. Rows with the same organization, action and roles are combined."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for row in rows:
        groups.setdefault((row.organization, row.action, row.roles), []).append(row.member)
    for (organization, action, roles), members in groups.items():
        for portion in _portions(members):
            change = {
                "version": VERSION,
                **common,
                "organization_id": organization,
                "action": action,
                "members": portion,
            }
            if roles:
                change["roles"] = list(roles)
            if action == "invite":
                change["invitation"] = dict(invitation or {})
            if action == "remove":
                change["confirm_removals"] = len(portion)
            yield validate_change(change)


def _portions(members: Sequence[str]) -> Iterator[list[str]]:
    portion: list[str] = []
    size = 0
    for member in members:
        length = len(json.dumps(member, ensure_ascii=False).encode()) + 1
        if portion and (len(portion) == MAX_MEMBERS or size + length > MAX_MEMBERS_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(member)
        size += length
    yield portion
