"""Import files into an Auth0 tenant, with two jobs at a time, and collect the results."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from meibo.errors import MeiboError, ProviderBusyError
from meibo.http.ratelimit import Clock, SystemClock
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.jobs import get_job
from meibo_cli.restore.auth0_imports import MAX_JOBS, create_users_import, import_faults, import_summary

# An import times out after two hours: https://auth0.com/docs/manage-users/user-migration/bulk-user-imports
_MAX_JOB_SECONDS = 2 * 3600 + 600
_POLL_SECONDS = 2.0

State = Literal["waiting", "sent", "done", "failed", "uncertain"]


@dataclass
class ImportResult:
    """The result of the import of one file."""

    file: Path
    state: State = "waiting"
    job_id: str = ""
    inserted: int = 0
    updated: int = 0
    failed: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    reason: str | None = None
    sent_at: float = 0.0

    @property
    def succeeded(self) -> bool:
        """True if every user of the file was imported."""
        return self.state == "done" and not self.failed and not self.codes


def send(
    client: Auth0Client,
    files: Sequence[Path],
    *,
    connection_id: str,
    upsert: bool,
    clock: Clock | None = None,
    advance: Callable[[ImportResult], None] = lambda _: None,
) -> list[ImportResult]:
    """Import files into a connection and return the result of each. No file is sent twice.

    After a file that failed, or whose result is unknown because the connection broke, no further file is sent.
    """
    clock = clock or SystemClock()
    results = [ImportResult(path) for path in files]
    waiting, active = deque(results), list[ImportResult]()
    while active or waiting:
        while waiting and len(active) < MAX_JOBS:
            result = waiting.popleft()
            try:
                result.job_id = create_users_import(
                    client, connection_id=connection_id, users=result.file.read_bytes(), upsert=upsert
                )
            except MeiboError as error:
                is_uncertain = isinstance(error, ProviderBusyError) and error.uncertain
                result.state, result.reason = ("uncertain" if is_uncertain else "failed"), str(error)
                advance(result)
                waiting.clear()
                break
            result.state, result.sent_at = "sent", clock.now()
            active.append(result)
        for result in list(active):
            if _is_finished(client, result, clock.now()):
                active.remove(result)
                advance(result)
        if active:
            clock.sleep(_POLL_SECONDS)
    return results


def _is_finished(client: Auth0Client, result: ImportResult, now: float) -> bool:
    """Update the result of a job, and return False while the job is pending."""
    try:
        status = get_job(client, result.job_id)
        if status.status == "pending":
            if now - result.sent_at < _MAX_JOB_SECONDS:
                return False
            result.state, result.reason = "uncertain", "the job is still pending after more than two hours"
            return True
        if status.status == "gone":
            result.state, result.reason = "failed", f"the job ended with the status {status.reason}"
        else:
            result.state = "done"
            summary = import_summary(client, result.job_id)
            if summary is not None:
                result.inserted, result.updated, result.failed = summary.inserted, summary.updated, summary.failed
        for fault in import_faults(client, result.job_id):
            result.codes.update(fault.codes or ("UNKNOWN",))
    except MeiboError as error:
        result.state, result.reason = ("uncertain" if result.state == "sent" else result.state), str(error)
    return True
