"""Read the rows of exported users, roles, organizations and memberships."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from meibo.archive.manifest import ArchivedExport, ExportManifest
from meibo.archive.runs import Run
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError, WrongFormatError
from meibo.providers import column_names
from meibo.providers.auth0.datasets import USERS
from meibo_cli.download import download
from meibo_cli.encoding import (
    NumberOutOfRangeError,
    json_bytes,
    open_decompressed,
    parse_json,
    parse_row,
    parse_simple_object,
    readable_json,
    readable_text,
)
from meibo_cli.restore.import_schema import SkipReason, primary_connection
from meibo_cli.rows import csv_rows

# Python's JSON decoder supports about 1,000 levels. The metadata of a user can be nested deeper.
_MAX_NESTING = 500


@dataclass(frozen=True)
class UnreadableUser:
    """A line of an export that is not a valid user."""

    reason: SkipReason
    line: bytes = field(repr=False)


@dataclass(frozen=True)
class ArchivedUsers:
    """The rows of a users export, which was downloaded to ``path``.

    ``names`` maps the name of a field in Auth0 to its name in the file. If ``text_only`` is true, all values are
    strings, as in a CSV file.
    """

    path: Path
    names: Mapping[str, str]
    text_only: bool
    rows: Iterator[Mapping[str, Any] | UnreadableUser]

    def check(self, fields: Collection[str], *, upsert: bool) -> None:
        """Raise ConfigurationError if the export does not contain the fields.

        With ``upsert`` and without fields, also raise it if the export contains only parts of the metadata, because an
        update replaces all metadata.
        """
        if missing := sorted(set(fields) - self.names.keys()):
            raise ConfigurationError(
                f"--only-fields: the export does not contain {', '.join(missing)}; use other fields or another export"
            )
        roots = [root for root in ("user_metadata", "app_metadata") if root not in self.names]
        parts = sorted(name for name in self.names if name.startswith(tuple(f"{root}." for root in roots)))
        if upsert and not fields and parts:
            raise ConfigurationError(
                f"--upsert replaces all metadata of a user, but the export contains only {', '.join(parts[:5])}; use an"
                " export with complete metadata, or --no-upsert"
            )


@contextmanager
def archived_users(reader: ArchiveReader, export: ArchivedExport) -> Iterator[ArchivedUsers]:
    """Download a users export and yield its rows.

    Raises ConfigurationError if the export does not contain the ids and the e-mail addresses of users.
    """
    manifest = ExportManifest.read(reader, export.manifest_key)
    names = dict(column_names("auth0", "users", export.folder.address.format, manifest.request if manifest else {}))
    if "user_id" not in names or "email" not in names:
        raise ConfigurationError(
            f"{export.export_id}: expected the fields user_id and email, which an import requires; add them"
            " to the export and start a new run"
        )
    with tempfile.TemporaryDirectory(prefix="meibo-restore-") as folder:
        path = Path(folder) / "export"
        download(reader, export, path)
        text_only = export.folder.address.format == "csv"
        yield ArchivedUsers(path, names, text_only, _csv_objects(path) if text_only else _objects(path))


def _objects(path: Path) -> Iterator[Mapping[str, Any] | UnreadableUser]:
    with open_decompressed(path) as file:
        yield from parsed_lines(file)


def parsed_lines(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any] | UnreadableUser]:
    """Yield the user in each line of an NDJSON export, or the line itself if it is not a valid user."""
    for line in lines:
        if simple := parse_simple_object(line):
            yield simple
        elif line.strip():
            yield UnreadableUser("nested too deeply", line) if _is_too_deep(line) else _object(line)


def _object(line: bytes) -> Mapping[str, Any] | UnreadableUser:
    try:
        row: Any = parse_json(line.decode())
    except UnicodeDecodeError:
        readable = readable_json(line)
        is_json = _object(readable) != UnreadableUser("not JSON", readable)
        return UnreadableUser("not UTF-8", readable) if is_json else UnreadableUser("not JSON", line)
    except NumberOutOfRangeError:
        return UnreadableUser("number out of range", line)
    except ValueError:
        row = None
    return row if isinstance(row, dict) else UnreadableUser("not JSON", line)


def _csv_objects(path: Path) -> Iterator[Mapping[str, Any] | UnreadableUser]:
    for columns, values in csv_rows(path, USERS):
        row = dict(zip(columns, values, strict=False))
        readable = {name: readable_text(value) for name, value in row.items()}
        yield row if row == readable else UnreadableUser("not UTF-8", json_bytes(readable))


def _is_too_deep(line: bytes) -> bool:
    """Return whether a line of JSON may be nested too deeply. Brackets in strings are counted too."""
    if line.count(b"{") + line.count(b"[") <= _MAX_NESTING:
        return False
    levels = accumulate(1 if match[0] in b"[{" else -1 for match in re.finditer(rb"[\[{\]}]", line))
    return max(levels) > _MAX_NESTING


@dataclass(frozen=True)
class ExportedUser:
    """The values that identify a user: the id and, if known, the connection and the e-mail address in lower case."""

    user_id: str = field(repr=False)
    connection: str | None = field(repr=False)
    email: str | None = field(repr=False)


@dataclass(frozen=True)
class DatasetRows:
    """The datasets of a source in a run."""

    reader: ArchiveReader
    run: Run
    source: str

    def exports(self, dataset: str) -> list[ArchivedExport]:
        """Return the exports of a dataset. Exports of the complete dataset come first."""
        exports = [
            export
            for export in self.run.exports
            if (export.folder.address.source, export.folder.address.dataset) == (self.source, dataset)
        ]
        return sorted(exports, key=lambda export: (export.folder.address.scope != "all", export.export_id))

    def rows(self, dataset: str) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a dataset, whose exports are NDJSON. A number that Python cannot represent is a string.

        Raises WrongFormatError if a line is not a JSON object.
        """
        for export in self.exports(dataset):
            with tempfile.TemporaryDirectory(prefix="meibo-restore-") as folder:
                path = Path(folder) / "export"
                download(self.reader, export, path)
                with open_decompressed(path) as file:
                    for line in file:
                        if line.strip():
                            row = parse_row(line)
                            if row is None:
                                raise WrongFormatError(
                                    f"{export.export_id}: expected one JSON object per line; run `meibo verify`"
                                )
                            yield row

    def users(self) -> Iterator[ExportedUser]:
        """Yield the users of all users exports. A user who is in several exports is yielded several times."""
        for export in self.exports("users"):
            with archived_users(self.reader, export) as archived:
                for row in archived.rows:
                    if isinstance(row, Mapping):
                        fields = {name: row.get(column) for name, column in archived.names.items()}
                        user_id, email = fields.get("user_id"), fields.get("email")
                        if isinstance(user_id, str) and user_id:
                            address = email.lower() if isinstance(email, str) and email else None
                            yield ExportedUser(user_id, primary_connection(user_id, fields), address)
