"""The command ``meibo``: look at an archive, prove it, compare it, bring it back."""

from __future__ import annotations

import os

import typer

from meibo_cli.commands import changes, diff, get, ls, query, report, restore, verify

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local values could show people.
    pretty_exceptions_enable=False,
    help="Look at an archive of user directories, prove it, compare it and bring it back.",
)


@app.callback()
def create_private_files(context: typer.Context) -> None:
    """Create every file and folder of a command for its owner only: most hold personal data."""
    umask = os.umask(0o077)
    context.call_on_close(lambda: os.umask(umask))


app.command("ls")(ls.ls)
app.command("get")(get.get)
app.command("verify")(verify.verify)
app.command("diff")(diff.diff)
app.command("restore")(restore.restore)
app.command("query")(query.query)
app.command("report")(report.report)
app.add_typer(changes.app, name="changes")


if __name__ == "__main__":
    app()
