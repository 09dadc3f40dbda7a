"""``meibo report``: write a page about the state of the archive."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from meibo.errors import ConfigurationError
from meibo.report.page import render
from meibo.report.state import gather
from meibo_cli.exit_codes import report_errors
from meibo_cli.selection import DEFAULT_ARCHIVE, ArchiveOption, open_archive


def report(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write. An existing file is replaced.")
    ] = Path("index.html"),
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Write an HTML page with the age, size and rows of every export over time. It contains no user data."""
    with report_errors():
        if not output.parent.is_dir():
            raise ConfigurationError(f"--output: the folder {output.parent} does not exist")
        page = render(gather(open_archive(archive), datetime.now(UTC)))
        output.write_text(page, encoding="utf-8")
    typer.echo(str(output))
