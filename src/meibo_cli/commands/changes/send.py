"""``meibo changes send``: send the changes of a CSV file to the queue."""

from __future__ import annotations

import hashlib
import math
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from meibo.changes.apply import auth0_client
from meibo.changes.messages import AddChange, InviteChange
from meibo.changes.queue import encode_message
from meibo.configuration import parse_documents
from meibo.errors import ConfigurationError
from meibo.formatting import format_count, format_number
from meibo.providers.auth0.membership import users_by_email
from meibo.providers.base import ProviderContext
from meibo.secrets import read_configuration
from meibo_cli.change_sheet import FindUsers, Sheet, SheetError, read_sheet
from meibo_cli.stack import DEFAULT_STACK, StackOption, queues_of
from meibo_cli.terminal import Column, TextConsole, escape_control_characters, print_table, printable

_MAX_FAULTS_SHOWN = 50


def send(  # noqa: PLR0917  # typer reads options from the signature
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="A CSV file with the columns organization, action, member and, optionally, roles.",
        ),
    ],
    source: Annotated[str, typer.Option("--source", help="Name of the Auth0 source in the configuration.")],
    stack: StackOption = DEFAULT_STACK,
    change_id: Annotated[
        str, typer.Option("--change-id", help="Id of the change. Default: the name of the file and the time.")
    ] = "",
    requested_by: Annotated[
        str, typer.Option("--requested-by", help="The person who requests the change; recorded with the outcomes.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate the changes and record the outcomes, without changing members.")
    ] = False,
    confirm_removals: Annotated[
        int | None, typer.Option("--confirm-removals", min=0, help="The exact number of removals in the file.")
    ] = None,
    client_id: Annotated[
        str, typer.Option("--client-id", help="For invitations: the client id of the application.")
    ] = "",
    inviter: Annotated[str, typer.Option("--inviter", help="For invitations: the name of the inviter.")] = "",
    ttl_sec: Annotated[
        int,
        typer.Option(
            "--ttl-sec", min=0, help="For invitations: the seconds until they expire, or 0 for the default of Auth0."
        ),
    ] = 0,
    send_email: Annotated[
        bool, typer.Option("--send-email", help="For invitations: let Auth0 send an e-mail.")
    ] = False,
    configuration: Annotated[
        str, typer.Option("--configuration", help="SSM parameter with the sources, to look up e-mail addresses.")
    ] = "/meibo/sources",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Send without confirmation.")] = False,
) -> None:
    """Validate a CSV file as a whole, show its changes, and send them.

    A member is a user id (auth0|…) or an e-mail address. An address to be added or removed is looked up in the tenant
    when the file is validated; an address to be invited is sent unchanged. If the file has an error, nothing is sent.
    """
    console = TextConsole()
    common: dict[str, Any] = {"change_id": change_id or _change_id(file), "source": source}
    if requested_by:
        common["requested_by"] = requested_by
    if dry_run:
        common["dry_run"] = True
    invitation: dict[str, Any] | None = None
    if client_id and inviter:
        invitation = {"client_id": client_id, "inviter": inviter, "send_email": send_email}
        invitation |= {"ttl_sec": ttl_sec} if ttl_sec else {}
    try:
        sheet = read_sheet(file, common, users=_user_lookup(configuration, source), invitation=invitation)
    except SheetError as error:
        for fault in error.faults[:_MAX_FAULTS_SHOWN]:
            typer.echo(escape_control_characters(fault), err=True)
        raise
    _print_changes(console, sheet, common["change_id"])
    _confirm(sheet, confirm_removals, dry_run=dry_run, yes=yes)
    queues = queues_of(stack)
    for change in sheet.changes:
        queues.send(change, deduplication_id=hashlib.sha256(encode_message(change).encode()).hexdigest())
    console.print(
        f"sent {format_count(len(sheet.changes), 'message')};"
        f" `meibo changes outcome {printable(common['change_id'])}` shows the outcomes"
    )


def _change_id(file: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9]", "-", file.stem).strip("-")[:60]
    return f"{stem or 'changes'}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def _confirm(sheet: Sheet, confirmed: int | None, *, dry_run: bool, yes: bool) -> None:
    removals = sheet.count("remove")
    if confirmed not in {None, removals}:
        raise ConfigurationError(
            f"--confirm-removals: expected {removals}, the number of removals in the file, found {confirmed};"
            " nothing was sent"
        )
    if yes and removals and confirmed is None and not dry_run:
        raise ConfigurationError(
            f"the file has {format_count(removals, 'removal')}: confirm with --confirm-removals {removals};"
            " nothing was sent"
        )
    if yes or dry_run:
        return
    if removals and confirmed is None:
        question = f"This removes {format_count(removals, 'member')}. Type the number to continue"
        is_confirmed = typer.prompt(question, default="", show_default=False, err=True).strip() == str(removals)
    else:
        is_confirmed = typer.confirm("Send the changes?", err=True)
    if not is_confirmed:
        raise ConfigurationError("nothing was sent")


def _print_changes(console: TextConsole, sheet: Sheet, change_id: str) -> None:
    columns = (Column("organization"), Column("action"), Column("members", number=True), Column("roles", wraps=True))
    rows = [
        (
            printable(change.organization_id),
            f"[{'red' if change.action == 'remove' else 'green'}]{change.action}[/]",
            format_number(len(change.members)),
            printable(", ".join(change.roles if isinstance(change, AddChange | InviteChange) else ())),
        )
        for change in sheet.changes
    ]
    print_table(console, columns, rows, title=f"change {printable(change_id)}")


def _user_lookup(configuration: str, name: str) -> FindUsers:
    """Return a function that looks up an e-mail address with the credentials of the source."""
    parse = cache(lambda: parse_documents(read_configuration(configuration)))
    context = ProviderContext(time_left=lambda: math.inf)

    def find_users(email: str) -> list[str]:
        client = auth0_client(parse(), name, context)
        if client is None:
            raise ConfigurationError(f"--source: expected the name of a configured Auth0 source, found {name!r}")
        return users_by_email(client, email)

    return find_users
