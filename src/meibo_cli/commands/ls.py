"""``meibo ls``: what the archive holds, latest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from meibo.archive.catalog import Run, runs, suspicion
from meibo.archive.keys import run_moment
from meibo.archive.reader import ArchiveReader
from meibo.errors import ConfigurationError
from meibo.formatting import format_age, format_bytes, format_number
from meibo_cli.archive_option import DEFAULT_ARCHIVE, ArchiveOption, open_archive
from meibo_cli.exit_codes import report_errors
from meibo_cli.selection import matches, matching
from meibo_cli.terminal import json_text, printable

_STYLES = {"ok": "green", "suspect": "yellow", "missing": "red"}


@dataclass(frozen=True)
class ListedExport:
    """One export of one run, archived or missing."""

    run_id: str
    export_id: str
    verdict: str
    rows: int | None = None
    bytes: int | None = None
    key: str | None = None
    sha256: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form for programs."""
        source, dataset, format_, scope = (*self.export_id.split("/", 3), "", "", "")[:4]
        return {
            "run_id": self.run_id,
            "source": source,
            "dataset": dataset,
            "format": format_,
            "scope": scope,
            **{name: getattr(self, name) for name in ("rows", "bytes", "verdict", "key", "sha256", "reason")},
            "age_seconds": age_seconds(self.run_id),
        }


def ls(
    export: Annotated[
        str, typer.Argument(help="Only these: acme, acme/users, 'acme/users/ndjson/*'.", show_default=False)
    ] = "",
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    newest: Annotated[int, typer.Option("--runs", "-n", min=1, help="How many runs, counted from the latest.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
) -> None:
    """List runs, sources and datasets, latest first, with rows, bytes, age and verdict."""
    with report_errors():
        reader = open_archive(archive)
        newest_runs = list(islice(runs(reader), newest))
        lines = [line for run in newest_runs for line in _lines(reader, run, export)]
        if newest_runs and not lines:
            raise ConfigurationError(
                f"no export of {'the latest run' if newest == 1 else f'the latest {newest:,} runs'} matches {export!r}"
            )
    if as_json:
        typer.echo(json_text([line.to_json() for line in lines], indent=2))
        return
    if not lines:
        typer.echo(f"{archive} holds no run that ended")
        return
    Console(emoji=False).print(_table(lines))
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    for line in lines:
        if line.reason is not None:
            console.print(f"{_verdict(line)} {printable(line.export_id)} of {line.run_id}: {printable(line.reason)}")


def _verdict(line: ListedExport) -> str:
    verdict = printable(line.verdict)
    return f"[{_STYLES[line.verdict]}]{verdict}[/]" if line.verdict in _STYLES else verdict


def _lines(reader: ArchiveReader, run: Run, pattern: str) -> list[ListedExport]:
    found = [
        ListedExport(
            *(run.run_id, one.export_id, one.verdict, one.rows, one.bytes, one.key, one.sha256),
            reason=suspicion(reader, one) if one.verdict == "suspect" else None,
        )
        for one in matching(run.exports, pattern)
    ]
    found += [
        ListedExport(
            run.run_id, str(one.get("export_id")), "missing", reason=f"{one.get('error')}: {one.get('reason')}"
        )
        for one in run.missing
        if matches(str(one.get("export_id")), pattern)
    ]
    return sorted(found, key=lambda line: line.export_id)


def _table(lines: list[ListedExport]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "export"):
        table.add_column(name, overflow="fold")
    for name in ("rows", "bytes", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    previous = None
    for line in lines:
        if previous not in (None, line.run_id):
            table.add_section()
        table.add_row(
            "" if line.run_id == previous else line.run_id,
            printable(line.export_id),
            format_number(line.rows),
            "–" if line.bytes is None else format_bytes(line.bytes),
            format_age(age_seconds(line.run_id)),
            _verdict(line),
        )
        previous = line.run_id
    return table


def age_seconds(run_id: str, now: datetime | None = None) -> int:
    """Return how long ago a run was scheduled."""
    return int(((now or datetime.now(UTC)) - run_moment(run_id)).total_seconds())
