"""Messages and confirmations of all kinds of restore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import suspect_reason
from meibo.archive.storage import ArchiveReader
from meibo.errors import MeiboError
from meibo.formatting import format_number
from meibo.providers.auth0.client import Auth0Client
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_FAILURE, EXIT_INTERRUPTED
from meibo_cli.restore.auth0_target import missing_scopes
from meibo_cli.terminal import escape_control_characters


def warn_if_suspect(reader: ArchiveReader, export: ArchivedExport) -> None:
    """Print a warning with the reason if an export is suspect."""
    if export.verdict == "suspect":
        warning = f"warning: {export.export_id} of this run is suspect: {suspect_reason(reader, export)}"
        typer.echo(escape_control_characters(warning), err=True)


def warn_if_scopes_missing(client: Auth0Client, scopes: Iterable[str]) -> None:
    """Print a warning if the access token does not contain all OAuth scopes for the import or the plan."""
    if missing := missing_scopes(client, scopes):
        typer.echo(f"warning: --resume will require the OAuth scopes {', '.join(missing)} of {client.name}", err=True)


def require_confirmation(question: str, refusal: str) -> None:
    """Ask a question. If the answer is not yes, print the refusal and exit with ``EXIT_FAILURE``."""
    try:
        is_confirmed = typer.confirm(escape_control_characters(question), err=True)
    except typer.Abort:
        is_confirmed = False
    if not is_confirmed:
        typer.echo(escape_control_characters(refusal), err=True)
        raise typer.Exit(EXIT_FAILURE)


@contextmanager
def resumable(hint: str) -> Iterator[None]:
    """Print the hint, which names the command that continues, if the block is interrupted or raises MeiboError.

    An interruption exits with ``EXIT_INTERRUPTED``. MeiboError is raised again.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(escape_control_characters(f"interrupted; {hint}"), err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except MeiboError:
        typer.echo(escape_control_characters(f"not complete; {hint}"), err=True)
        raise


def report_not_found(count: int, result: str = "") -> None:
    """If an export does not contain all selected users, print their number and exit with ``EXIT_DIFFERENT``."""
    if count:
        verb = "is" if count == 1 else "are"
        typer.echo(f"{format_number(count)} of the selected users {verb} not in this export{result}", err=True)
        raise typer.Exit(EXIT_DIFFERENT)
