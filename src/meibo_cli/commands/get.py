"""``meibo get``: one export to a file, its digest checked on the way."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from meibo.errors import ConfigurationError
from meibo_cli.archive_option import DEFAULT_ARCHIVE, ArchiveOption, open_archive
from meibo_cli.download import download
from meibo_cli.exit_codes import report_errors
from meibo_cli.selection import LATEST, named_run, one_export
from meibo_cli.terminal import escape_control_characters, printable


def get(
    export: Annotated[str, typer.Argument(help="The export: acme/users/ndjson/all, or enough of it to be one.")],
    run: Annotated[str, typer.Option("--run", "-r", help="The run's id, or latest, or previous.")] = LATEST,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; it must not exist.", show_default=False)
    ] = None,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Download one export and check its SHA-256 on the way. Nothing is overwritten."""
    with report_errors():
        reader = open_archive(archive)
        chosen = one_export(named_run(reader, run), export)
        target = output or Path(PurePosixPath(chosen.key).name)
        if target.is_dir():
            target /= PurePosixPath(chosen.key).name
        if not target.parent.is_dir():
            raise ConfigurationError(f"there is no folder {target.parent} to write to")
        console = Console(stderr=True, emoji=False)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(printable(target.name), total=chosen.bytes)
            download(reader, chosen, target, advance=lambda count: progress.advance(task, count))
    typer.echo(f"{chosen.sha256}  {escape_control_characters(str(target))}")
