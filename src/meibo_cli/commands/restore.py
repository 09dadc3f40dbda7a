"""``meibo restore``: write import files, and import them into Auth0 with ``--apply``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import Progress

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run, runs
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError
from meibo.formatting import format_count, format_number
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.jobs import USERS_SCOPE
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_FAILURE, EXIT_INTERRUPTED
from meibo_cli.files import STDOUT
from meibo_cli.restore.archived_users import archived_users
from meibo_cli.restore.auth0_imports import SCOPE
from meibo_cli.restore.auth0_target import (
    CONNECTIONS_SCOPE,
    TargetConnection,
    database_connection,
    target_client,
    target_credentials,
)
from meibo_cli.restore.blocked_users import ALREADY_RESTORED, RESTORED, blocked_states, restore_blocked_states
from meibo_cli.restore.changed_users import BLOCKED, UserSelection, user_selection
from meibo_cli.restore.cybozu_checks import check_files
from meibo_cli.restore.cybozu_csv import DANGER, NOT_RESTORABLE, write_csv, write_instructions
from meibo_cli.restore.directory import (
    DirectoryOptions,
    DirectoryRestore,
    DirectoryTarget,
    Queueing,
    apply_directory_plan,
    confirm,
    datasets_of,
    restore_directory,
    warn_if_suspect,
)
from meibo_cli.restore.directory_plan import PLAN
from meibo_cli.restore.import_files import ImportFiles, write_files
from meibo_cli.restore.import_jobs import send
from meibo_cli.restore.journal import FileImport, Journal, locked
from meibo_cli.restore.live_comparison import live_comparison, same_export
from meibo_cli.restore.user_secrets import UserSecrets, read_user_secrets
from meibo_cli.selection import (
    DEFAULT_ARCHIVE,
    LATEST,
    PREVIOUS,
    ArchiveOption,
    RunOption,
    matching,
    named_run,
    open_archive,
    single_export,
)
from meibo_cli.stack import DEFAULT_STACK, StackOption
from meibo_cli.terminal import Column, TextConsole, escape_control_characters, print_table, printable

AUTH0_NOT_RESTORABLE: Final = """\
Meibo cannot restore the following in Auth0:
  - passwords and MFA factors: exports do not contain them; add them with --hashes, or each user needs a password reset
  - users of other connections (social, enterprise, passwordless): they are created again at their next login
  - roles, organizations and memberships: restore them with --datasets after the users
  - logins, dates, linked accounts, and other fields that the import rejects; the report lists them
  With --upsert, metadata of existing users is replaced, not merged; their email, username and phone_number are not
  changed, and their blocked state only with --only-fields blocked.
