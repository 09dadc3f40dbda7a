"""``meibo report``: write a page about the state of the archive."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from meibo.archive.runs import run_ids
from meibo.errors import ConfigurationError
from meibo.report.page import render
from meibo.report.state import gather
from meibo_cli.files import STDOUT, write_stdout
from meibo_cli.selection import DEFAULT_ARCHIVE, ArchiveOption, open_archive


def report(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write, or - for stdout. An existing file is replaced.")
    ] = Path("index.html"),
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Write an HTML page with the age, size and rows of every export over time. It contains no user data."""
    if not output.parent.is_dir():
        raise ConfigurationError(f"--output: the folder {output.parent} does not exist")
    reader = open_archive(archive)
    if next(run_ids(reader), None) is None:
        raise ConfigurationError(f"{reader.name} contains no run; check --archive")
    page = render(gather(reader, datetime.now(UTC)))
    if output == STDOUT:
        write_stdout(page.encode())
        return
    output.write_text(page, encoding="utf-8")
    typer.echo(str(output))
