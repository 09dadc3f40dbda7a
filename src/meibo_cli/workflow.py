"""Run the export workflow in this process, with the states and retries of ``statemachines/export.asl.json``.

``RETRIES`` contains the retries of Meibo's own errors; a test compares it with the state machine. The errors of Lambda
and Step Functions cannot occur in a local run, so they have no retries.
"""

from __future__ import annotations

import errno
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from meibo.archive.keys import attempt_key, plan_key, run_manifest_key
from meibo.archive.storage import ArchiveStorage
from meibo.errors import (
    AwsBusyError,
    CopyBrokenError,
    JobGoneError,
    MeiboError,
    OutOfTimeError,
    ProviderBusyError,
    SourceChangedError,
    UnexpectedError,
)
from meibo.exports.events import CaughtError, CheckpointProgress, ExportEvent
from meibo.exports.plan import PlannedExport
from meibo.exports.workflow import ExecutionStatus
from meibo.observability import metrics, sanitize_errors

STOP_SECONDS: Final = 3.0
"""Maximum time in which the threads can abort their copies after the user has stopped the run."""

# If the disk is full or not writable, no export of the run can be archived.
_DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})


@dataclass(frozen=True)
class Retry:
    """The retries after an error, with exponential backoff and, if ``jitter`` is true, full jitter.

    https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html#error-handling-retrying-after-an-error
    """

    interval_seconds: float
    max_attempts: int
    backoff_rate: float = 2
    max_delay_seconds: float | None = None
    jitter: bool = True

    def delay(self, retries: int) -> float:
        """Return the delay before the next attempt in seconds. ``retries`` is the number of earlier retries."""
        ceiling = self.interval_seconds * self.backoff_rate**retries
        if self.max_delay_seconds is not None:
            ceiling = min(ceiling, self.max_delay_seconds)
        return random.uniform(0, ceiling) if self.jitter else ceiling  # noqa: S311  # spreads load, not a secret


Retries = Mapping[type[MeiboError], Retry]

_AWS: Final[Retries] = {AwsBusyError: Retry(5, 50, max_delay_seconds=300), UnexpectedError: Retry(10, 2)}
# Both errors share one retrier of the state machine, and therefore its attempts.
_BROKEN: Final = Retry(15, 4, max_delay_seconds=300)

RETRIES: Final[Mapping[str, Retries]] = {
    "CreateExport": {ProviderBusyError: Retry(30, 8, max_delay_seconds=900), **_AWS},
    "CheckExport": {ProviderBusyError: Retry(30, 12, max_delay_seconds=900), **_AWS},
    "ArchiveExport": {
        OutOfTimeError: Retry(1, 4, backoff_rate=1, jitter=False),
        CopyBrokenError: _BROKEN,
        SourceChangedError: _BROKEN,
        ProviderBusyError: Retry(30, 8, max_delay_seconds=900),
        **_AWS,
    },
    "RecordFailure": _AWS,
    "FinishRun": _AWS,
}


class Functions(Protocol):
    """The functions that the workflow invokes. ``LocalFunctions`` implements them."""

    def create(self, export: PlannedExport) -> dict[str, Any]:
        """Create the next job of an export, and return the export with this job as a JSON object."""
        ...

    def check(self, export: PlannedExport) -> dict[str, Any]:
        """Return the ``status`` of the job and the ``wait_seconds`` until the next check."""
        ...

    def archive(self, event: ExportEvent) -> dict[str, Any]:
        """Archive an export; return its counts, or its ``progress`` and ``wait_seconds`` if it is not finished."""
        ...

    def record_failure(self, run_id: str, attempt: int, export: PlannedExport, error: CaughtError) -> dict[str, Any]:
        """Record why an export failed."""
        ...

    def finish(self, run_id: str, attempt: int) -> dict[str, Any]:
        """Write the run manifest and return its counts."""
        ...


class LocalWorkflow:
    """The status of attempts according to the archive, assuming that no other process executes them."""

    def __init__(self, storage: ArchiveStorage) -> None:
        self._storage = storage

    def status(self, run_id: str, attempt: int) -> ExecutionStatus:
        """Return the status of an attempt: ABORTED if it was planned but has no run manifest."""
        if self._storage.exists(run_manifest_key(run_id, attempt)):
            return "SUCCEEDED"
        documents = (plan_key(run_id, attempt), attempt_key(run_id, attempt))
        return "ABORTED" if any(map(self._storage.exists, documents)) else "NEVER_STARTED"

    def start(self, run_id: str, attempt: int, *, bucket: str, items_key: str) -> None:
        """Do nothing, because ``Execution`` executes the attempt later in this process."""


class _StoppedError(Exception):
    """The run was stopped. Only ``Execution`` raises and handles this error."""