"""
_COUNTS: Final = ("inserted", "updated", "failed")
_MAX_CONNECTIONS_SHOWN: Final = 10
_IMPORT_SCOPES: Final = (SCOPE, USERS_SCOPE, CONNECTIONS_SCOPE)
# Runs that are searched for an export that the named run does not contain, and their ids in the message.
_MAX_RUNS_SEARCHED: Final = 100
_MAX_RUNS_SHOWN: Final = 5


@dataclass(frozen=True)
class Target:
    """The tenant and the connection that users are imported into, and the name that the connection must have."""

    client: Auth0Client
    connection: TargetConnection
    upsert: bool
    expected_name: str | None

    def check_connection(self, users_connection: str | None) -> None:
        """Raise ConfigurationError if the connection has another name than the connection of the users.

        If the export does not contain the connection of the users (None), the options must contain the name.
        """
        expected = self.expected_name or users_connection
        if expected is None:
            raise ConfigurationError(
                "the export does not contain the connections of its users; check that all of them belong to the"
                f" connection {self.connection.name!r}, and add --target-connection {self.connection.name!r}"
            )
        if expected != self.connection.name:
            raise ConfigurationError(
                f"--connection-id: {self.connection.id} of {self.client.domain} is the connection"
                f" {self.connection.name!r}, expected {expected!r}; correct the id, or, to import into a connection"
                f" with another name, add --target-connection {self.connection.name!r}"
            )


def restore(
    export: Annotated[
        str,
        typer.Argument(
            help="An Auth0 users export (acme/users/ndjson/all), or a cybozu.com source (example).", show_default=False
        ),
    ] = "",
    *,
    run: RunOption = LATEST,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder for the files.")] = Path("restore"),
    select: Annotated[
        list[str] | None,
        typer.Option("--select", help="Only this user: id, e-mail or login. Repeatable.", show_default=False),
    ] = None,
    select_from: Annotated[
        Path | None,
        typer.Option(
            "--select-from",
            help="Auth0: only the users who were changed or removed in this file of `meibo diff --csv`.",
            show_default=False,
        ),
    ] = None,
    only_fields: Annotated[
        str | None,
        typer.Option(
            "--only-fields",
            help="With --select-from and --upsert: restore only these fields, separated by commas, of the users with a"
            " change in one of them.",
            show_default=False,
        ),
    ] = None,
    expected_run: Annotated[
        str | None,
        typer.Option(
            "--expected-run",
            help="With --only-fields and --apply: update only users who still have the values of this run.",
            show_default=False,
        ),
    ] = None,
    only_connection: Annotated[
        str | None, typer.Option("--only-connection", help="Auth0: only users of the connection with this name.")
    ] = None,
    hashes: Annotated[
        Path | None,
        typer.Option(
            "--hashes",
            help="Auth0: add the password hashes and MFA factors of this decrypted export (NDJSON), which Auth0 support"
            " delivers on request.",
            show_default=False,
        ),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Auth0: import the files into a tenant.")] = False,
    domain: Annotated[str | None, typer.Option("--domain", help="With --apply: the domain of the tenant.")] = None,
    audience: Annotated[
        str | None,
        typer.Option(
            "--audience",
            help="With --apply, if the domain is a custom domain: https://acme.jp.auth0.com/api/v2/.",
            show_default=False,
        ),
    ] = None,
    connection_id: Annotated[
        str | None, typer.Option("--connection-id", help="With --apply: the id of the database connection.")
    ] = None,
    target_connection: Annotated[
        str | None,
        typer.Option(
            "--target-connection",
            help="With --apply: the name of that connection, if the users' connection has another.",
        ),
    ] = None,
    upsert: Annotated[
        bool | None, typer.Option("--upsert/--no-upsert", help="With --apply: update existing users, or ignore them.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --apply: import without confirmation.")] = False,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Auth0: continue the import of the files in this folder.", show_default=False),
    ] = None,
    datasets: Annotated[
        str | None,
        typer.Option(
            "--datasets",
            help="Auth0: plan the restore of roles, organizations, role_members and members (separated by commas, or"
            " all) of a source, instead of users.",
            show_default=False,
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--mapping", help="With --datasets: an edited mapping.csv of an earlier plan.", show_default=False
        ),
    ] = None,
    location_host: Annotated[
        list[str] | None,
        typer.Option(
            "--location-host",
            help="With --datasets: a host of export files that is not Auth0's own. Repeatable.",
            show_default=False,
        ),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue", help="Send memberships as changes of this source to the queue of the stack.", show_default=False
        ),
    ] = None,
    without_queue: Annotated[
        bool, typer.Option("--without-queue", help="Send memberships directly to the tenant.")
    ] = False,
    stack: StackOption = DEFAULT_STACK,
    configuration: Annotated[
        str, typer.Option("--configuration", help="With --queue: the SSM parameter with the sources of the stack.")
    ] = "/meibo/sources",
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Convert an archived export into files that the provider can import. With --apply, import them into Auth0.

    With --datasets, compare roles, organizations and memberships with a tenant and plan what a restore would change.

    The credentials for --apply are MEIBO_<SOURCE>_CLIENT_ID and MEIBO_<SOURCE>_CLIENT_SECRET (or _PRIVATE_KEY).
    """
    if output == STDOUT:
        raise ConfigurationError("--output: expected a new folder for several files, got '-'")
    if (resume is None) == (not export):
        raise ConfigurationError("expected the name of an export, or --resume with the folder of an earlier import")
    queueing = Queueing.of_options(queue, stack, configuration, without_queue=without_queue)
    if resume is not None:
        _resume(resume, queueing, yes=yes)
        return
    reader = open_archive(archive)
    named = named_run(reader, run)
    if datasets is not None:
        _require_run_id(run, named, apply=apply)
        tenant = DirectoryTarget.of_options(export, domain, location_host, audience)
        options = DirectoryOptions(datasets_of(datasets), mapping, upsert=bool(upsert), apply=apply)
        restore_directory(DirectoryRestore(reader, named, tenant, output, options), queueing, yes=yes)
        return
    exports = _restorable(reader, named, export)
    if {archived.folder.address.provider for archived in exports} == {"cybozu"}:
        if apply:
            raise ConfigurationError("--apply is for Auth0 only; import the files into cybozu.com yourself")
        _write_cybozu(reader, named, exports, output, tuple(select or ()))
        return
    users = single_export(exports, export)
    selection = user_selection(select, select_from, only_fields, upsert=upsert, export_id=users.export_id)
    secrets = _read_secrets(hashes, selection)
    _require_run_id(run, named, apply=apply)
    if BLOCKED in selection.fields:
        _restore_blocked(
            reader,
            named,
            users,
            selection.ids or frozenset(),
            output,
            expected_run=expected_run,
            domain=domain,
            audience=audience,
            apply=apply,
            yes=yes,
        )
        return
    target = None
    if apply:
        target = _target(
            users.folder.address.source, domain, connection_id, upsert, target_connection, audience=audience
        )
        if only_connection is not None:
            target.check_connection(only_connection)
    typer.echo(AUTH0_NOT_RESTORABLE, err=True)
    warn_if_suspect(reader, users)
    with archived_users(reader, users) as archived:
        archived.check(selection.fields, upsert=bool(upsert))
        comparison = None
        if expected_run is not None:
            if target is None:
                raise ConfigurationError("--expected-run requires --apply")
            other = named_run(reader, expected_run)
            comparison = live_comparison(target.client, reader, other, users, selection)
        written = write_files(
            archived.rows,
            output,
            names=archived.names,
            text_only=archived.text_only,
            connection=only_connection,
            selection=selection,
            skip_reason=comparison.skip_reason if comparison else lambda _: None,
            secrets=secrets,
        )
    _print(written, has_target=target is not None)
    _warn_if_mixed(written, only_connection, has_target=target is not None)
    if target is not None:
        _import_files(target, written, users, only_connection, audience=audience, yes=yes)


