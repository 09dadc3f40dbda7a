"""``meibo ls``: list the exports of the newest runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Final

import typer

from meibo.archive.keys import run_moment
from meibo.archive.runs import Run, runs, suspect_reason
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError
from meibo.formatting import format_age, format_bytes, format_number
from meibo_cli.selection import DEFAULT_ARCHIVE, ArchiveOption, ExportsArgument, matches, matching, open_archive
from meibo_cli.terminal import Column, TextConsole, json_text, print_table, printable

_COLUMNS: Final = (
    Column("run"),
    Column("export"),
    Column("rows", number=True),
    Column("verdict"),
    Column("age", number=True, optional=True),
    Column("size", number=True, optional=True),
)
_STYLES = {"ok": "green", "suspect": "yellow", "missing": "red"}


@dataclass(frozen=True)
class ListedExport:
    """An export of a run, which is archived or missing."""

    run_id: str
    export_id: str
    verdict: str
    rows: int | None = None
    bytes: int | None = None
    key: str | None = None
    sha256: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
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
    export: ExportsArgument = "",
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    newest: Annotated[
        int, typer.Option("--runs", "-n", min=1, help="The number of runs, beginning with the latest.")
    ] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the exports of the latest runs with their number of rows, verdict, age and size."""
    reader = open_archive(archive)
    newest_runs = list(islice(runs(reader), newest))
    lines = [line for run in newest_runs for line in _lines(reader, run, export)]
    if newest_runs and not lines:
        runs_ = "the latest run" if newest == 1 else f"the latest {newest:,} runs"
        raise ConfigurationError(f"no export of {runs_} matches {export!r}")
    if not newest_runs:
        raise ConfigurationError(f"{reader.name} contains no finished run; check --archive")
    if as_json:
        typer.echo(json_text([line.to_json() for line in lines], indent=2))
        return
    console = TextConsole()
    print_table(console, _COLUMNS, list(_rows(lines)))
    for line in lines:
        if line.reason is not None:
            console.print(f"{_verdict(line)} {printable(line.export_id)} of {line.run_id}: {printable(line.reason)}")


def _verdict(line: ListedExport) -> str:
    verdict = printable(line.verdict)
    return f"[{_STYLES[line.verdict]}]{verdict}[/]" if line.verdict in _STYLES else verdict


def _lines(reader: ArchiveReader, run: Run, pattern: str) -> list[ListedExport]:
    lines = [
        ListedExport(
            *(run.run_id, export.export_id, export.verdict, export.rows, export.bytes, export.key, export.sha256),
            reason=suspect_reason(reader, export) if export.verdict == "suspect" else None,
        )
        for export in matching(run.exports, pattern)
    ]
    lines += [
        ListedExport(run.run_id, missing.export_id, "missing", reason=f"{missing.error}: {missing.reason}")
        for missing in run.missing
        if matches(missing.export_id, pattern)
    ]
    return sorted(lines, key=lambda line: line.export_id)


def _rows(lines: Sequence[ListedExport]) -> Iterator[tuple[str, ...]]:
    for line in lines:
        yield (
            line.run_id,
            printable(line.export_id),
            format_number(line.rows),
            _verdict(line),
            format_age(age_seconds(line.run_id)),
            "–" if line.bytes is None else format_bytes(line.bytes),
        )


def age_seconds(run_id: str, now: datetime | None = None) -> int:
    """Return the seconds since the scheduled time of a run."""
    return int(((now or datetime.now(UTC)) - run_moment(run_id)).total_seconds())
