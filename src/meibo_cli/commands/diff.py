"""``meibo diff``: who was added, removed and changed between two runs."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import duckdb
import typer
from rich.console import Console

from meibo.archive.catalog import ArchivedExport, Run
from meibo.archive.reader import ArchiveReader
from meibo.errors import ConfigurationError, WrongFormatError
from meibo.formatting import format_number
from meibo.providers import find_dataset
from meibo_cli.archive_option import DEFAULT_ARCHIVE, ArchiveOption, open_archive
from meibo_cli.comparison import Comparison, ComparisonCounts
from meibo_cli.exit_codes import report_errors
from meibo_cli.rows import fetch_rows
from meibo_cli.selection import matching, named_run
from meibo_cli.terminal import json_text, printable, spreadsheet_writer

_MAX_FIELDS_SHOWN = 20

WriteRow = Callable[[Iterable[object]], None]


@dataclass(frozen=True)
class ExportComparison:
    """One export of both runs, or of one of them."""

    export_id: str
    counts: ComparisonCounts | None
    only_in: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form for programs."""
        if self.counts is None:
            return {"export_id": self.export_id, "only_in": self.only_in}
        counts = {**vars(self.counts), "fields": dict(self.counts.fields.most_common())}
        return {"export_id": self.export_id, **counts}


def diff(
    run_a: Annotated[str, typer.Argument(help="The earlier run: its id, or latest, or previous.")],
    run_b: Annotated[str, typer.Argument(help="The later run: its id, or latest, or previous.")],
    export: Annotated[
        str, typer.Argument(help="Only these: acme, acme/users, 'acme/users/ndjson/*'.", show_default=False)
    ] = "",
    *,
    fields: Annotated[bool, typer.Option("--fields", help="Also say which fields changed, and how often.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The counts as one JSON document, for programs.")] = False,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            help="Write every row that differs (its key, no values) to this new file; - is stdout. Text that a"
            " spreadsheet would run as a formula begins with an apostrophe.",
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="What tells rows apart, where it is not the id.", show_default=False),
    ] = None,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Compare two runs export by export: rows added, removed and changed. Memory stays bounded at any size."""
    with report_errors():
        reader = open_archive(archive)
        before, after = named_run(reader, run_a), named_run(reader, run_b)
        with _writer(csv_file) as out:
            compared = list(_compare(reader, (before, after), export, tuple(key or ()), out))
    if not compared:
        typer.echo(f"no export of these runs matches {export!r}", err=True)
        raise typer.Exit(2)
    if as_json:
        document = {"run_a": before.run_id, "run_b": after.run_id, "exports": [one.to_json() for one in compared]}
        typer.echo(json_text(document, indent=2))
    elif csv_file != Path("-"):
        _print(before.run_id, after.run_id, compared, fields=fields)


def _compare(
    reader: ArchiveReader, runs: tuple[Run, Run], pattern: str, key: tuple[str, ...], out: WriteRow | None
) -> Iterator[ExportComparison]:
    sides = [{one.folder.address: one for one in matching(run.exports, pattern)} for run in runs]
    for address in sorted({**sides[0], **sides[1]}, key=lambda one: one.export_id):
        pair = [side.get(address) for side in sides]
        if pair[0] is None or pair[1] is None:
            yield ExportComparison(address.export_id, None, runs[0 if pair[0] else 1].run_id)
        elif pair[0].sha256 == pair[1].sha256 and pair[0].rows is not None:
            yield ExportComparison(address.export_id, ComparisonCounts(unchanged=pair[0].rows))
        else:
            yield ExportComparison(address.export_id, _counts(reader, pair[0], pair[1], key, out))


def _counts(
    reader: ArchiveReader, before: ArchivedExport, after: ArchivedExport, key: tuple[str, ...], out: WriteRow | None
) -> ComparisonCounts:
    with tempfile.TemporaryDirectory(prefix="meibo-diff-") as name:
        folder = Path(name)
        sides = [folder / "a", folder / "b"]
        for side in sides:
            side.mkdir()
        try:
            rows = [fetch_rows(reader, one, side, key=key) for one, side in zip((before, after), sides, strict=True)]
            address = before.folder.address
            dataset = find_dataset(address.provider, address.dataset)
            blank_is_null = dataset.blank_is_null or address.format == "csv"
            with Comparison(rows[0], rows[1], folder, blank_is_null=blank_is_null) as comparison:
                for change in comparison.changes():
                    if out is not None:
                        out((before.export_id, change.kind, change.key, " ".join(change.fields)))
                return comparison.counts
        except duckdb.Error as error:
            # DuckDB's messages may quote a row.
            raise WrongFormatError(
                f"{before.export_id} cannot be compared ({type(error).__name__}); run `meibo verify`"
            ) from None


@contextmanager
def _writer(path: Path | None) -> Iterator[WriteRow | None]:
    if path is None:
        yield None
        return
    file: IO[str]
    if path == Path("-"):
        yield _headed(sys.stdout)
        return
    try:
        file = path.open("x", encoding="utf-8", newline="")
    except FileExistsError:
        raise ConfigurationError(f"{path} is there already and is not overwritten") from None
    with file:
        yield _headed(file)


def _headed(file: IO[str]) -> WriteRow:
    write = spreadsheet_writer(file, is_terminal=file.isatty())
    write(("export", "change", "key", "fields"))
    return write


def _print(before: str, after: str, compared: list[ExportComparison], *, fields: bool) -> None:
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    console.print(f"{before} → {after}")
    for one in compared:
        if one.counts is None:
            console.print(f"[bold]{printable(one.export_id)}[/]: only in {one.only_in}")
            continue
        counts = one.counts
        console.print(
            f"[bold]{printable(one.export_id)}[/]: [green]{format_number(counts.added)} added[/],"
            f" [red]{format_number(counts.removed)} removed[/], [yellow]{format_number(counts.changed)} changed[/],"
            f" {format_number(counts.unchanged)} unchanged"
        )
        if counts.duplicates:
            console.print(f"  {format_number(counts.duplicates)} rows share their key with another one")
        if fields:
            shown = counts.fields.most_common(None if console.is_terminal is False else _MAX_FIELDS_SHOWN)
            for name, count in shown:
                console.print(f"  {format_number(count):>12}  {printable(name)}")
