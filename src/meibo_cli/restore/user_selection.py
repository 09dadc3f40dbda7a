"""Select the users to restore by name, or by the changes in a file of ``meibo diff --csv``."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError
from meibo.providers.auth0.client import Auth0Client
from meibo_cli.restore.archived_rows import archived_users
from meibo_cli.restore.auth0_target import has_values, live_user
from meibo_cli.restore.import_schema import PREFIX, UPDATED, Converter, Skipped, SkipReason
from meibo_cli.terminal import spreadsheet_text

COLUMNS: Final = ["export", "change", "key", "fields"]
BLOCKED: Final = "blocked"
_MAX_EXPORTS_SHOWN: Final = 5


@dataclass(frozen=True)
class UserSelection:
    """The users and the fields to restore. By default, all users and all fields are restored.

    ``names`` are ids, e-mail addresses and usernames. ``ids`` are the ids of the users in a file.
    """

    names: frozenset[str] = frozenset()
    ids: frozenset[str] | None = None
    fields: frozenset[str] = frozenset()


ALL_USERS: Final = UserSelection()


def user_selection(
    names: Sequence[str] | None, path: Path | None, only_fields: str | None, *, upsert: bool | None, export_id: str
) -> UserSelection:
    """Return the selection of the options ``--select``, ``--select-from`` and ``--only-fields``.

    Raises ConfigurationError if they cannot be used together, or if an update cannot change one of the fields.
    """
    fields = frozenset(name.strip() for name in (only_fields or "").split(",") if name.strip())
    if names and path is not None:
        raise ConfigurationError("--select and --select-from cannot be used together")
    if only_fields is not None and (path is None or not upsert):
        raise ConfigurationError("--only-fields requires --select-from and --upsert, because it changes existing users")
    unknown = sorted(fields - UPDATED - {BLOCKED})
    if unknown or (only_fields is not None and not fields):
        raise ConfigurationError(
            "--only-fields: expected blocked, or fields that an import can update"
            f" ({', '.join(sorted(UPDATED))}), found {', '.join(unknown) or 'none'}"
        )
    if BLOCKED in fields and len(fields) > 1:
        raise ConfigurationError(
            "--only-fields: blocked is restored with one request per user; restore blocked and"
            " the other fields with two commands"
        )
    ids = None if path is None else changed_users(path, export_id, fields)
    return UserSelection(frozenset(names or ()), ids, fields)


def changed_users(path: Path, export_id: str, only_fields: Collection[str]) -> frozenset[str]:
    """Return the ids of the users who were changed or removed or, with ``only_fields``, changed in one of these fields.

    Users who were added are not selected, because the earlier run does not contain them. Raises ConfigurationError if
    the file is not a file of ``meibo diff --csv``, or if it contains no such user of the export.
    """
    ids, exports = set[str](), Counter[str]()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            if next(rows, None) != COLUMNS:
                raise ConfigurationError(
                    f"--select-from: expected a file of `meibo diff --csv` with the columns {', '.join(COLUMNS)}, found"
                    f" another header in {path}"
                )
            for export, change, key, fields in rows:
                exports[export] += 1
                if export == export_id and _is_selected(change, fields, only_fields):
                    ids.add(spreadsheet_text(key))
    except FileNotFoundError:
        raise ConfigurationError(f"--select-from: the file {path} does not exist") from None
    except (UnicodeDecodeError, ValueError, csv.Error):
        raise ConfigurationError(
            f"--select-from: {path} is damaged; create it again with `meibo diff --csv`, and do not save it in Excel"
        ) from None
    if not ids:
        names = ", ".join(name for name, _ in exports.most_common(_MAX_EXPORTS_SHOWN)) or "none"
        fields_text = f" in which {' or '.join(sorted(only_fields))} changed" if only_fields else ""
        raise ConfigurationError(
            f"--select-from: {path} contains no user of {export_id}{fields_text}; its exports are: {names}"
        )
    return frozenset(ids)


def _is_selected(change: str, fields: str, only_fields: Collection[str]) -> bool:
    if not only_fields:
        return change in ("changed", "removed")
    return change == "changed" and any(name.partition(".")[0] in only_fields for name in fields.split(" "))


# -- expected values


@dataclass(frozen=True)
class LiveComparison:
    """The values that users must have in the tenant before an update of ``fields``, by user id."""

    client: Auth0Client
    fields: frozenset[str]
    expected: Mapping[str, Mapping[str, Any]] = field(repr=False)

    def skip_reason(self, user: Mapping[str, Any]) -> SkipReason | None:
        """Return the reason why a user is not updated, or None if the user still has the expected values."""
        live = live_user(self.client, PREFIX + user["user_id"])
        if live is not None and has_values(live, user, self.fields):
            return "already restored"
        expected = self.expected.get(user["user_id"])
        if live is None or expected is None or not has_values(live, expected, self.fields):
            return "changed since the expected run"
        return None


def live_comparison(
    client: Auth0Client, reader: ArchiveReader, run: Run, export: ArchivedExport, selection: UserSelection
) -> LiveComparison:
    """Return the comparison with the values that the selected users have in a run.

    Raises ConfigurationError if the run does not contain the export.
    """
    with archived_users(reader, same_export(run, export)) as archived:
        archived.check(selection.fields, upsert=True)
        converter = Converter(names=archived.names, text_only=archived.text_only, skipped=Skipped())
        column = archived.names["user_id"]
        rows = (row for row in archived.rows if isinstance(row, Mapping) and row.get(column) in (selection.ids or ()))
        expected = dict(_users(converter, rows))
    return LiveComparison(client, selection.fields, expected)


def same_export(run: Run, export: ArchivedExport) -> ArchivedExport:
    """Return the export with the same address in another run. Raises ConfigurationError if there is none."""
    for other in run.exports:
        if other.folder.address == export.folder.address:
            return other
    raise ConfigurationError(
        f"--expected-run: run {run.run_id} does not contain {export.export_id}; `meibo ls` lists the runs"
    )


def _users(converter: Converter, rows: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, dict[str, Any]]]:
    for row in rows:
        user = converter.convert(row)
        if isinstance(user, dict):
            yield user["user_id"], user
