"""Show the progress of a run: one line per export."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table

from meibo.archive.keys import MANIFEST_NAME
from meibo_local.lambda_service import InvocationResult

_STYLES = {
    "archived": "green",
    "suspect": "yellow",
    "failed": "red",
    "copying": "cyan",
    "job pending": "magenta",
    "waiting for limits": "magenta",
}


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
    """An observer that draws the progress; without a terminal it prints a line per change of state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: dict[str, ExportLine] = {}
        self._folders: dict[str, str] = {}
        self._lock = threading.Lock()
        # The runner redirects the output of the functions to the log.
        self._live = Live(
            console=console,
            get_renderable=self.table,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> ProgressDisplay:
        """Start to draw."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        if self._console.is_terminal:
            self._live.stop()

    def expect(self, export_id: str, folder: str) -> None:
        """Add an export whose objects will be below ``folder``."""
        with self._lock:
            self._lines.setdefault(export_id, ExportLine())
            self._folders[folder] = export_id

    def invoked(self, function: str, event: Any) -> None:
        """Show that an invocation started."""
        states = {"CreateExports": "creating the job", "CheckExport": "job pending", "ArchiveExport": "copying"}
        export = event.get("export") if isinstance(event, Mapping) else None
        if export and function in states:
            self._change(export["export_id"], states[function])

    def returned(self, function: str, event: Any, outcome: InvocationResult) -> None:
        """Show the result of an invocation."""
        export = event.get("export") if isinstance(event, Mapping) else None
        if not export:
            return
        export_id = export["export_id"]
        if outcome.failed:
            self._change(export_id, f"{outcome.payload['errorType']}, retrying")
        elif function == "CheckExport" and outcome.payload["status"] == "gone":
            self._change(export_id, "job gone")
        elif function == "ArchiveExport" and outcome.payload["status"] == "continue":
            self._change(export_id, "waiting for limits", rows=outcome.payload["progress"]["rows"])
        elif function == "ArchiveExport":
            state = "suspect" if outcome.payload["verdict"] == "suspect" else "archived"
            rows, size = outcome.payload["rows"], outcome.payload["bytes"]
            self._change(export_id, state, rows=rows, bytes=size, ended=time.monotonic())
        elif function == "FinishRun":
            self._change(export_id, "failed", ended=time.monotonic())

    def received(self, key: str, count: int) -> None:
        """Add the bytes of an upload to an export."""
        export_id = self._folders.get(key.rpartition("/")[0] + "/")
        if export_id and not key.endswith(MANIFEST_NAME):
            with self._lock:
                line = self._lines[export_id]
                if line.ended is None:
                    line.bytes += count

    def _change(self, export_id: str, state: str, **values: Any) -> None:
        with self._lock:
            previous = self._lines.setdefault(export_id, ExportLine())
            line = self._lines[export_id] = replace(previous, state=state, **values)
        if line.state != previous.state and not self._console.is_terminal:
            rows = f"  {line.rows:,} rows" if line.rows is not None else ""
            self._console.print(f"{line.seconds:6.1f} s  {export_id}  {state}{rows}", highlight=False)

    def table(self) -> Table:
        """Return the current lines."""
        table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
        table.add_column("export", overflow="fold")
        table.add_column("state", min_width=18)
        for name in ("rows", "bytes", "time"):
            table.add_column(name, justify="right", min_width=9)
        with self._lock:
            for export_id, line in self._lines.items():
                style = _STYLES.get(line.state, "dim")
                table.add_row(
                    export_id,
                    f"[{style}]{line.state}[/]",
                    "" if line.rows is None else f"{line.rows:,}",
                    decimal(line.bytes) if line.bytes else "",
                    f"{line.seconds:.1f} s",
                )
        return table