def _resume(folder: Path, queueing: Queueing | None, *, yes: bool) -> None:
    """Continue the import of files or the plan in a folder."""
    if (folder / PLAN).exists():
        apply_directory_plan(folder, queueing, yes=yes)
        return
    with locked(folder):
        journal = Journal.read(folder)
        _import(_client(journal.domain, journal.source, journal.audience), journal, yes=yes)


def _import_files(
    target: Target,
    written: ImportFiles,
    users: ArchivedExport,
    connection: str | None,
    *,
    audience: str | None,
    yes: bool,
) -> None:
    """Import the files that were written from a users export."""
    if not written.users:
        typer.echo("there is no user to import", err=True)
        return
    target.check_connection(connection or next(iter(written.connections), None))
    with locked(written.folder):
        journal = Journal.create(
            written.folder,
            list(written.files.items()),
            export_id=users.export_id,
            run_id=users.folder.run_id,
            source=users.folder.address.source,
            domain=target.client.domain,
            audience=audience,
            connection_id=target.connection.id,
            connection=target.connection.name,
            upsert=target.upsert,
        )
        _import(target.client, journal, yes=yes)


def _require_run_id(run: str, named: Run, *, apply: bool) -> None:
    if apply and run in (LATEST, PREVIOUS):
        raise ConfigurationError(
            "--apply requires --run with the id of a run, because the latest run may contain the damage;"
            f" {run} is now {named.run_id}, and `meibo ls` lists the runs"
        )


