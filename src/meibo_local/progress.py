"""Display the progress of a run from the events and results of its invocations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from meibo_cli.progress import ProgressDisplay
from meibo_local.lambda_service import InvocationResult


class InvocationDisplay(ProgressDisplay):
    """An observer of invocations that displays the progress of the exports."""

    def invoked(self, function: str, event: Any) -> None:
        """Display the start of an invocation."""
        states = {"CreateExports": "creating the job", "CheckExport": "job pending", "ArchiveExport": "copying"}
        export = event.get("export") if isinstance(event, Mapping) else None
        if export and function in states:
            self.change(export["export_id"], states[function])

    def returned(self, function: str, event: Any, result: InvocationResult) -> None:
        """Display the result of an invocation."""
        export = event.get("export") if isinstance(event, Mapping) else None
        if not export:
            return
        export_id = export["export_id"]
        if result.failed:
            self.change(export_id, f"{result.payload['errorType']}, retrying")
        elif function == "CheckExport" and result.payload["status"] == "gone":
            self.change(export_id, "job gone")
        elif function == "ArchiveExport" and result.payload["status"] == "continue":
            self.change(export_id, "waiting for rate limits", rows=result.payload["progress"]["rows"])
        elif function == "ArchiveExport":
            state = "suspect" if result.payload["verdict"] == "suspect" else "archived"
            rows, size = result.payload["rows"], result.payload["bytes"]
            self.change(export_id, state, rows=rows, bytes=size, ended=time.monotonic())
        elif function == "FinishRun":
            self.change(export_id, "failed", ended=time.monotonic())
