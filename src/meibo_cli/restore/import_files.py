"""Write an archived Auth0 users export as files that ``POST /jobs/users-imports`` accepts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from meibo.errors import ConfigurationError
from meibo.providers.auth0.imports import MAX_FILE_BYTES
from meibo_cli.encoding import json_bytes
from meibo_cli.restore.import_schema import Apart, Converter, LeftOut, connections

_MAX_CONNECTIONS = 100
# Python reads and writes JSON of a thousand levels at most, and whoever may edit their own metadata may nest it deeper.
_MAX_NESTING = 500


@dataclass(frozen=True)
class UnreadableUser:
    """A user whose line cannot be read here, and by no import."""

    reason: Apart
    line: bytes = field(repr=False)


def too_deep(line: bytes) -> bool:
    """Tell whether a line of JSON may be nested too deeply; brackets within texts count too."""
    if line.count(b"{") + line.count(b"[") <= _MAX_NESTING:
        return False
    levels = accumulate(1 if match[0] in b"[{" else -1 for match in re.finditer(rb"[\[{\]}]", line))
    return max(levels) > _MAX_NESTING


@dataclass
class ImportFiles:
    """What was written."""

    folder: Path
    files: list[Path] = field(default_factory=list)
    users: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    connections: Counter[str] = field(default_factory=Counter)
    not_found: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the form that is written beside the files: counts and names of fields."""
        return {
            "users": self.users,
            "files": [path.name for path in self.files],
            "users_apart": dict(self.left_out.users),
            "fields_left_out": dict(self.left_out.fields),
            "connections": dict(self.connections),
            "selected_but_not_found": len(self.not_found),
        }


def write_files(
    rows: Iterator[Mapping[str, Any] | UnreadableUser],
    folder: Path,
    *,
    names: Mapping[str, str],
    text_only: bool,
    connection: str | None = None,
    selected: Collection[str] = (),
) -> ImportFiles:
    """Write ``users-0001.json`` and so on into a new folder; users who cannot be imported go to files apart."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConfigurationError(
            f"{folder} is there already and is not overwritten; name another with --output"
        ) from None
    written = ImportFiles(folder)
    converter = Converter(names=names, text_only=text_only, left_out=written.left_out, connection=connection)
    pending = set(selected)
    chosen = _selector(names, frozenset(selected), pending)
    pack = _Pack(written)
    with _Aparts(folder) as apart:
        for row in rows:
            if isinstance(row, UnreadableUser):
                if not selected or any(name.encode() in row.line for name in selected):
                    written.left_out.users[row.reason] += 1
                    apart.write(row.reason, row.line)
                continue
            if selected and not chosen(row):
                continue
            fields = {name: row.get(output) for name, output in names.items()}
            for name in set(connections(fields)):
                written.connections[name if len(written.connections) < _MAX_CONNECTIONS else "(others)"] += 1
            user = converter.convert(row)
            if isinstance(user, dict) and not pack.add(user):
                user = "too large for a file"
            if isinstance(user, str):
                written.left_out.users[user] += 1
                apart.write(user, json_bytes(row))
        pack.close()
    written.not_found = sorted(pending)
    report = json.dumps(written.to_json(), ensure_ascii=False, indent=2) + "\n"
    (folder / "report.json").write_bytes(report.encode("utf-8", "backslashreplace"))
    return written


def _selector(
    names: Mapping[str, str], wanted: frozenset[str], pending: set[str]
) -> Callable[[Mapping[str, Any]], bool]:
    folded = {name.casefold(): name for name in wanted}
    columns = [names[name] for name in ("user_id", "email", "username") if name in names]

    def chosen(row: Mapping[str, Any]) -> bool:
        hits = {
            folded[value.casefold()]
            for name in columns
            if isinstance(value := row.get(name), str) and value.casefold() in folded
        }
        pending.difference_update(hits)
        return bool(hits)

    return chosen


class _Pack:
    """Fills files up to the largest size that an import takes."""

    def __init__(self, written: ImportFiles) -> None:
        self._written = written
        self._lines: list[bytes] = []
        self._bytes = 2

    def add(self, user: Mapping[str, Any]) -> bool:
        line = json_bytes(user)
        if len(line) + 4 > MAX_FILE_BYTES:
            return False
        # A comma and a line end for each user, a bracket at each end.
        if self._bytes + len(line) + 2 > MAX_FILE_BYTES:
            self.close()
        self._lines.append(line)
        self._bytes += len(line) + 2
        self._written.users += 1
        return True

    def close(self) -> None:
        if not self._lines:
            return
        path = self._written.folder / f"users-{len(self._written.files) + 1:04d}.json"
        with path.open("xb") as file:
            file.write(b"[" + b",\n".join(self._lines) + b"]")
        self._written.files.append(path)
        self._lines, self._bytes = [], 2


class _Aparts:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> _Aparts:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def write(self, reason: Apart | str, line: bytes) -> None:
        name = f"apart-{reason.replace(' ', '-').replace('-a-', '-')}.ndjson"
        if name not in self._files:
            self._files[name] = (self._folder / name).open("xb")
        self._files[name].write(line.rstrip(b"\r\n") + b"\n")
