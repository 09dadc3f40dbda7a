"""Compare the users in import files with the users of the tenant before the import.

Only users who would be created or updated remain in the files. ``preview.csv`` contains the state of each user.
"""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import typer

from meibo.formatting import format_count, format_number
from meibo_cli.comparison import Comparison
from meibo_cli.encoding import parse_row, parse_written_object
from meibo_cli.files import new_file
from meibo_cli.restore.auth0_target import has_values
from meibo_cli.restore.directory_plan import STATES, State
from meibo_cli.restore.import_files import ImportFiles, user_id_of
from meibo_cli.restore.import_schema import IMPORTABLE, PREFIX, UPDATED, SkipReason
from meibo_cli.restore.live_users import ADDRESSES, LINKED, LiveUsers, addresses_of
from meibo_cli.rows import RowFile
from meibo_cli.terminal import Column, TextConsole, escape_control_characters, print_table, spreadsheet_writer

PREVIEW: Final = "preview.csv"
_CONFLICTS: Final = {
    "email": "e-mail address of another user",
    "username": "username of another user",
    "phone_number": "phone number of another user",
}
# An update replaces this field, but an export does not contain it.
_HASH: Final = "custom_password_hash"
# The states of users who were compared with the tenant before. All other skipped users cannot be imported.
_SKIPPED_STATES: Final[Mapping[SkipReason, State]] = {
    "already restored": "same",
    "changed since the expected run": "conflict",
}


@dataclass(frozen=True)
class UserState:
    """The state of an archived user in the tenant. ``fields`` are the fields that an update changes."""

    state: State
    fields: tuple[str, ...] = ()
    reason: str = ""

    def is_imported(self, *, upsert: bool) -> bool:
        """Return whether the user is imported."""
        return self.state == "create" or (self.state == "differs" and upsert)


@dataclass
class UserPreview:
    """The numbers of users by state, and by state and reason if users cannot be imported."""

    upsert: bool
    counts: Counter[State] = field(default_factory=Counter)
    reasons: Counter[tuple[State, str]] = field(default_factory=Counter)

    @property
    def has_findings(self) -> bool:
        """True if at least one user cannot be restored."""
        return bool(self.counts["conflict"] or self.counts["impossible"])

    def add(self, user: UserState) -> None:
        """Count a user."""
        self.counts[user.state] += 1
        if user.reason:
            self.reasons[user.state, user.reason] += 1

    def print(self) -> None:
        """Print the numbers of users and the reasons."""
        columns = [Column("object"), *(Column(state, number=True) for state in STATES)]
        print_table(TextConsole(), columns, [["users", *(format_number(self.counts[state]) for state in STATES)]])
        for (state, reason), count in self.reasons.most_common():
            typer.echo(escape_control_characters(f"  {state}, {format_count(count, 'user')}: {reason}"))
        if self.counts["differs"] and not self.upsert:
            typer.echo("users who differ are not changed without --upsert")


