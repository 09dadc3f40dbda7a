"""``meibo changes``: send membership changes, show their outcomes, and send DLQ messages again."""

from __future__ import annotations

import typer

from meibo_cli.command_group import CommandGroup
from meibo_cli.commands.changes import outcome, redrive, send

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Send membership changes, show their outcomes, and send corrected DLQ messages again.",
)
app.command("send")(send.send)
app.command("outcome")(outcome.outcome)
app.command("redrive")(redrive.redrive)
