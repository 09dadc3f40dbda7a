"""Write import files for Auth0 users, and import them into a database connection."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import typer

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError
from meibo.formatting import format_count, format_number
from meibo.providers.auth0.client import Auth0Client
from meibo_cli.exit_codes import EXIT_DIFFERENT
from meibo_cli.files import locked_folder
from meibo_cli.restore.archived_rows import archived_users
from meibo_cli.restore.auth0_target import TargetConnection, import_client
from meibo_cli.restore.console import report_not_found, require_confirmation, resumable, warn_if_suspect
from meibo_cli.restore.directory import DirectoryTarget
from meibo_cli.restore.import_files import ImportFiles, write_files
from meibo_cli.restore.import_jobs import send
from meibo_cli.restore.import_schema import UserSecrets
from meibo_cli.restore.journal import FileImport, Journal, locked_journal
from meibo_cli.restore.live_users import live_users
from meibo_cli.restore.user_preview import ComparedFields, UserPreview, preview_users
from meibo_cli.restore.user_selection import UserSelection, live_comparison
from meibo_cli.terminal import Column, TextConsole, escape_control_characters, print_table, printable, progress_bar

AUTH0_NOT_RESTORABLE: Final = """\
An import of users does not restore:
  - passwords and MFA factors: exports do not contain them; add them with --hashes, or each user must reset the password
  - users of other connections (social, enterprise, passwordless): Auth0 creates them again at their next login
  - roles, organizations and memberships: restore them with --datasets after the users
  - logins, dates, linked accounts, and other fields that an import does not accept: report.json lists them
