"""``meibo diff``: compare the exports of two runs, or of a run and the current state of its tenants."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import duckdb
import typer

from meibo.archive.manifest import ArchivedExport
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError, UnexpectedError
from meibo.exports.resolve import as_configured_now
from meibo.formatting import format_count, format_number
from meibo.providers import find_dataset
from meibo_cli.comparison import Comparison, ComparisonCounts
from meibo_cli.files import STDOUT, new_file
from meibo_cli.live_archive import ArchivedRun, live_archive, planned_exports
from meibo_cli.rows import fetch_rows
from meibo_cli.selection import DEFAULT_ARCHIVE, ArchiveOption, ExportsArgument, matching, named_run, open_archive
from meibo_cli.sources import ENV_FILE, SourceSecret, read_sources, secret_reader
from meibo_cli.terminal import TextConsole, json_text, printable, show_activity, spreadsheet_writer, use_utf8_in_pipes

LIVE = "live"
"""The argument that selects the current state of the tenants as the later run."""
_MAX_FIELDS_SHOWN = 20

WriteRow = Callable[[Iterable[object]], None]


@dataclass(frozen=True)
class ExportComparison:
    """The comparison of one export; ``only_in`` is the id of the run if only one of the two runs contains it."""

    export_id: str
    counts: ComparisonCounts | None
    only_in: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the export in the output of ``--json``."""
        if self.counts is None:
            return {"export_id": self.export_id, "only_in": self.only_in}
        counts = {**vars(self.counts), "fields": dict(self.counts.fields.most_common())}
        return {"export_id": self.export_id, **counts}


