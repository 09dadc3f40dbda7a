"""``meibo restore``: files to import, and for Auth0 the import itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from meibo.archive.catalog import ArchivedExport, Run
from meibo.archive.reader import ArchiveReader, read_document
from meibo.errors import ConfigurationError, SecretError
from meibo.formatting import format_count, format_number
from meibo.providers import column_names
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.datasets import USERS
from meibo_cli.archive_option import DEFAULT_ARCHIVE, ArchiveOption, open_archive
from meibo_cli.download import download
from meibo_cli.encoding import NumberOutOfRangeError, json_bytes, opened, parse_json, readable_json, readable_text
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_FAILURE, report_errors
from meibo_cli.restore.cybozu_csv import CANNOT_COME_BACK, DANGER, write_csv
from meibo_cli.restore.import_files import ImportFiles, UnreadableUser, too_deep, write_files
from meibo_cli.restore.import_jobs import Sent, send
from meibo_cli.rows import csv_rows
from meibo_cli.selection import LATEST, matching, named_run
from meibo_cli.terminal import escape_control_characters, printable

AUTH0_CANNOT_COME_BACK: Final = """\
What cannot come back to Auth0:
  - passwords and MFA factors: no export holds them; every user needs a password reset
  - users of other connections (social, enterprise, passwordless): they come back when they log in
  - organization memberships and roles: see `meibo changes` for memberships
  - logins, dates, linked accounts, and everything else that the import refuses; the report names it
  With --upsert, metadata of users that are still there is replaced, not merged, and their e-mail, username,
  phone and blocked are left as they are.
"""
_CREDENTIALS: Final = ("client_id", "client_secret", "private_key", "key_id", "algorithm")


def restore(
    export: Annotated[
        str, typer.Argument(help="An Auth0 users export (acme/users/ndjson/all), or a cybozu.com source (example).")
    ],
    *,
    run: Annotated[str, typer.Option("--run", "-r", help="The run's id, or latest, or previous.")] = LATEST,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder for the files.")] = Path("restore"),
    select: Annotated[
        list[str] | None,
        typer.Option("--select", help="Only this user: id, e-mail or login; may be repeated.", show_default=False),
    ] = None,
    only_connection: Annotated[
        str | None, typer.Option("--only-connection", help="Auth0: only users of the connection of this name.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Auth0: send the files to a tenant.")] = False,
    domain: Annotated[str | None, typer.Option("--domain", help="With --apply: the tenant's domain.")] = None,
    connection_id: Annotated[
        str | None, typer.Option("--connection-id", help="With --apply: the database connection that receives them.")
    ] = None,
    upsert: Annotated[
        bool | None,
        typer.Option("--upsert/--no-upsert", help="With --apply: whether users that are there are changed."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --apply: do not ask.")] = False,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Turn an archived export into files that its provider imports; with --apply, import them into Auth0.

    Credentials for --apply are read from MEIBO_<SOURCE>_CLIENT_ID and MEIBO_<SOURCE>_CLIENT_SECRET (or _PRIVATE_KEY).
    """
    with report_errors():
        reader = open_archive(archive)
        chosen = named_run(reader, run)
        found = [
            one
            for one in matching(chosen.exports, export)
            if one.folder.address.provider == "cybozu" or one.folder.address.dataset == "users"
        ]
        providers = {one.folder.address.provider for one in found}
        if providers == {"cybozu"}:
            if apply:
                raise ConfigurationError("Meibo never sends files to cybozu.com; import them yourself, in their order")
            _cybozu(reader, chosen, found, output, tuple(select or ()))
            return
        one = _one(found, export, chosen)
        client = _client(one, domain, connection_id, upsert) if apply else None
        typer.echo(AUTH0_CANNOT_COME_BACK, err=True)
        written = _files(reader, one, output, tuple(select or ()), only_connection)
        _print(written)
        if client is None:
            return
        if len(written.connections) > 1 and only_connection is None:
            raise ConfigurationError(
                f"the users are of {len(written.connections)} connections; choose one with --only-connection:"
                f" {', '.join(sorted(written.connections)[:10])}"
            )
        question = f"Import {format_count(written.users, 'user')} into {connection_id} of {client.domain}?"
        if not yes and not _confirmed(question):
            raise typer.Exit(EXIT_FAILURE)
        results = _send(client, written, connection_id or "", upsert=bool(upsert))
    _table(results)
    if not all(one.well for one in results):
        raise typer.Exit(EXIT_DIFFERENT)


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # nobody there to answer
        return False


def _one(found: list[ArchivedExport], pattern: str, run: Run) -> ArchivedExport:
    if len(found) != 1:
        users = [one for one in run.exports if one.folder.address.dataset == "users"]
        names = ", ".join(one.export_id for one in (found or users)[:10])
        raise ConfigurationError(f"{pattern!r} is not one users export of the run {run.run_id}; name one of: {names}")
    return found[0]


