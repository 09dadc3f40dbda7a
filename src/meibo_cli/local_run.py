"""Execute a run in this process, without a stack. The functions of the layer archive into a folder or a bucket."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from meibo.archive.copier import Copier, FolderCopier, S3Copier
from meibo.archive.copy import CopyOptions
from meibo.archive.keys import attempt_key
from meibo.archive.storage import ArchiveStorage, FolderStorage, S3Storage
from meibo.aws import s3
from meibo.clock import SystemClock, TimeLeft
from meibo.configuration import Configuration
from meibo.exports.archive import Archiver
from meibo.exports.check import check
from meibo.exports.checkpoint import Collector
from meibo.exports.create import RunCreator
from meibo.exports.events import CaughtError, ExportEvent
from meibo.exports.finish import RunFinisher, write_report
from meibo.exports.plan import Attempt, PlannedExport
from meibo.observability import logger
from meibo.providers.base import ProviderContext
from meibo.settings import ObjectLock
from meibo_cli.workflow import LocalWorkflow

INVOCATION_SECONDS: Final = 900.0
"""Duration of an invocation, as in Lambda: an export that is read in pages writes a part at least this often."""
MAX_COPY_SECONDS: Final = 7 * 24 * 3600.0
"""Time limit of copies and streams, which another invocation cannot resume."""
COPY_WORKERS: Final = 4
"""Workers of one copy into a bucket; parallel copies share the memory and the network bandwidth."""
STDERR: Final = Path("-")
"""The value of ``--log`` that selects stderr."""
FOLDER_BUCKET: Final = "local"
"""The name of the bucket in the manifests of an archive in a folder."""


@dataclass(frozen=True, kw_only=True)
class LocalFunctions:
    """The functions of the workflow. After ``stopped`` is set, their remaining time is 0, so that they end.

    ``temporary`` stores reports and parts, which are not protected by Object Lock.
    """

    storage: ArchiveStorage
    temporary: ArchiveStorage
    bucket: str
    copier: Copier
    configuration: Configuration
    read_secret: Callable[[str], Mapping[str, Any]]
    stopped: threading.Event

    @classmethod
    def on_folder(
        cls, storage: FolderStorage, *, received: Callable[[str, int], None], **common: Any
    ) -> LocalFunctions:
        """Return functions that archive into a folder. ``received`` is called with a key and a number of bytes."""
        time_left = countdown(MAX_COPY_SECONDS, common["stopped"])
        copier = FolderCopier(storage=storage, time_left=time_left, received=received)
        return cls(storage=storage, temporary=storage, bucket=FOLDER_BUCKET, copier=copier, **common)

    @classmethod
    def on_bucket(cls, bucket: str, object_lock: ObjectLock, **common: Any) -> LocalFunctions:
        """Return functions that archive into a bucket."""
        copier = S3Copier(
            client=s3(),
            bucket=bucket,
            options=CopyOptions(workers=COPY_WORKERS),
            object_lock=object_lock,
            time_left=countdown(MAX_COPY_SECONDS, common["stopped"]),
        )
        storage, temporary = S3Storage(s3(), bucket, object_lock=object_lock), S3Storage(s3(), bucket)
        return cls(storage=storage, temporary=temporary, bucket=bucket, copier=copier, **common)

    def begin(self) -> tuple[str, int]:
        """Begin a run that is scheduled now; return its id and attempt."""
        while True:
            now = datetime.now(UTC)
            result = self._creator().begin(now)
            if result["status"] == "started":
                return result["run_id"], result["attempt"]
            # Another run began in the same second, so it has the same id.
            time.sleep(1 - now.microsecond / 1_000_000)

    def repair(self, run_id: str) -> tuple[str, int] | None:
        """Begin another attempt of a run with the missing exports; return None if the run is complete."""
        result = self._creator().repair(run_id)
        return None if result["status"] == "complete" else (run_id, result["attempt"])

    def exports(self, run_id: str, attempt: int) -> tuple[PlannedExport, ...]:
        """Return the exports of an attempt."""
        return Attempt.from_json(self.storage.read_json(attempt_key(run_id, attempt))).exports

    def create(self, export: PlannedExport) -> dict[str, Any]:
        """Create the next job of an export."""
        return self._creator().create_job(export).to_json()

    def check(self, export: PlannedExport) -> dict[str, Any]:
        """Check the job of an export."""
        return check(export, self._context(INVOCATION_SECONDS))

    def archive(self, event: ExportEvent) -> dict[str, Any]:
        """Archive an export, or collect its pages for the duration of an invocation."""
        time_left = countdown(INVOCATION_SECONDS, self.stopped)
        return Archiver(
            storage=self.storage,
            bucket=self.bucket,
            copier=self.copier,
            collector=Collector(storage=self.temporary, time_left=time_left),
            context=self._context(MAX_COPY_SECONDS),
        ).archive(event)

    def record_failure(self, run_id: str, attempt: int, export: PlannedExport, error: CaughtError) -> dict[str, Any]:
        """Record why an export failed."""
        return self._finisher().record_failure(run_id, attempt, export, error)

    def finish(self, run_id: str, attempt: int) -> dict[str, Any]:
        """Write the run manifest and the report."""
        return self._finisher().finish(run_id, attempt)

    def _creator(self) -> RunCreator:
        return RunCreator(
            storage=self.storage,
            workflow=LocalWorkflow(self.storage),
            bucket=self.bucket,
            configuration=lambda: self.configuration,
            context=self._context(INVOCATION_SECONDS),
            clock=SystemClock(),
        )

    def _finisher(self) -> RunFinisher:
        return RunFinisher(
            storage=self.storage,
            report=lambda run_id, attempt: write_report(self.temporary, run_id, attempt, datetime.now(UTC)),
        )

    def _context(self, seconds: float) -> ProviderContext:
        return ProviderContext(countdown(seconds, self.stopped), read_secret=self.read_secret)


def countdown(seconds: float, stopped: threading.Event) -> TimeLeft:
    """Return a function that returns the remaining seconds, or 0 after ``stopped`` is set."""
    end = time.monotonic() + seconds
    return lambda: 0.0 if stopped.is_set() else end - time.monotonic()


@contextmanager
def log_to(path: Path | None) -> Iterator[None]:
    """Write the log of the functions to a file or, with ``-``, to stderr. Discard it if ``path`` is None."""
    handler = logger.registered_handler
    if not isinstance(handler, logging.StreamHandler):
        yield
        return
    with ExitStack() as stack:
        stream: TextIO = sys.stderr
        if path != STDERR:
            stream = stack.enter_context(Path(path or os.devnull).open("a", encoding="utf-8"))
            if path is not None:
                path.chmod(0o600)  # the log may exist with other permissions
        stack.callback(handler.setStream, handler.setStream(stream))
        try:
            yield
        except KeyboardInterrupt:
            # The threads of the run may write to the log until the process ends.
            stack.pop_all()
            raise
