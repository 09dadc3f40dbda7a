"""``meibo report``: the page that shows the archive's state at a glance."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from meibo.errors import ConfigurationError
from meibo.report.page import render
from meibo.report.state import gather
from meibo_cli.archive_option import DEFAULT_ARCHIVE, ArchiveOption, open_archive
from meibo_cli.exit_codes import report_errors


def report(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to write the page; replaced if it is there.")
    ] = (Path("index.html")),
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Write one HTML page: every export's latest archive, freshness, size and rows over time. No user data."""
    with report_errors():
        if not output.parent.is_dir():
            raise ConfigurationError(f"there is no folder {output.parent} to write to")
        page = render(gather(open_archive(archive), datetime.now(UTC)))
        output.write_text(page, encoding="utf-8")
    typer.echo(str(output))