@dataclass(kw_only=True)
class Execution:
    """The execution of one attempt, with up to ``jobs`` exports in parallel.

    ``change`` is called with the id and the new state of an export and, if known, ``rows``, ``bytes`` and ``ended``.
    ``wait`` waits for a number of seconds, or until the execution is stopped.
    """

    run_id: str
    attempt: int
    functions: Functions
    jobs: int
    stopped: threading.Event
    change: Callable[..., None]
    wait: Callable[[float], object]
    _failure: OSError | None = field(default=None, init=False)

    def run(self, exports: Sequence[PlannedExport]) -> dict[str, Any]:
        """Archive the exports independently of each other, and return the counts of the run.

        Raises OSError if the disk is full or not writable, KeyboardInterrupt if the user stops the run, and
        MeiboError if the run manifest cannot be written.
        """
        remaining, lock = iter(exports), threading.Lock()

        def work() -> None:
            while not self.stopped.is_set():
                with lock:
                    export = next(remaining, None)
                if export is None:
                    return
                try:
                    self._process(export)
                except _StoppedError:
                    return

        # Daemon threads, because a request that does not end must not prevent the process from ending.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(self.jobs, len(exports)))]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            self.stopped.set()
            end = time.monotonic() + STOP_SECONDS
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
            raise
        try:
            return self._call("FinishRun", self.functions.finish, self.run_id, self.attempt)
        except _StoppedError:
            raise self._failure or KeyboardInterrupt from None

    def _process(self, export: PlannedExport) -> None:
        try:
            if export.refused:
                error = CaughtError(export.refused.error, export.refused.message)
            else:
                self._archive(export)
                return
        except MeiboError as failure:
            error = CaughtError(type(failure).__name__, str(failure))
        self.change(export.export_id, "failed", ended=time.monotonic())
        try:
            self._call("RecordFailure", self.functions.record_failure, self.run_id, self.attempt, export, error)
        except MeiboError:
            # As in the state machine, the run manifest then reports that no reason was recorded.
            return

    def _archive(self, export: PlannedExport) -> None:
        is_ready = not export.has_job
        while True:
            while not is_ready:
                if export.job is None:
                    export = self._create(export)
                self.change(export.export_id, "job pending")
                result = self._call("CheckExport", self.functions.check, export, shown=export.export_id)
                is_ready = result["status"] == "ready"
                if result["status"] == "gone":
                    self.change(export.export_id, "job gone")
                    export = self._create(export)
                elif not is_ready:
                    self._pause(result["wait_seconds"])
            try:
                return self._copy(export)
            except JobGoneError:
                export, is_ready = self._create(export), False

    def _create(self, export: PlannedExport) -> PlannedExport:
        self.change(export.export_id, "creating the job")
        document = self._call("CreateExport", self.functions.create, export, shown=export.export_id)
        return PlannedExport.from_json(document, "export")

    def _copy(self, export: PlannedExport) -> None:
        event = ExportEvent(self.run_id, self.attempt, export)
        while True:
            self.change(export.export_id, "copying")
            result = self._call("ArchiveExport", self.functions.archive, event, shown=export.export_id)
            if result["status"] == "archived":
                state = "suspect" if result["verdict"] == "suspect" else "archived"
                self.change(export.export_id, state, rows=result["rows"], bytes=result["bytes"], ended=time.monotonic())
                return
            progress = CheckpointProgress.from_json(result["progress"], "progress")
            self.change(export.export_id, "waiting for rate limits", rows=progress.rows)
            event = replace(event, progress=progress)
            self._pause(result["wait_seconds"])

    def _call(
        self, state: str, function: Callable[..., dict[str, Any]], *arguments: Any, shown: str | None = None
    ) -> dict[str, Any]:
        """Call a function with the retries of a state of the workflow, and return the result.

        The retries are displayed as the state of the export ``shown``. Raises the last error of the function, or
        _StoppedError if the run was stopped.
        """

        def call(_event: Any, _context: Any) -> dict[str, Any]:
            try:
                return function(*arguments)
            except OSError as error:
                if error.errno in _DISK_ERRORS:
                    self._failure = error
                    self.stopped.set()
                raise
            finally:
                # The metrics are for CloudWatch only.
                metrics.clear_metrics()

        retries: Counter[Retry] = Counter()
        while True:
            if self.stopped.is_set():
                raise _StoppedError
            try:
                return sanitize_errors(call)(None, None)
            except MeiboError as error:
                retry, name = RETRIES[state].get(type(error)), type(error).__name__
                if self.stopped.is_set():
                    raise _StoppedError from None
                if retry is None or retries[retry] >= retry.max_attempts:
                    raise
            if shown:
                self.change(shown, f"{name}, retrying")
            self._pause(retry.delay(retries[retry]))
            retries[retry] += 1

    def _pause(self, seconds: float) -> None:
        self.wait(seconds)
        if self.stopped.is_set():
            raise _StoppedError
