"""Convert an archived users export of Auth0 into files for ``POST /jobs/users-imports``."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from meibo.errors import ConfigurationError
from meibo_cli.encoding import json_bytes, parse_written_object
from meibo_cli.files import new_folder
from meibo_cli.restore.archived_rows import UnreadableUser
from meibo_cli.restore.auth0_imports import MAX_FILE_BYTES
from meibo_cli.restore.import_schema import Converter, Skipped, SkipReason, UserSecrets
from meibo_cli.restore.user_selection import ALL_USERS, UserSelection

_MAX_CONNECTIONS_SHOWN = 10
# JSON escapes newlines in strings, so the separator occurs only between users.
_SEPARATOR = b",\n"
_USER_ID = re.compile(rb'\{"user_id":"([^"\\]*)"')
# The fields by which an import finds an existing user.
_KEYS = ("user_id", "email")
# Auth0 accepts some larger profiles, up to about ten times this limit, and rejects others with PROFILE_SIZE_EXCEEDED:
# https://auth0.com/docs/troubleshoot/product-lifecycle/deprecations-and-migrations/migrate-oversized-user-profiles
MAX_PROFILE_BYTES = 10 * 1024


def is_too_large(line: bytes) -> bool:
    """Return whether a line of JSON with one user is larger than the maximum size of a file."""
    return len(line) + 4 > MAX_FILE_BYTES


@dataclass
class ImportFiles:
    """The files that were written, and the numbers of written and skipped users."""

    folder: Path
    files: dict[Path, int] = field(default_factory=dict)
    """The number of users by file."""
    users: int = 0
    skipped: Skipped = field(default_factory=Skipped)
    skipped_files: dict[SkipReason, Path] = field(default_factory=dict)
    connections: Counter[str] = field(default_factory=Counter)
    not_found: list[str] = field(default_factory=list)
    large_profiles: int = 0
    """The number of users whose profile is larger than 10 KB."""
    with_secrets: int = 0
    """The number of users with a password hash or MFA factors."""

    def lines(self) -> Iterator[bytes]:
        """Yield the users in the files as lines of JSON."""
        for path in self.files:
            yield from _lines(path)

    def select(self, is_selected: Callable[[bytes], bool]) -> None:
        """Write the files again, with the selected lines only."""
        old, self.files, self.users = list(self.files), {}, 0
        pack = _Pack(self)
        for path in old:
            lines = _lines(path)
            # At most as many new files are written as old files were read, so no unread file is overwritten.
            path.unlink()
            for line in filter(is_selected, lines):
                pack.add(line)
        pack.close()
        self.write_report()

    def write_report(self) -> None:
        """Write ``report.json``."""
        report = json.dumps(self.to_json(), ensure_ascii=False, indent=2) + "\n"
        (self.folder / "report.json").write_bytes(report.encode("utf-8", "backslashreplace"))

    def to_json(self) -> dict[str, Any]:
        """Return the document ``report.json``, which contains numbers of users and names of fields."""
        return {
            "users": self.users,
            "files": [path.name for path in self.files],
            "users_skipped": dict(self.skipped.users),
            "fields_removed": dict(self.skipped.fields),
            "losses": {loss: count for loss, count in self.skipped.losses.items() if count},
            "connections": dict(self.connections),
            "selected_but_not_found": len(self.not_found),
            "profiles_larger_than_10_kb": self.large_profiles,
            "with_password_hash_or_mfa_factors": self.with_secrets,
        }


def write_files(
    rows: Iterator[Mapping[str, Any] | UnreadableUser],
    folder: Path,
    *,
    names: Mapping[str, str],
    text_only: bool,
    connection: str | None = None,
    selection: UserSelection = ALL_USERS,
    skip_reason: Callable[[Mapping[str, Any]], SkipReason | None] = lambda _: None,
    secrets: Mapping[str, UserSecrets] = MappingProxyType({}),
) -> ImportFiles:
    """Write users to numbered files (``users-0001.json``) in a new folder, and skipped users to one file per reason.

    If the selection has fields, only these fields, the id and the e-mail address of each user are written.
    ``skip_reason`` returns the reason why a user is skipped, or None. ``secrets`` maps user ids without the prefix
    ``auth0|`` to additional fields.

    Raises ConfigurationError if ``connection`` is specified, but the export does not contain the connections of users,
    or none of the selected users belongs to this connection. In both cases, no folder remains.
    """
    if connection is not None and not {"identities", "identities[0].connection"} & names.keys():
        raise ConfigurationError(
            "--only-connection: the export does not contain the connections of users; use an export with the field"
            " identities"
        )
    written = ImportFiles(new_folder(folder))
    converter = Converter(
        names=names,
        text_only=text_only,
        skipped=written.skipped,
        connection=connection,
        connections=written.connections,
    )
    keys = selection.names if selection.ids is None else selection.ids
    pending, is_filtered = set(keys), bool(keys)
    is_selected = (_selector if selection.ids is None else _id_selector)(names, keys, pending)
    pack = _Pack(written)
    with ExitStack() as stack:
        files: dict[SkipReason, IO[bytes]] = {}

        def skip(reason: SkipReason, line: bytes) -> None:
            written.skipped.users[reason] += 1
            if reason not in files:
                path = folder / f"skipped-{reason.replace(' ', '-')}.ndjson"
                files[reason] = stack.enter_context(path.open("xb"))
                written.skipped_files[reason] = path
            files[reason].write(line.rstrip(b"\r\n") + b"\n")

        for row in rows:
            if isinstance(row, UnreadableUser):
                if not is_filtered or any(name.encode() in row.line for name in keys):
                    skip(row.reason, row.line)
                continue
            if is_filtered and not is_selected(row):
                continue
            user = converter.convert(row)
            if not isinstance(user, dict):
                skip(user, json_bytes(row))
            elif reason := skip_reason(user):
                skip(reason, json_bytes(row))
            else:
                user_secrets = secrets.get(user["user_id"], {})
                line = profile = json_bytes(user)
                if selection.fields or user_secrets:
                    line = json_bytes({**_only(user, selection.fields), **user_secrets})
                if pack.add(line):
                    written.large_profiles += len(profile) > MAX_PROFILE_BYTES
                    written.with_secrets += bool(user_secrets)
                else:
                    skip("too large", json_bytes(row))
        pack.close()
    if connection is not None and connection not in written.connections:
        shutil.rmtree(folder)
        found = ", ".join(sorted(written.connections)[:_MAX_CONNECTIONS_SHOWN]) or "none"
        raise ConfigurationError(
            f"--only-connection: expected the name of a database connection of the {'selected ' * is_filtered}users,"
            f" one of: {found}; found no user of {connection!r}"
        )
    written.not_found = sorted(pending)
    written.write_report()
    return written


def _selector(
    names: Mapping[str, str], selected: frozenset[str], pending: set[str]
) -> Callable[[Mapping[str, Any]], bool]:
    """Return a function that checks whether a row is selected, and removes its names from ``pending``."""
    folded = {name.casefold(): name for name in selected}
    columns = [names[name] for name in ("user_id", "email", "username") if name in names]

    def is_selected(row: Mapping[str, Any]) -> bool:
        hits = {
            folded[value.casefold()]
            for name in columns
            if isinstance(value := row.get(name), str) and value.casefold() in folded
        }
        pending.difference_update(hits)
        return bool(hits)

    return is_selected


def _id_selector(
    names: Mapping[str, str], ids: frozenset[str], pending: set[str]
) -> Callable[[Mapping[str, Any]], bool]:
    """Return a function that checks whether a row has one of the ids, and removes the id from ``pending``."""

    def is_selected(row: Mapping[str, Any]) -> bool:
        user_id = row.get(names["user_id"])
        if user_id not in ids:
            return False
        pending.discard(str(user_id))
        return True

    return is_selected


def _only(user: dict[str, Any], fields: Collection[str]) -> dict[str, Any]:
    return {name: user[name] for name in user if name in fields or name in _KEYS} if fields else user


def user_id_of(line: bytes) -> str:
    """Return the id in a line of an import file. Most ids are found without parsing the line."""
    match = _USER_ID.match(line)
    return match[1].decode() if match else str(parse_written_object(line)["user_id"])


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes()[1:-1].split(_SEPARATOR)


class _Pack:
    """Writes users to files of the size that an import accepts."""

    def __init__(self, written: ImportFiles) -> None:
        self._written = written
        self._lines: list[bytes] = []
        self._bytes = 2

    def add(self, line: bytes) -> bool:
        """Add a user, or return False if the user is too large for a file."""
        if is_too_large(line):
            return False
        # The separator has two bytes per user, and the file starts and ends with a bracket.
        if self._bytes + len(line) + 2 > MAX_FILE_BYTES:
            self.close()
        self._lines.append(line)
        self._bytes += len(line) + 2
        self._written.users += 1
        return True

    def close(self) -> None:
        """Write the users that were added since the last file was written."""
        if not self._lines:
            return
        path = self._written.folder / f"users-{len(self._written.files) + 1:04d}.json"
        with path.open("xb") as file:
            file.write(b"[" + _SEPARATOR.join(self._lines) + b"]")
        self._written.files[path] = len(self._lines)
        self._lines, self._bytes = [], 2
