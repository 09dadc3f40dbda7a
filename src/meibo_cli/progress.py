"""Show the progress of a run, and the exports of a finished run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from meibo.archive.keys import MANIFEST_NAME
from meibo.archive.manifest import RunManifest
from meibo.archive.runs import suspect_reason
from meibo.archive.storage import ArchiveReader
from meibo.formatting import format_bytes, format_number
from meibo_cli.terminal import Column, fitted_table, print_table, printable

_STYLES = {
    "archived": "green",
    "suspect": "yellow",
    "failed": "red",
    "copying": "cyan",
    "job pending": "magenta",
    "waiting for rate limits": "magenta",
}
_COLUMNS = (
    Column("export"),
    Column("state", min_width=14),
    Column("time", number=True, min_width=9, optional=True),
    Column("size", number=True, min_width=9, optional=True),
    Column("rows", number=True, min_width=9, optional=True),
)
# Lines of the terminal that are not rows of the table: its header, its caption and the prompt.
_OTHER_LINES = 4
_DIGEST_LENGTH: Final = 12


@dataclass
class ExportLine:
    """The progress of an export."""

    state: str = "planned"
    rows: int | None = None
    bytes: int = 0
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """The duration of the export."""
        return (self.ended or time.monotonic()) - self.started


class ProgressDisplay:
    """The progress of the exports of a run. Its methods can be called by several threads.

    If ``live`` is False, or if the console is not a terminal, each change of state is printed as a new line.
    """

    def __init__(self, console: Console, *, live: bool = True) -> None:
        self._console = console
        self._is_live = live and console.is_terminal
        self._lines: dict[str, ExportLine] = {}
        self._folders: dict[str, str] = {}
        self._lock = threading.Lock()
        # The output of the functions is written to the log.
        self._live = Live(
            console=console,
            get_renderable=self.table,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> ProgressDisplay:
        """Start drawing."""
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        if self._is_live:
            self._live.stop()

    def expect(self, export_id: str, folder: str) -> None:
        """Add an export whose objects are stored below ``folder``."""
        with self._lock:
            self._lines.setdefault(export_id, ExportLine())
            self._folders[folder] = export_id

    def received(self, key: str, count: int) -> None:
        """Add received bytes to the export whose folder contains the key."""
        export_id = self._folders.get(key.rpartition("/")[0] + "/")
        if export_id and not key.endswith(MANIFEST_NAME):
            with self._lock:
                line = self._lines[export_id]
                if line.ended is None:
                    line.bytes += count

    def change(self, export_id: str, state: str, **values: Any) -> None:
        """Set the state of an export and other values of its line."""
        with self._lock:
            previous = self._lines.setdefault(export_id, ExportLine())
            if previous.state == "planned":
                values.setdefault("started", time.monotonic())
            if state == "copying":
                values.setdefault("bytes", 0)
            line = self._lines[export_id] = replace(previous, state=state, **values)
        if line.state != previous.state and not self._is_live:
            rows = f"  {line.rows:,} rows" if line.rows is not None else ""
            text = f"{line.seconds:6.1f} s  {printable(export_id)}  {state}{rows}"
            self._console.print(text, highlight=False, soft_wrap=True)

    def table(self) -> Table:
        """Return a table of all exports. If the terminal is too small, it contains only the exports in progress."""
        with self._lock:
            lines = list(self._lines.items())
        ended = sum(line.ended is not None for _, line in lines)
        caption = f"{ended:,} of {len(lines):,} exports ended"
        if len(lines) > self._console.height - _OTHER_LINES:
            lines = [(name, line) for name, line in lines if line.ended is None and line.state != "planned"]
        rows = [
            (
                printable(export_id),
                f"[{_STYLES.get(line.state, 'dim')}]{line.state}[/]",
                "" if line.state == "planned" else f"{line.seconds:.1f} s",
                format_bytes(line.bytes) if line.bytes else "",
                "" if line.rows is None else f"{line.rows:,}",
            )
            for export_id, line in lines
        ]
        table = fitted_table(self._console, _COLUMNS, rows) or Table()
        table.caption = caption
        table.caption_justify = "left"
        return table


def print_run(
    console: Console, archive: ArchiveReader, manifest: RunManifest, checks: Mapping[str, str] | None = None
) -> None:
    """Print a table of the exports of a run and, below it, the reasons why exports are suspect or missing.

    ``checks`` maps an export id to the text in the column ``checked``, as Rich markup.
    """
    counts = manifest.counts
    columns = [
        Column("export", footer="total"),
        Column("rows", number=True, footer=format_number(counts.rows)),
        Column("size", number=True, footer=format_bytes(counts.bytes)),
        Column("verdict"),
        Column("checked", wraps=True),
        Column("SHA-256", optional=True),
    ]
    title = f"run {manifest.run_id}: {counts.archived} of {counts.planned} exports archived"
    print_table(console, columns, list(_rows(manifest, checks or {})), title=title)
    for export in manifest.suspects:
        console.print(f"[yellow]suspect[/] {printable(export.export_id)}: {printable(suspect_reason(archive, export))}")
    for missing in manifest.missing:
        console.print(f"[red]missing[/] {printable(missing.export_id)}: {missing.error}: {printable(missing.reason)}")


def _rows(manifest: RunManifest, checks: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    for export in manifest.exports:
        color = "yellow" if export.verdict == "suspect" else "green"
        yield (
            printable(export.export_id),
            format_number(export.rows),
            format_bytes(export.bytes),
            f"[{color}]{printable(export.verdict)}[/]",
            checks.get(export.export_id, ""),
            export.sha256[:_DIGEST_LENGTH],
        )
    for missing in manifest.missing:
        yield (printable(missing.export_id), "–", "–", "[red]missing[/]", "", "–")
