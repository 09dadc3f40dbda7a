"""Compare users of the tenant with two runs, so that an undo does not replace later changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError
from meibo.providers.auth0.client import Auth0Client
from meibo_cli.restore.archived_users import archived_users
from meibo_cli.restore.auth0_target import has_values, live_user
from meibo_cli.restore.changed_users import UserSelection
from meibo_cli.restore.import_schema import PREFIX, Converter, Skipped, SkipReason


@dataclass(frozen=True)
class LiveComparison:
    """The values that users must have in the tenant before an update of ``fields``, by user id."""

    client: Auth0Client
    fields: frozenset[str]
    expected: Mapping[str, Mapping[str, Any]] = field(repr=False)

    def skip_reason(self, user: Mapping[str, Any]) -> SkipReason | None:
        """Return why a user is not updated, or None if the tenant has the expected values."""
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
    """Return the comparison with the values of the selected users in a run.

    Raises ConfigurationError if the run does not contain the export, or if the selection has no fields.
    """
    if not selection.fields or selection.ids is None:
        raise ConfigurationError("--expected-run requires --only-fields")
    with archived_users(reader, same_export(run, export)) as archived:
        archived.check(selection.fields, upsert=True)
        converter = Converter(names=archived.names, text_only=archived.text_only, skipped=Skipped())
        column = archived.names["user_id"]
        rows = (row for row in archived.rows if isinstance(row, Mapping) and row.get(column) in selection.ids)
        expected = dict(_users(converter, rows))
    return LiveComparison(client, selection.fields, expected)


def same_export(run: Run, export: ArchivedExport) -> ArchivedExport:
    """Return the export with the same address in another run. Raises ConfigurationError if there is none."""
    for other in run.exports:
        if other.folder.address == export.folder.address:
            return other
    raise ConfigurationError(f"--expected-run: run {run.run_id} does not contain {export.export_id}")


def _users(converter: Converter, rows: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, dict[str, Any]]]:
    for row in rows:
        user = converter.convert(row)
        if isinstance(user, dict):
            yield user["user_id"], user