def _client(one: ArchivedExport, domain: str | None, connection_id: str | None, upsert: bool | None) -> Auth0Client:
    if domain is None or connection_id is None or upsert is None:
        raise ConfigurationError("--apply needs --domain, --connection-id, and --upsert or --no-upsert")
    prefix = f"MEIBO_{one.folder.address.source.replace('-', '_').upper()}_"
    secret = {
        key: os.environ[prefix + key.upper()].replace("\\n", "\n")
        for key in _CREDENTIALS
        if os.environ.get(prefix + key.upper())
    }
    if not secret:
        raise SecretError(f"set {prefix}CLIENT_ID and {prefix}CLIENT_SECRET of an application with create:users")
    credentials = Auth0Credentials.from_secret(secret)
    return Auth0Client(domain, lambda: credentials)


def _files(
    reader: ArchiveReader, one: ArchivedExport, output: Path, selected: tuple[str, ...], connection: str | None
) -> ImportFiles:
    with tempfile.TemporaryDirectory(prefix="meibo-restore-") as name:
        path = Path(name) / "export"
        download(reader, one, path)
        names = dict(column_names("auth0", read_document(reader, one.manifest_key) or {}))
        if "user_id" not in names or "email" not in names:
            raise ConfigurationError(f"{one.export_id} does not hold user_id and email, which an import needs")
        text_only = one.folder.address.format == "csv"
        rows = _csv_objects(path) if text_only else _objects(path)
        return write_files(rows, output, names=names, text_only=text_only, connection=connection, selected=selected)


def _objects(path: Path) -> Iterator[Mapping[str, Any] | UnreadableUser]:
    with opened(path) as file:
        for line in file:
            if not line.strip():
                continue
            if too_deep(line):
                yield UnreadableUser("nested too deeply", line)
                continue
            yield _object(line)


def _object(line: bytes) -> Mapping[str, Any] | UnreadableUser:
    try:
        row: Any = parse_json(line.decode())
    except UnicodeDecodeError:
        readable = readable_json(line)
        row = _object(readable)
        return (
            UnreadableUser("not JSON", line)
            if row == UnreadableUser("not JSON", readable)
            else UnreadableUser("not UTF-8", readable)
        )
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


def _cybozu(
    reader: ArchiveReader, run: Run, found: list[ArchivedExport], output: Path, selected: tuple[str, ...]
) -> None:
    sources = {one.folder.address.source for one in found}
    if len(sources) != 1:
        raise ConfigurationError(f"name one source of the run {run.run_id}: {', '.join(sorted(sources))}")
    exports = {
        one.folder.address.dataset: one
        for one in found
        if one.folder.address.format == "csv" and one.folder.address.scope == "all"
    }
    typer.echo(CANNOT_COME_BACK, err=True)
    written = write_csv(reader, exports, output, selected=selected)
    for path in written.files:
        typer.echo(escape_control_characters(str(path)))
    if any(path.name.endswith("-organization.csv") for path in written.files):
        typer.echo("\n" + DANGER, err=True)
    if written.absent:
        typer.echo(f"not in this run: {', '.join(written.absent)}", err=True)
    _not_found(len(written.not_found))


def _print(written: ImportFiles) -> None:
    printed = escape_control_characters(str(written.folder))
    typer.echo(f"{format_count(written.users, 'user')} in {format_count(len(written.files), 'file')} in {printed}/")
    for reason, count in written.left_out.users.most_common():
        typer.echo(f"  {format_count(count, 'user')} apart: {reason}")
    for name, count in written.left_out.fields.most_common():
        typer.echo(f"  left out of {format_count(count, 'user')}: {escape_control_characters(name)}")
    _not_found(len(written.not_found))


def _not_found(count: int) -> None:
    if count:
        typer.echo(
            f"{format_number(count)} of the selected users {'is' if count == 1 else 'are'} not in this export", err=True
        )
        raise typer.Exit(EXIT_DIFFERENT)


def _send(client: Auth0Client, written: ImportFiles, connection_id: str, *, upsert: bool) -> list[Sent]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("import", total=len(written.files))
        return send(
            client,
            written.files,
            connection_id=connection_id,
            upsert=upsert,
            advance=lambda _: progress.advance(bar),
        )


def _table(results: list[Sent]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("file", "total")
    table.add_column("job")
    table.add_column("state")
    for name in ("inserted", "updated", "failed"):
        table.add_column(name, format_number(sum(getattr(one, name) for one in results)), justify="right")
    table.add_column("why", overflow="fold")
    for one in results:
        codes = ", ".join(f"{code} {count}" for code, count in one.codes.most_common())
        counts = (format_number(one.inserted), format_number(one.updated), format_number(one.failed))
        told = (one.file.name, one.job_id or "", one.state, *counts, one.reason or codes)
        table.add_row(*map(printable, told))
    Console(emoji=False).print(table)
