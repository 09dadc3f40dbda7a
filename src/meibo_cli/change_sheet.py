"""The file in which people list changes: one row a member, checked as a whole before anything is sent."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from meibo.changes.messages import ACTIONS, EMAIL, MAX_MEMBERS, VERSION, parse_change
from meibo.errors import ConfigurationError

# What the queue takes of a message, less what surrounds the ids (see MaximumMessageSize in the template).
MAX_MEMBERS_BYTES: Final = 200_000
MAX_BYTES: Final = 64 * 1024 * 1024
# How people call the columns.
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

# Returns the user ids of an e-mail address.
FindUsers = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Row:
    """One row; ``line`` is where it begins in the file."""

    line: int
    organization: str
    action: str
    member: str = field(repr=False)
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A file without a fault: the changes that it asks for."""

    changes: tuple[Mapping[str, Any], ...]

    def count(self, action: str) -> int:
        """Return how many members an action is about."""
        return sum(len(change["members"]) for change in self.changes if change["action"] == action)


class SheetError(ConfigurationError):
    """The file has faults; nothing of it is sent."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(f"the file has {len(faults)} faults, and nothing of it was sent")
        self.faults = tuple(faults)


def read_sheet(
    path: Path, common: Mapping[str, Any], *, users: FindUsers, invitation: Mapping[str, Any] | None
) -> Sheet:
    """Read a CSV file (UTF-8, with a header) and return its changes, raising SheetError with every fault.

    ``common`` is what all changes say (source, change_id, …). ``users`` finds the user of an address that is to be
    added or removed; an address that is to be invited stays as it is, and needs ``invitation``.
    """
    rows, faults = _rows(path)
    resolved = list(_resolved(rows, users, faults))
    faults += _contradictions(resolved)
    if invitation is None and any(row.action == "invite" for row in resolved):
        faults.append("who is invited needs --client-id and --inviter")
    for row in resolved:
        # The same check as on the other side of the queue, a row at a time, so that a fault has its line.
        (change,) = _changes([row], common, invitation or _PLACEHOLDER)
        reading = parse_change(json.dumps(change), max_removals=MAX_MEMBERS)
        faults += [f"line {row.line}: {_COLUMN.sub(r'', str(fault))}" for fault in reading.faults]
    if faults:
        raise SheetError(sorted(dict.fromkeys(faults), key=_line_of))
    return Sheet(tuple(_changes(resolved, common, invitation)))


# Stands where an invitation is missing, which is told once and not at each line.
_PLACEHOLDER: Final = {"client_id": "x", "inviter": "x"}
_COLUMN: Final = re.compile(r"^\$\.|(?<=members)\[0\]")


def _line_of(fault: str) -> int:
    found = re.match(r"line (\d+):", fault)
    return int(found[1]) if found else 0


def _rows(path: Path) -> tuple[list[Row], list[str]]:
    if path.stat().st_size > MAX_BYTES:
        raise ConfigurationError(f"{path.name} is larger than {MAX_BYTES // 1024**2} MiB; split it")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path.name} is not UTF-8 (at byte {error.start}); save it as CSV UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    faults: list[str] = []
    rows: list[Row] = []
    try:
        header = [COLUMNS.get(name.strip().lower(), "") for name in next(reader, [])]
        wrong = [f"column {number + 1} has an unknown name" for number, name in enumerate(header) if not name]
        wrong += [f"there is no column {name}" for name in REQUIRED if name not in header]
        wrong += [f"there are two columns for {name}" for name in set(header) - {""} if header.count(name) > 1]
        if wrong:
            raise SheetError(wrong)
        line = reader.line_num + 1
        for values in reader:
            if any(value.strip() for value in values):
                row = _row(line, header, values, faults)
                rows += [row] if row else []
            line = reader.line_num + 1
    except csv.Error as error:
        raise SheetError([*faults, f"line {reader.line_num}: {error}"]) from None
    if not rows and not faults:
        faults = ["there is no row"]
    return rows, faults


def _row(line: int, header: list[str], values: list[str], faults: list[str]) -> Row | None:
    if len(values) != len(header):
        faults.append(f"line {line}: has {len(values)} columns, the header has {len(header)}")
        return None
    found = {name: value.strip() for name, value in zip(header, values, strict=True)}
    action = found["action"].lower()
    if action not in ACTIONS:
        faults.append(f"line {line}: the action must be add, remove or invite")
        return None
    roles = tuple(role for role in re.split(r"[;\s]+", found.get("roles", "")) if role)
    return Row(line, found["organization"], action, found["member"], roles)


def _resolved(rows: Sequence[Row], users: FindUsers, faults: list[str]) -> Iterator[Row]:
    for row in rows:
        if row.action == "invite" or "|" in row.member or not EMAIL.fullmatch(row.member):
            yield row
            continue
        found = users(row.member)
        if len(found) == 1:
            yield Row(row.line, row.organization, row.action, found[0], row.roles)
        elif found:
            faults.append(f"line {row.line}: {len(found)} users have this address; give one id: {', '.join(found)}")
        else:
            faults.append(f"line {row.line}: no user has this address; invite the person, or give a user id")


def _contradictions(rows: Sequence[Row]) -> Iterator[str]:
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        earlier = first.setdefault((row.organization, row.member.casefold()), row)
        if earlier is not row:
            same = (earlier.action, earlier.roles) == (row.action, row.roles)
            yield f"line {row.line}: {'repeats' if same else 'contradicts'} line {earlier.line}"


def _changes(
    rows: Sequence[Row], common: Mapping[str, Any], invitation: Mapping[str, Any] | None
) -> Iterator[Mapping[str, Any]]:
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
            yield change


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