def diff(
    run_a: Annotated[str, typer.Argument(help="The earlier run: its id, `latest` or `previous`.")],
    run_b: Annotated[
        str,
        typer.Argument(
            help="The later run: its id, `latest` or `previous`; or `live` for the current state of the tenants, which"
            " is exported into a temporary folder."
        ),
    ],
    export: ExportsArgument = "",
    *,
    fields: Annotated[bool, typer.Option("--fields", help="Also print the number of changes per field.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Also print the exports without changes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            help="Write each row that differs, with its key and changed fields, to a new file (- for stdout). Text that"
            " a spreadsheet would interpret as a formula is prefixed with an apostrophe.",
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="A column that identifies rows, instead of the id. Repeatable.", show_default=False),
    ] = None,
    sources: Annotated[
        Path | None,
        typer.Option(
            "--sources",
            "-s",
            help="With `live`: use the domains and secrets of this configuration instead of those of the run. A file"
            " .env beside it can contain credentials.",
            show_default=False,
        ),
    ] = None,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Count the rows that were added, removed and changed between two runs, for each export that differs.

    With `live`, the exports of the run are created again. The command then reads the same credentials as `meibo run`.
    """
    if as_json and csv_file == STDOUT:
        raise ConfigurationError(
            "--csv - and --json cannot be used together: both write to stdout; write the CSV to a file"
        )
    if run_a == LIVE:
        raise ConfigurationError("expected live as the second run: meibo diff RUN live")
    if sources is not None and run_b != LIVE:
        raise ConfigurationError("--sources requires live as the second run")
    reader = open_archive(archive)
    before = ArchivedRun(reader, named_run(reader, run_a))
    with _later_run(before, run_b, export, sources) as after, _writer(csv_file) as out:
        comparisons = list(_compare(before, after, export, tuple(key or ()), out))
        if not comparisons:
            raise ConfigurationError(f"no export of these runs matches {export!r}")
    run_ids = before.run.run_id, LIVE if run_b == LIVE else after.run.run_id
    if as_json:
        exports = [comparison.to_json() for comparison in comparisons]
        typer.echo(json_text({"run_a": run_ids[0], "run_b": run_ids[1], "exports": exports}, indent=2))
    elif csv_file != STDOUT:
        _print(*run_ids, comparisons, fields=fields, every=every)


@contextmanager
def _later_run(before: ArchivedRun, name: str, pattern: str, sources: Path | None) -> Iterator[ArchivedRun]:
    """Yield the named run or, for ``live``, the current state of the exports of ``before`` that match a pattern."""
    if name != LIVE:
        yield ArchivedRun(before.reader, named_run(before.reader, name))
        return
    exports = planned_exports(before.reader, before.run, matching(before.run.exports, pattern))
    if not exports:
        raise ConfigurationError(f"no export of run {before.run.run_id} matches {pattern!r}")
    if sources is not None:
        configuration = read_sources(sources)
        exports = [as_configured_now(planned, configuration) for planned in exports]
    secrets = {SourceSecret(planned.source, planned.provider, planned.secret) for planned in exports}
    read_secret = secret_reader(sorted(secrets), (sources.parent if sources else Path()) / ENV_FILE)
    with ExitStack() as stack:
        with show_activity("exporting the current state") as status:
            live = live_archive(exports, read_secret, show=lambda text: status.update(printable(text)))
            after = stack.enter_context(live)
        yield after


def _compare(
    before: ArchivedRun, after: ArchivedRun, pattern: str, key: tuple[str, ...], out: WriteRow | None
) -> Iterator[ExportComparison]:
    sides = [
        {export.folder.address: export for export in matching(side.run.exports, pattern)} for side in (before, after)
    ]
    for address in sorted({**sides[0], **sides[1]}, key=lambda address: address.export_id):
        pair = [side.get(address) for side in sides]
        if pair[0] is None or pair[1] is None:
            yield ExportComparison(address.export_id, None, (before if pair[0] else after).run.run_id)
        elif pair[0].sha256 == pair[1].sha256 and pair[0].rows is not None:
            yield ExportComparison(address.export_id, ComparisonCounts(unchanged=pair[0].rows))
        else:
            with show_activity(f"comparing {printable(address.export_id)}"):
                readers = before.reader, after.reader
                counts = _counts(readers, (pair[0], pair[1]), key, out)
            yield ExportComparison(address.export_id, counts)


def _counts(
    readers: tuple[ArchiveReader, ArchiveReader],
    pair: tuple[ArchivedExport, ArchivedExport],
    key: tuple[str, ...],
    out: WriteRow | None,
) -> ComparisonCounts:
    export = pair[0]
    with tempfile.TemporaryDirectory(prefix="meibo-diff-") as name:
        folders = [Path(name) / side for side in ("a", "b")]
        for folder in folders:
            folder.mkdir()
        files = [fetch_rows(*side, key=key) for side in zip(readers, pair, folders, strict=True)]
        address = export.folder.address
        blank_is_null = address.format == "csv" or find_dataset(address.provider, address.dataset).blank_is_null
        comparison = Comparison(files[0], files[1], Path(name), blank_is_null=blank_is_null)
        try:
            for change in comparison.changes():
                if out is not None:
                    out((export.export_id, change.kind, change.key, " ".join(change.fields)))
        except (duckdb.Error, BrokenProcessPool) as error:
            # DuckDB's error message may contain the key of a row, so it is not copied.
            raise UnexpectedError(
                f"{export.export_id}: the comparison failed ({type(error).__name__}); check the free memory and the"
                " free space of TMPDIR"
            ) from None
        return comparison.counts


@contextmanager
def _writer(path: Path | None) -> Iterator[WriteRow | None]:
    if path is None:
        yield None
        return
    if path == STDOUT:
        use_utf8_in_pipes()
        yield _write_header(sys.stdout)
        return
    with new_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield _write_header(text)
        text.detach()


def _write_header(file: IO[str]) -> WriteRow:
    write = spreadsheet_writer(file, is_terminal=file.isatty())
    write(("export", "change", "key", "fields"))
    return write


def _print(before: str, after: str, comparisons: Sequence[ExportComparison], *, fields: bool, every: bool) -> None:
    console = TextConsole()
    console.print(f"{before} → {after}")
    unchanged = 0
    for comparison in comparisons:
        name, counts = f"[bold]{printable(comparison.export_id)}[/]", comparison.counts
        if counts is None:
            console.print(f"{name}: only in {comparison.only_in}")
            continue
        if not every and not (counts.added or counts.removed or counts.changed or counts.duplicates):
            unchanged += 1
            continue
        console.print(
            f"{name}: [green]{format_number(counts.added)} added[/],"
            f" [red]{format_number(counts.removed)} removed[/], [yellow]{format_number(counts.changed)} changed[/],"
            f" {format_number(counts.unchanged)} unchanged"
        )
        if counts.duplicates:
            console.print(f"  {format_count(counts.duplicates, 'row')} with a duplicate key")
        if fields:
            shown = counts.fields.most_common(_MAX_FIELDS_SHOWN if console.is_terminal else None)
            for field, count in shown:
                console.print(f"  {format_number(count):>12}  {printable(field)}")
            if len(shown) < len(counts.fields):
                console.print(f"  {format_count(len(counts.fields) - len(shown), 'more field')}; --json prints all")
    if unchanged:
        console.print(f"{format_count(unchanged, 'export')} unchanged")