@dataclass(frozen=True)
class ComparedFields:
    """The fields of users that are compared with the tenant.

    ``names`` are the fields of the export that an import accepts, and ``compared`` are the fields to restore.
    ``partial`` is the metadata that the export contains only in part.
    """

    names: tuple[str, ...]
    compared: frozenset[str]
    partial: frozenset[str]

    @classmethod
    def of_export(cls, names: Collection[str], only: Collection[str]) -> Self:
        """Return the fields of an export. If ``only`` is not empty, only these fields are compared."""
        roots = [root for root in dict.fromkeys(name.partition(".")[0] for name in names) if root in IMPORTABLE]
        return cls(tuple(roots), frozenset(only or roots), frozenset(roots) - set(names))

    def changed(self, user: Mapping[str, Any], live: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the fields of a user in an import file that have other values in the tenant.

        If the account is linked to another user, the only field is ``linked_to``.
        """
        if LINKED in live:
            return (LINKED,)
        differs = [name for name in user if name in self.compared and not self._has_value(live, user, name)]
        return (*differs, _HASH) if _HASH in user else tuple(differs)

    def _has_value(self, live: Mapping[str, Any], user: Mapping[str, Any], name: str) -> bool:
        if name in self.partial:
            return _contains(live.get(name), user[name])
        return has_values(live, user, (name,))


def _contains(value: Any, part: Any) -> bool:
    if isinstance(part, dict):
        values = value if isinstance(value, dict) else {}
        return all(_contains(values.get(name), part[name]) for name in part)
    return (value or None) == (part or None)


def preview_users(
    written: ImportFiles, fields: ComparedFields, live: LiveUsers | None, *, id_column: str, upsert: bool
) -> UserPreview:
    """Write ``preview.csv``, and remove from the files the users who would not be created or updated.

    ``id_column`` is the name of the user id in the export. If ``live`` is None, all users in the files differ, because
    they were compared with the tenant before.
    """
    states = {} if live is None else _states(written, fields, live)
    default = UserState("differs", tuple(sorted(fields.compared))) if live is None else UserState("same")
    preview = UserPreview(upsert)
    with new_file(written.folder / PREVIEW) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        write = spreadsheet_writer(text, is_terminal=False)
        write(("user_id", "action", "fields", "reason"))

        def add(user_id: str, user: UserState) -> None:
            preview.add(user)
            write((user_id, user.state, " ".join(user.fields), user.reason))

        def is_imported(line: bytes) -> bool:
            user_id = user_id_of(line)
            user = states.get(user_id, default)
            add(PREFIX + user_id, user)
            return user.is_imported(upsert=upsert)

        written.select(is_imported)
        for reason, path in written.skipped_files.items():
            # The restore does not include users of other connections.
            if reason != "another connection":
                user = UserState(_SKIPPED_STATES.get(reason, "impossible"), reason=reason)
                for user_id in _user_ids(path, id_column):
                    add(user_id, user)
        text.detach()
    return preview


def _user_ids(path: Path, column: str) -> Iterator[str]:
    with path.open("rb") as file:
        for line in file:
            yield str((parse_row(line) or {}).get(column) or "")


def _states(written: ImportFiles, fields: ComparedFields, live: LiveUsers) -> dict[str, UserState]:
    """Return the states of users who differ from the tenant, by user id without its prefix."""
    states, create = dict[str, UserState](), UserState("create")
    # The fields whose value differs from the value in the tenant, and could be the address of another user.
    new_addresses: dict[str, Collection[str]] = {}
    with tempfile.TemporaryDirectory(prefix="meibo-restore-") as name:
        folder = Path(name)
        archived = RowFile(folder / "archived.ndjson", ("user_id",))
        with archived.path.open("xb") as file:
            file.writelines(line + b"\n" for line in written.lines())
        users = RowFile(live.path, ("user_id",))
        comparison = Comparison(archived, users, folder, blank_is_null=False, changed_fields=fields.changed)
        for change in comparison.changes():
            if change.kind == "removed":
                states[change.key], new_addresses[change.key] = create, ADDRESSES
            elif change.kind == "changed":
                states[change.key] = _state(change.fields)
                if changed := set(ADDRESSES).intersection(change.fields):
                    new_addresses[change.key] = changed
    for user_id, name in _taken_addresses(written, new_addresses, live):
        states[user_id] = UserState("conflict", reason=_CONFLICTS[name])
    return states


def _state(fields: tuple[str, ...]) -> UserState:
    """Return the state of a user who has other values in these fields in the tenant."""
    if fields == (LINKED,):
        return UserState("conflict", reason="account is linked to another user")
    updated = tuple(name for name in fields if name in UPDATED or name == _HASH)
    if updated:
        return UserState("differs", updated)
    return UserState("impossible", reason=f"an import does not change {', '.join(fields)}")


def _taken_addresses(
    written: ImportFiles, new_addresses: Mapping[str, Collection[str]], live: LiveUsers
) -> Iterator[tuple[str, str]]:
    """Yield the id of each user in the files with an address of another user of the tenant, and the field."""
    users: dict[tuple[str, str], str] = {}
    for line in written.lines() if new_addresses else ():
        user_id = user_id_of(line)
        if names := new_addresses.get(user_id):
            addresses = addresses_of(parse_written_object(line))
            users |= {(name, value): user_id for name, value in addresses if name in names}
    for (name, value), owner in live.owners(users).items():
        if owner != users[name, value]:
            yield users[name, value], name
