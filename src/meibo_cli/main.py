"""The command ``meibo``: create, list, verify, compare, query and restore an archive, and change memberships."""

from __future__ import annotations

import os
from typing import Annotated

import typer

import meibo
from meibo_cli.command_group import CommandGroup
from meibo_cli.commands import changes, check, diff, drill, get, history, init, ls, query, report, restore, run, verify
from meibo_cli.terminal import prepare_streams

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # A traceback with local variables may contain user data.
    pretty_exceptions_enable=False,
    help="Archive user directories, and list, verify, compare, query and restore archives.",
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"meibo {meibo.__version__}")
        raise typer.Exit


@app.callback()
def prepare(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  # its callback prints the version
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make new files and folders readable by their owner only, and adapt the output to the encoding of the terminal."""
    umask = os.umask(0o077)
    context.call_on_close(lambda: os.umask(umask))
    prepare_streams()


for command in (
    init.init,
    check.check,
    run.run,
    ls.ls,
    get.get,
    verify.verify,
    diff.diff,
    history.history,
    restore.restore,
    drill.drill,
    query.query,
    report.report,
):
    app.command()(command)
app.add_typer(changes.app, name="changes")