def _restore_blocked(
    reader: ArchiveReader,
    run: Run,
    users: ArchivedExport,
    ids: Collection[str],
    output: Path,
    *,
    expected_run: str | None,
    domain: str | None,
    audience: str | None,
    apply: bool,
    yes: bool,
) -> None:
    """Print how many users have which state in the run and, with ``apply``, set the state of each in the tenant."""
    states = blocked_states(reader, users, ids)
    count = format_count(len(states), "user")
    typer.echo(f"{count}, {format_number(sum(states.values()))} of them blocked in run {run.run_id}")
    if not apply:
        return
    if domain is None or expected_run is None:
        raise ConfigurationError("--only-fields blocked with --apply requires --domain and --expected-run")
    other = named_run(reader, expected_run)
    expected = blocked_states(reader, same_export(other, users), ids)
    client = _client(domain, users.folder.address.source, audience)
    question = f"Set the blocked state of {count} of run {run.run_id} in {domain}?"
    if not yes and not confirm(escape_control_characters(question)):
        typer.echo("nothing was sent", err=True)
        raise typer.Exit(EXIT_FAILURE)
    console = TextConsole(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("update", total=len(states))
        results = restore_blocked_states(client, states, expected, output, advance=lambda: progress.advance(task))
    for result, number in results.most_common():
        typer.echo(f"  {format_count(number, 'user')}: {result}")
    if results.keys() - {RESTORED, ALREADY_RESTORED}:
        raise typer.Exit(EXIT_DIFFERENT)


def _read_secrets(path: Path | None, selection: UserSelection) -> dict[str, UserSecrets]:
    if path is None:
        return {}
    if selection.fields:
        raise ConfigurationError("--hashes and --only-fields exclude each other")
    return read_user_secrets(path)


def _restorable(reader: ArchiveReader, run: Run, pattern: str) -> list[ArchivedExport]:
    """Return the exports of a run that match and can be restored.

    Raises ConfigurationError, with the runs that contain such an export, if the run has none.
    """

    def of(candidate: Run) -> list[ArchivedExport]:
        return [
            export
            for export in matching(candidate.exports, pattern)
            if export.folder.address.provider == "cybozu" or export.folder.address.dataset == "users"
        ]

    exports = of(run)
    if not exports:
        others = [other.run_id for other in islice(runs(reader), _MAX_RUNS_SEARCHED) if of(other)]
        if others:
            more = ", …" if len(others) > _MAX_RUNS_SHOWN else ""
            raise ConfigurationError(
                f"run {run.run_id} does not contain {pattern!r}; these runs do:"
                f" {', '.join(others[:_MAX_RUNS_SHOWN])}{more}"
            )
        single_export([export for export in run.exports if export.folder.address.dataset == "users"], pattern)
    return exports


def _warn_if_mixed(written: ImportFiles, connection: str | None, *, has_target: bool) -> None:
    """Print a hint if the users have several connections and none was chosen.

    Raises ConfigurationError if they are to be imported.
    """
    if connection is not None or len(written.connections) < 2:
        return
    names = ", ".join(sorted(written.connections)[:_MAX_CONNECTIONS_SHOWN])
    hint = f"the users have {len(written.connections)} connections; choose a connection with --only-connection: {names}"
    if has_target:
        raise ConfigurationError(hint)
    typer.echo(escape_control_characters(hint), err=True)


def _target(
    source: str,
    domain: str | None,
    connection_id: str | None,
    upsert: bool | None,
    expected_name: str | None,
    *,
    audience: str | None,
) -> Target:
    if domain is None or connection_id is None or upsert is None:
        raise ConfigurationError("--apply requires --domain, --connection-id, and --upsert or --no-upsert")
    client = _client(domain, source, audience)
    return Target(client, database_connection(client, connection_id), upsert, expected_name)


def _client(domain: str, source: str, audience: str | None) -> Auth0Client:
    return target_client(domain, target_credentials(source, _IMPORT_SCOPES), audience)


def _write_cybozu(
    reader: ArchiveReader, run: Run, exports: Sequence[ArchivedExport], output: Path, selected: tuple[str, ...]
) -> None:
    sources = {export.folder.address.source for export in exports}
    if len(sources) != 1:
        raise ConfigurationError(f"expected the name of one source, one of: {', '.join(sorted(sources))}")
    by_dataset = {
        export.folder.address.dataset: export
        for export in exports
        if export.folder.address.format == "csv" and export.folder.address.scope == "all"
    }
    typer.echo(NOT_RESTORABLE, err=True)
    for export in by_dataset.values():
        warn_if_suspect(reader, export)
    written = write_csv(reader, by_dataset, output, selected=selected)
    notes = list(check_files(reader, run, sources.pop(), written, selected=bool(selected)))
    write_instructions(written, notes)
    for path in written.files.values():
        typer.echo(escape_control_characters(str(path)))
    if "organizations" in written.files:
        typer.echo("\n" + DANGER, err=True)
    for note in notes:
        typer.echo(f"note: {escape_control_characters(note)}", err=True)
    if written.missing:
        typer.echo(f"not in this run: {', '.join(written.missing)}", err=True)
    _report_not_found(len(written.not_found))


def _print(written: ImportFiles, *, has_target: bool) -> None:
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
        typer.echo(f"  lost by {format_count(count, 'user')}: {loss}")
    for name, count in written.skipped.fields.most_common():
        typer.echo(f"  removed from {format_count(count, 'user')}: {escape_control_characters(name)}")
    _report_not_found(len(written.not_found), "; nothing was sent" if has_target else "")


def _report_not_found(count: int, result: str = "") -> None:
    if count:
        verb = "is" if count == 1 else "are"
        typer.echo(f"{format_number(count)} of the selected users {verb} not in this export{result}", err=True)
        raise typer.Exit(EXIT_DIFFERENT)


def _import(client: Auth0Client, journal: Journal, *, yes: bool) -> None:
    """Import the files of a journal that were not imported before, and print the results."""
    folder = escape_control_characters(str(journal.folder))
    users = sum(file.users for file in journal.files if file.state != "done")
    question = (
        f"{'Import or update' if journal.upsert else 'Import'} {format_count(users, 'user')} of run {journal.run_id}"
        f" into the connection {journal.connection} ({journal.connection_id}) of {client.domain}?"
    )
    if users and not yes and not confirm(escape_control_characters(question)):
        typer.echo(f"nothing was sent; `meibo restore --resume {folder}` imports the files", err=True)
        raise typer.Exit(EXIT_FAILURE)
    try:
        _send(client, journal)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; `meibo restore --resume {folder}` continues the import", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _print_results(journal.files)
    if not all(file.succeeded for file in journal.files):
        if not all(file.state == "done" for file in journal.files):
            typer.echo(f"not complete; `meibo restore --resume {folder}` continues the import", err=True)
        raise typer.Exit(EXIT_DIFFERENT)


def _send(client: Auth0Client, journal: Journal) -> None:
    console = TextConsole(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("import", total=len([file for file in journal.files if file.state != "done"]))
        send(
            client,
            journal,
            advance=lambda _: progress.advance(task),
            notify=lambda text: typer.echo(escape_control_characters(text), err=True),
        )


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
