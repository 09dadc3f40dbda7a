"""``meibo restore``: write import files, and import them into Auth0 with ``--apply``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from meibo.archive.manifest import ArchivedExport, ExportManifest
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError, SecretError
from meibo.formatting import format_count, format_number
from meibo.providers import column_names
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.datasets import USERS
from meibo_cli.credentials import credentials_of, variable_prefix
from meibo_cli.download import download
from meibo_cli.encoding import (
    NumberOutOfRangeError,
    json_bytes,
    open_decompressed,
    parse_json,
    readable_json,
    readable_text,
)
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_FAILURE, report_errors
from meibo_cli.restore.cybozu_csv import DANGER, NOT_RESTORABLE, write_csv
from meibo_cli.restore.import_files import ImportFiles, UnreadableUser, too_deep, write_files
from meibo_cli.restore.import_jobs import ImportResult, send
from meibo_cli.rows import csv_rows
from meibo_cli.selection import (
    DEFAULT_ARCHIVE,
    LATEST,
    ArchiveOption,
    RunOption,
    matching,
    named_run,
    open_archive,
    single_export,
)
from meibo_cli.terminal import escape_control_characters, printable

AUTH0_NOT_RESTORABLE: Final = """\
Meibo cannot restore the following in Auth0:
  - passwords and MFA factors: no export contains them; every user needs a password reset
  - users of other connections (social, enterprise, passwordless): they are created again at their next login
  - organization memberships and roles: see `meibo changes` for memberships
  - logins, dates, linked accounts, and other fields that the import rejects; the report lists them
  With --upsert, metadata of existing users is replaced, not merged; their email, username, phone_number
  and blocked fields are not changed.
"""
_CREDENTIALS: Final = ("client_id", "client_secret", "private_key", "key_id", "algorithm")


def restore(
    export: Annotated[
        str, typer.Argument(help="An Auth0 users export (acme/users/ndjson/all), or a cybozu.com source (example).")
    ],
    *,
    run: RunOption = LATEST,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder for the files.")] = Path("restore"),
    select: Annotated[
        list[str] | None,
        typer.Option("--select", help="Only this user: id, e-mail or login. Repeatable.", show_default=False),
    ] = None,
    only_connection: Annotated[
        str | None, typer.Option("--only-connection", help="Auth0: only users of the connection with this name.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Auth0: import the files into a tenant.")] = False,
    domain: Annotated[str | None, typer.Option("--domain", help="With --apply: the domain of the tenant.")] = None,
    connection_id: Annotated[
        str | None, typer.Option("--connection-id", help="With --apply: the id of the database connection.")
    ] = None,
    upsert: Annotated[
        bool | None, typer.Option("--upsert/--no-upsert", help="With --apply: update existing users, or ignore them.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --apply: import without confirmation.")] = False,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Convert an archived export into files that the provider can import. With --apply, import them into Auth0.

    The credentials for --apply are MEIBO_<SOURCE>_CLIENT_ID and MEIBO_<SOURCE>_CLIENT_SECRET (or _PRIVATE_KEY).
    """
    selected = tuple(select or ())
    with report_errors():
        reader = open_archive(archive)
        exports = named_run(reader, run).exports
        users = [archived for archived in exports if archived.folder.address.dataset == "users"]
        matched = [
            archived
            for archived in matching(exports, export)
            if archived.folder.address.provider == "cybozu" or archived in users
        ]
        if {archived.folder.address.provider for archived in matched} == {"cybozu"}:
            if apply:
                raise ConfigurationError("--apply is for Auth0 only; import the files into cybozu.com yourself")
            _write_cybozu(reader, matched, output, selected)
            return
        users_export = single_export(matched or users, export)
        client = _client(users_export, domain, connection_id, upsert) if apply else None
        typer.echo(AUTH0_NOT_RESTORABLE, err=True)
        written = _write_auth0(reader, users_export, output, selected, only_connection)
        _print(written)
        if client is None:
            return
        if len(written.connections) > 1 and only_connection is None:
            raise ConfigurationError(
                f"the users have {len(written.connections)} connections; choose a connection with --only-connection:"
                f" {', '.join(sorted(written.connections)[:10])}"
            )
        question = f"Import {format_count(written.users, 'user')} into {connection_id} of {client.domain}?"
        if not yes and not _confirm(question):
            raise typer.Exit(EXIT_FAILURE)
        results = _send(client, written, connection_id or "", upsert=bool(upsert))
    _print_results(results)
    if not all(result.succeeded for result in results):
        raise typer.Exit(EXIT_DIFFERENT)


