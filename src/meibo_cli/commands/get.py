"""``meibo get``: download an export to a file."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from meibo.errors import ConfigurationError
from meibo_cli.download import checked_chunks, download
from meibo_cli.files import STDOUT, write_stdout
from meibo_cli.selection import (
    DEFAULT_ARCHIVE,
    LATEST,
    ArchiveOption,
    RunOption,
    named_run,
    open_archive,
    single_export,
)
from meibo_cli.terminal import escape_control_characters, printable, progress_bar


def get(
    export: Annotated[
        str, typer.Argument(help="The id of the export, such as acme/users/ndjson/all, or the first parts of the id.")
    ],
    run: RunOption = LATEST,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new file, an existing folder, or - for stdout.", show_default=False),
    ] = None,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Download an export and verify its SHA-256. Existing files are not overwritten.

    With -o -, the exit status is 2 if the bytes that were written do not match the manifest.
    """
    reader = open_archive(archive)
    selected = single_export(named_run(reader, run).exports, export)
    if output == STDOUT:
        if sys.stdout.isatty():
            raise ConfigurationError("--output: expected a file or a pipe, because stdout is a terminal")
        for chunk in checked_chunks(reader, selected):
            write_stdout(chunk)
        return
    target = output or Path(PurePosixPath(selected.key).name)
    if target.is_dir():
        target /= PurePosixPath(selected.key).name
    if not target.parent.is_dir():
        raise ConfigurationError(f"--output: the folder {target.parent} does not exist")
    with progress_bar(printable(target.name), selected.bytes) as advance:
        download(reader, selected, target, advance=advance)
    typer.echo(f"{selected.sha256}  {escape_control_characters(str(target))}")
