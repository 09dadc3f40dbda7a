"""The command ``meibo``: create, list, verify, compare, query and restore an archive, and change memberships."""

from __future__ import annotations

import os

import typer

from meibo_cli.commands import changes, check, diff, get, init, ls, query, report, restore, run, verify

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # A traceback with local variables may contain user data.
    pretty_exceptions_enable=False,
    help="Archive user directories, and list, verify, compare, query and restore archives.",
)


@app.callback()
def create_private_files(context: typer.Context) -> None:
    """Make files and folders that a command creates readable by their owner only, because most contain user data."""
    umask = os.umask(0o077)
    context.call_on_close(lambda: os.umask(umask))


app.command("init")(init.init)
app.command("check")(check.check)
app.command("run")(run.run)
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
