"""A temporary archive of the current state of tenants, which is compared with an archived run and then deleted."""

from __future__ import annotations

import dataclasses
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import meibo
from meibo.archive.keys import attempt_key, plan_key, run_id_of
from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run, find_run
from meibo.archive.storage import ArchiveReader, FolderReader, FolderStorage
from meibo.configuration import Configuration
from meibo.errors import ConfigurationError, UnexpectedError
from meibo.exports.plan import Attempt, Plan, PlannedExport
from meibo_cli.local_run import LocalFunctions, log_to
from meibo_cli.terminal import escape_control_characters
from meibo_cli.workflow import Execution

_JOBS = 4
_ATTEMPT = 1

ReadSecret = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class ArchivedRun:
    """A run and its archive."""

    reader: ArchiveReader
    run: Run


def planned_exports(reader: ArchiveReader, run: Run, archived: Iterable[ArchivedExport]) -> list[PlannedExport]:
    """Return the plans of archived exports without their jobs, to export the current state in the same way."""
    ids = {export.export_id for export in archived}
    _, plan = Plan.newest(reader, run.run_id, run.manifest.attempt)
    return [dataclasses.replace(export, job=None) for export in plan.exports if export.export_id in ids]


@contextmanager
def live_archive(
    exports: Sequence[PlannedExport], read: ReadSecret, *, show: Callable[[str], None] = lambda _: None
) -> Iterator[ArchivedRun]:
    """Archive the exports in a temporary folder, which is deleted when the context ends.

    ``show`` is called with the id and the state of an export. Raises ConfigurationError with all reasons if exports
    fail.
    """
    with tempfile.TemporaryDirectory(prefix="meibo-live-") as name, log_to(None):
        storage, now = FolderStorage(Path(name)), datetime.now(UTC)
        run_id, stopped = run_id_of(now), threading.Event()
        plan = Plan(
            run_id=run_id, scheduled_time=now.isoformat(), meibo_version=meibo.__version__, exports=tuple(exports)
        )
        storage.put_json(plan_key(run_id, _ATTEMPT), plan.to_json())
        storage.put_json(attempt_key(run_id, _ATTEMPT), Attempt(exports=tuple(exports)).to_json())
        functions = LocalFunctions.on_folder(
            storage,
            received=lambda _key, _bytes: None,
            configuration=Configuration(sources=[]),
            read_secret=read,
            stopped=stopped,
        )
        execution = Execution(
            run_id=run_id,
            attempt=_ATTEMPT,
            functions=functions,
            jobs=_JOBS,
            stopped=stopped,
            change=lambda export_id, state, **_: show(f"{export_id}: {state}"),
            wait=stopped.wait,
        )
        execution.run(exports)
        run = find_run(storage, run_id)
        if run is None:
            raise UnexpectedError("the temporary archive has no run manifest")
        if run.missing:
            reasons = "; ".join(f"{missing.export_id}: {missing.reason}" for missing in run.missing)
            raise ConfigurationError(escape_control_characters(f"the current state cannot be read: {reasons}"))
        yield ArchivedRun(FolderReader(Path(name)), run)