With --upsert, the metadata of existing users is replaced, not merged. Their email, username and phone_number do not
change. Their blocked state changes only with --only-fields blocked.
"""
_COUNTS: Final = ("inserted", "updated", "failed")
_MAX_CONNECTIONS_SHOWN: Final = 10


@dataclass(frozen=True)
class ImportTarget:
    """The database connection into which users are imported.

    ``expected_name`` is the name that the connection must have, or None if it must have the name in the export.
    """

    client: Auth0Client
    tenant: DirectoryTarget
    connection: TargetConnection
    expected_name: str | None

    def check_connection(self, users_connection: str | None) -> None:
        """Raise ConfigurationError if the connection does not have the expected name.

        ``users_connection`` is None if the export does not contain the connection of the users.
        """
        expected = self.expected_name or users_connection
        if expected is None:
            raise ConfigurationError(
                "the export does not contain the connection of its users; if all users belong to the connection"
                f" {self.connection.name!r}, add --target-connection {self.connection.name!r}"
            )
        if expected != self.connection.name:
            raise ConfigurationError(
                f"--connection-id: {self.connection.id} of {self.client.domain} is the connection"
                f" {self.connection.name!r}, expected {expected!r}; correct the id, or, to import users into a"
                f" connection with another name, add --target-connection {self.connection.name!r}"
            )


@dataclass(frozen=True, kw_only=True)
class UserRestore:
    """A restore of the users of an export. The files are written into ``output``, a new folder.

    With ``connection``, only users of this connection are written. With ``upsert``, existing users are updated. With
    ``expected_run``, only users who still have the values of this run are updated. ``secrets`` maps user ids without
    the prefix ``auth0|`` to password hashes and MFA factors. With ``preview``, the tenant is not changed.
    """

    reader: ArchiveReader
    export: ArchivedExport
    output: Path
    selection: UserSelection
    connection: str | None
    secrets: Mapping[str, UserSecrets] = field(repr=False)
    target: ImportTarget | None
    expected_run: Run | None
    upsert: bool
    preview: bool
    yes: bool


def restore_users(restore: UserRestore) -> None:
    """Write the import files, and print the numbers of users.

    With a target and without ``preview``, import the users, after a confirmation unless ``yes`` is true.
    """
    export, target = restore.export, restore.target
    if target is not None and restore.connection is not None:
        target.check_connection(restore.connection)
    typer.echo(AUTH0_NOT_RESTORABLE, err=True)
    warn_if_suspect(restore.reader, export)
    with archived_users(restore.reader, export) as archived:
        archived.check(restore.selection.fields, upsert=restore.upsert)
        comparison = None
        if target is not None and restore.expected_run is not None:
            comparison = live_comparison(target.client, restore.reader, restore.expected_run, export, restore.selection)
        written = write_files(
            archived.rows,
            restore.output,
            names=archived.names,
            text_only=archived.text_only,
            connection=restore.connection,
            selection=restore.selection,
            skip_reason=comparison.skip_reason if comparison else lambda _: None,
            secrets=restore.secrets,
        )
    _check_connections(written, restore)
    preview = None
    # With an expected run, each user was already compared with the tenant.
    if target is not None and not written.not_found and (restore.preview or comparison is None):
        fields = ComparedFields.of_export(archived.names, restore.selection.fields)
        preview = _preview(written, fields, restore, target, archived.names["user_id"])
    _print(written, preview)
    report_not_found(len(written.not_found), "; nothing was sent" if target is not None else "")
    if target is not None:
        _import_files(written, restore, target)
    if preview is not None and (preview.counts["conflict"] or (restore.preview and preview.has_findings)):
        raise typer.Exit(EXIT_DIFFERENT)


def _preview(
    written: ImportFiles, fields: ComparedFields, restore: UserRestore, target: ImportTarget, id_column: str
) -> UserPreview:
    """Compare the users with the tenant, and remove from the files the users who would not be created or updated.

    With an expected run, each user was compared with the tenant before, so only ``preview.csv`` is written.
    """
    if written.users:
        target.check_connection(restore.connection or next(iter(written.connections), None))
    try:
        if restore.expected_run is not None:
            return preview_users(written, fields, None, id_column=id_column, upsert=restore.upsert)
        with live_users(
            written, fields.names, client=target.client, tenant=target.tenant, connection=target.connection
        ) as live:
            return preview_users(written, fields, live, id_column=id_column, upsert=restore.upsert)
    except BaseException:
        shutil.rmtree(written.folder)
        raise


def resume_import(folder: Path, *, yes: bool) -> None:
    """Import the files in a folder that were not imported before. If one of them was changed, nothing is sent."""
    with locked_journal(folder) as journal:
        for file in journal.files:
            if file.state != "done":
                journal.content(file)
        _import(import_client(journal.source, journal.domain, journal.audience), journal, yes=yes)


def _check_connections(written: ImportFiles, restore: UserRestore) -> None:
    """Print a hint if the users belong to several connections and no connection was chosen.

    If the restore has a target, raises ConfigurationError instead.
    """
    if restore.connection is not None or len(written.connections) < 2:
        return
    names = ", ".join(sorted(written.connections)[:_MAX_CONNECTIONS_SHOWN])
    hint = (
        f"the users belong to {len(written.connections)} connections; choose a connection with --only-connection:"
        f" {names}"
    )
    if restore.target is not None:
        raise ConfigurationError(hint)
    typer.echo(escape_control_characters(hint), err=True)


def _import_files(written: ImportFiles, restore: UserRestore, target: ImportTarget) -> None:
    if not written.users:
        typer.echo("no users to import", err=True)
        return
    with locked_folder(written.folder):
        journal = new_journal(
            written,
            restore.export,
            client=target.client,
            audience=target.tenant.audience,
            connection=target.connection,
            upsert=restore.upsert,
        )
        if restore.preview:
            _echo(f"`meibo restore --resume {journal.folder}` imports these users")
            return
        _import(target.client, journal, yes=restore.yes)


def new_journal(
    written: ImportFiles,
    export: ArchivedExport,
    *,
    client: Auth0Client,
    audience: str | None,
    connection: TargetConnection,
    upsert: bool,
) -> Journal:
    """Write and return the journal, which records the state of each import file."""
    return Journal.create(
        written.folder,
        list(written.files.items()),
        export_id=export.export_id,
        run_id=export.folder.run_id,
        source=export.folder.address.source,
        domain=client.domain,
        audience=audience,
        connection_id=connection.id,
        connection=connection.name,
        upsert=upsert,
    )


def _import(client: Auth0Client, journal: Journal, *, yes: bool) -> None:
    """Import the files that the journal does not list as imported, and print the results."""
    resume = f"`meibo restore --resume {journal.folder}`"
    files = [file for file in journal.files if file.state != "done"]
    users = sum(file.users for file in files)
    if users and not yes:
        require_confirmation(
            f"{'Import or update' if journal.upsert else 'Import'} {format_count(users, 'user')} of run"
            f" {journal.run_id} into the connection {journal.connection} ({journal.connection_id}) of {client.domain}?",
            f"nothing was sent; {resume} imports the files",
        )
    with resumable(f"{resume} continues the import"), progress_bar("import", len(files)) as advance:
        send(client, journal, advance=lambda _: advance(1), notify=_echo)
    _print_results(journal.files)
    if not all(file.succeeded for file in journal.files):
        if not all(file.state == "done" for file in journal.files):
            _echo(f"not complete; {resume} continues the import")
        raise typer.Exit(EXIT_DIFFERENT)


def _echo(text: str) -> None:
    typer.echo(escape_control_characters(text), err=True)


def _print(written: ImportFiles, preview: UserPreview | None) -> None:
    folder = escape_control_characters(str(written.folder))
    typer.echo(f"{format_count(written.users, 'user')} in {format_count(len(written.files), 'file')} in {folder}/")
    for reason, count in written.skipped.users.most_common():
        typer.echo(f"  {format_count(count, 'user')} skipped: {reason}")
    if written.with_secrets:
        typer.echo(f"  password hashes or MFA factors for {format_count(written.with_secrets, 'user')}")
    if written.large_profiles:
        typer.echo(
            f"  {format_count(written.large_profiles, 'profile')} larger than 10 KB, which Auth0 may reject"
            " (PROFILE_SIZE_EXCEEDED)"
        )
    for loss, count in (+written.skipped.losses).most_common():
        typer.echo(f"  not restored for {format_count(count, 'user')}: {loss}")
    for name, count in written.skipped.fields.most_common():
        typer.echo(f"  removed from {format_count(count, 'user')}: {escape_control_characters(name)}")
    if preview is not None:
        preview.print()


def _print_results(files: Sequence[FileImport]) -> None:
    totals = {name: format_number(sum(getattr(file, name) for file in files)) for name in _COUNTS}
    columns = (
        Column("file", footer="total"),
        Column("state"),
        *(Column(name, number=True, footer=total) for name, total in totals.items()),
        Column("reason", wraps=True),
        Column("job", optional=True),
    )
    rows = []
    for file in files:
        codes = ", ".join(f"{code} {count}" for code, count in sorted(file.codes.items()))
        counts = (format_number(getattr(file, name)) for name in _COUNTS)
        cells = (file.name, file.state, *counts, "; ".join(filter(None, (file.reason, codes))), file.job_id)
        rows.append([printable(cell) for cell in cells])
    print_table(TextConsole(), columns, rows)
