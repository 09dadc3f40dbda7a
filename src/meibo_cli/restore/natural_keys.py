"""Match archived objects to objects of the tenant by id, by name or e-mail address, or with an edited mapping file."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from meibo.errors import ConfigurationError
from meibo_cli.files import new_file
from meibo_cli.restore.archived_rows import DatasetRows
from meibo_cli.terminal import spreadsheet_text, spreadsheet_writer

MAPPING: Final = "mapping.csv"
_COLUMNS: Final = ["kind", "archived_id", "name", "target_id"]

MappedKind = Literal["role", "organization", "connection", "user"]


@dataclass(frozen=True)
class Match:
    """The object of the tenant that corresponds to an archived object.

    ``target`` is its id, or None if it does not exist. ``certain`` is true if the ids are equal, or if an operator
    chose the id.
    """

    state: Literal["found", "missing", "conflict", "impossible"]
    target: str | None = field(default=None, repr=False)
    reason: str = ""
    certain: bool = False


@dataclass
class IdMapping:
    """The ids that an operator chose and the ids that were found, by kind and archived id."""

    chosen: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)
    found: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: Path) -> IdMapping:
        """Return the mapping in a file that ``write`` created. Rows without a target id are ignored.

        Raises ConfigurationError if the file is invalid.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.reader(file)
                header = next(rows, None)
                cells = [[spreadsheet_text(cell.strip()) for cell in row] for row in rows if row]
        except FileNotFoundError:
            raise ConfigurationError(f"--mapping: the file {path} does not exist") from None
        except (UnicodeDecodeError, csv.Error):
            raise ConfigurationError(
                f"--mapping: expected CSV in UTF-8 in {path}, found another format; save the file as CSV UTF-8"
            ) from None
        if header != _COLUMNS or any(len(row) != len(_COLUMNS) for row in cells):
            raise ConfigurationError(
                f"--mapping: expected the columns {', '.join(_COLUMNS)} in each row of {path}; edit a copy of {MAPPING}"
                " of an earlier plan"
            )
        return cls({(kind, archived): target for kind, archived, _, target in cells if target})

    def add(self, kind: MappedKind, archived_id: str, name: str, match: Match) -> Match:
        """Add a match to the mapping and return it."""
        self.found[kind, archived_id] = (name, match.target or "")
        return match

    def target(self, kind: MappedKind, archived_id: str, known: Iterable[str]) -> str | None:
        """Return the id that the operator chose for an object, or None.

        Raises ConfigurationError if the id is not one of the ``known`` ids of the tenant.
        """
        target = self.chosen.get((kind, archived_id))
        if target is not None and target not in known:
            raise ConfigurationError(
                f"--mapping: the tenant has no {kind} with the target id in the row of {archived_id}; correct the id"
            )
        return target

    def write(self, path: Path) -> None:
        """Write the mapping as a new CSV file."""
        with new_file(path) as file:
            text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
            write = spreadsheet_writer(text, is_terminal=False)
            write(_COLUMNS)
            for (kind, archived_id), (name, target) in self.found.items():
                write((kind, archived_id, name, target))
            text.detach()


class NameMatcher:
    """Matches roles, organizations or connections by id or by name."""

    def __init__(self, kind: MappedKind, live: Iterable[Mapping[str, Any]], mapping: IdMapping) -> None:
        self._kind = kind
        self._mapping = mapping
        self.by_id = {str(row["id"]): row for row in live}
        self._ids_by_name: defaultdict[str, list[str]] = defaultdict(list)
        for identity, row in self.by_id.items():
            self._ids_by_name[str(row.get("name"))].append(identity)

    def match(self, archived_id: str, name: str | None) -> Match:
        """Return the match of an object. If several objects of the tenant have the name, the match is a conflict."""
        return self._mapping.add(self._kind, archived_id, name or "", self._match(archived_id, name))

    def _match(self, archived_id: str, name: str | None) -> Match:
        chosen = self._mapping.target(self._kind, archived_id, self.by_id)
        if chosen is not None or archived_id in self.by_id:
            return Match("found", chosen or archived_id, certain=True)
        if name is None:
            return Match("impossible", reason=f"the archive does not contain the name of this {self._kind}")
        ids = self._ids_by_name.get(name, [])
        if len(ids) > 1:
            return Match("conflict", reason=f"the tenant has {len(ids)} {self._kind}s with this name")
        return (
            Match("found", ids[0])
            if ids
            else Match("missing", reason=f"the tenant has no {self._kind} with this id or name")
        )


class UserMatcher:
    """Matches users by id, or by connection and e-mail address.

    ``connections`` maps the names of archived connections to their names in the tenant, if they differ.
    """

    def __init__(
        self, archive: DatasetRows, live: DatasetRows, mapping: IdMapping, connections: Mapping[str, str]
    ) -> None:
        self._archive = archive
        self._live = live
        self._mapping = mapping
        self._connections = connections
        self._ids = {user.user_id for user in live.users()}
        self._matches: dict[str, Match] = {}

    def match(self, user_id: str) -> Match:
        """Return the match of a user."""
        if user_id in self._ids and ("user", user_id) not in self._mapping.chosen:
            return Match("found", user_id, certain=True)
        if user_id not in self._matches:
            self._matches[user_id] = self._mapping.add("user", user_id, "", self._match(user_id))
        return self._matches[user_id]

    def _match(self, user_id: str) -> Match:
        chosen = self._mapping.target("user", user_id, self._ids)
        if chosen is not None:
            return Match("found", chosen, certain=True)
        connection, email = self._archived.get(user_id, (None, None))
        if connection is None or email is None:
            return Match(
                "impossible",
                reason="the tenant has no user with this id, and no users export of the run contains the connection and"
                " the e-mail address of the user",
            )
        ids = self._live_ids.get((self._connections.get(connection, connection), email), [])
        if len(ids) > 1:
            return Match("conflict", reason=f"the tenant has {len(ids)} users with this connection and e-mail address")
        if not ids:
            return Match("impossible", reason="the tenant has no user with this id or e-mail address")
        return Match("found", ids[0])

    @cached_property
    def _archived(self) -> dict[str, tuple[str | None, str | None]]:
        """The connections and e-mail addresses of the archived users whose ids do not exist in the tenant."""
        users = (user for user in self._archive.users() if user.user_id not in self._ids)
        return {user.user_id: (user.connection, user.email) for user in users}

    @cached_property
    def _live_ids(self) -> Mapping[tuple[str | None, str | None], list[str]]:
        ids: defaultdict[tuple[str | None, str | None], list[str]] = defaultdict(list)
        for user in self._live.users():
            ids[user.connection, user.email].append(user.user_id)
        return ids