def _confirm(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # stdin has ended
        return False


def _client(export: ArchivedExport, domain: str | None, connection_id: str | None, upsert: bool | None) -> Auth0Client:
    if domain is None or connection_id is None or upsert is None:
        raise ConfigurationError("--apply requires --domain, --connection-id, and --upsert or --no-upsert")
    source = export.folder.address.source
    secret = credentials_of(source, _CREDENTIALS, os.environ)
    if not secret:
        prefix = variable_prefix(source)
        raise SecretError(
            f"set {prefix}CLIENT_ID and {prefix}CLIENT_SECRET of an application with the OAuth scope create:users"
        )
    credentials = Auth0Credentials.from_secret(secret)
    return Auth0Client(domain, lambda: credentials)


def _write_auth0(
    reader: ArchiveReader, export: ArchivedExport, output: Path, selected: tuple[str, ...], connection: str | None
) -> ImportFiles:
    with tempfile.TemporaryDirectory(prefix="meibo-restore-") as name:
        path = Path(name) / "export"
        download(reader, export, path)
        manifest = ExportManifest.read(reader, export.manifest_key)
        request = manifest.request if manifest else {}
        names = dict(column_names("auth0", "users", export.folder.address.format, request))
        if "user_id" not in names or "email" not in names:
            raise ConfigurationError(
                f"{export.export_id}: expected the fields user_id and email, which an import requires; add them"
                " to the export and start a new run"
            )
        text_only = export.folder.address.format == "csv"
        rows = _csv_objects(path) if text_only else _objects(path)
        return write_files(rows, output, names=names, text_only=text_only, connection=connection, selected=selected)


def _objects(path: Path) -> Iterator[Mapping[str, Any] | UnreadableUser]:
    with open_decompressed(path) as file:
        for line in file:
            if line.strip():
                yield UnreadableUser("nested too deeply", line) if too_deep(line) else _object(line)


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


def _write_cybozu(
    reader: ArchiveReader, exports: Sequence[ArchivedExport], output: Path, selected: tuple[str, ...]
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
    written = write_csv(reader, by_dataset, output, selected=selected)
    for path in written.files:
        typer.echo(escape_control_characters(str(path)))
    if any(path.name.endswith("-organization.csv") for path in written.files):
        typer.echo("\n" + DANGER, err=True)
    if written.missing:
        typer.echo(f"not in this run: {', '.join(written.missing)}", err=True)
    _report_not_found(len(written.not_found))


def _print(written: ImportFiles) -> None:
    folder = escape_control_characters(str(written.folder))
    typer.echo(f"{format_count(written.users, 'user')} in {format_count(len(written.files), 'file')} in {folder}/")
    for reason, count in written.skipped.users.most_common():
        typer.echo(f"  {format_count(count, 'user')} skipped: {reason}")
    for name, count in written.skipped.fields.most_common():
        typer.echo(f"  removed from {format_count(count, 'user')}: {escape_control_characters(name)}")
    _report_not_found(len(written.not_found))


def _report_not_found(count: int) -> None:
    if count:
        verb = "is" if count == 1 else "are"
        typer.echo(f"{format_number(count)} of the selected users {verb} not in this export", err=True)
        raise typer.Exit(EXIT_DIFFERENT)


def _send(client: Auth0Client, written: ImportFiles, connection_id: str, *, upsert: bool) -> list[ImportResult]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("import", total=len(written.files))
        return send(
            client,
            written.files,
            connection_id=connection_id,
            upsert=upsert,
            advance=lambda _: progress.advance(task),
        )


def _print_results(results: Sequence[ImportResult]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("file", "total")
    table.add_column("job")
    table.add_column("state")
    for name in ("inserted", "updated", "failed"):
        table.add_column(name, format_number(sum(getattr(result, name) for result in results)), justify="right")
    table.add_column("reason", overflow="fold")
    for result in results:
        codes = ", ".join(f"{code} {count}" for code, count in result.codes.most_common())
        counts = (format_number(result.inserted), format_number(result.updated), format_number(result.failed))
        cells = (result.file.name, result.job_id, result.state, *counts, result.reason or codes)
        table.add_row(*map(printable, cells))
    Console(emoji=False).print(table)
