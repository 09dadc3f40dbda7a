"""``meibo changes``: send membership changes, show their outcomes, and send dead letters again."""

from __future__ import annotations

import typer

from meibo_cli.commands.changes import outcome, redrive, send

app = typer.Typer(
    no_args_is_help=True,
    help="Send membership changes, show their outcomes, and send repaired dead letters again.",
)
app.command("send")(send.send)
app.command("outcome")(outcome.outcome)
app.command("redrive")(redrive.redrive)
