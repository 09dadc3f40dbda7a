"""Send users files to a tenant: two jobs at a time, waited for, their errors collected."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from meibo.errors import MeiboError, ProviderBusyError
from meibo.http.ratelimit import Clock, SystemClock
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.imports import MAX_JOBS, create_users_import, import_faults, import_summary
from meibo.providers.auth0.jobs import get_job

# An import times out after two hours: https://auth0.com/docs/manage-users/user-migration/bulk-user-imports
_DEADLINE_SECONDS = 2 * 3600 + 600
_POLL_SECONDS = 2.0

State = Literal["waiting", "sent", "done", "failed", "uncertain"]


@dataclass
class Sent:
    """What became of one file."""

    file: Path
    state: State = "waiting"
    job_id: str | None = None
    inserted: int = 0
    updated: int = 0
    failed: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    reason: str | None = None
    began: float = 0.0

    @property
    def well(self) -> bool:
        """Whether every user of the file was imported."""
        return self.state == "done" and not self.failed and not self.codes


def send(
    client: Auth0Client,
    files: Sequence[Path],
    *,
    connection_id: str,
    upsert: bool,
    clock: Clock | None = None,
    advance: Callable[[Sent], None] = lambda _: None,
) -> list[Sent]:
    """Import files into a connection and return what became of each; nothing is sent twice.

    Where a file's fate is unknown (the connection broke after it was sent), no further one is sent.
    """
    clock = clock or SystemClock()
    results = [Sent(path) for path in files]
    waiting, active = deque(results), list[Sent]()
    stopped = False
    while active or (waiting and not stopped):
        while waiting and len(active) < MAX_JOBS and not stopped:
            one = waiting.popleft()
            try:
                job_id = create_users_import(
                    client, connection_id=connection_id, users=one.file.read_bytes(), upsert=upsert
                )
            except MeiboError as error:
                uncertain = isinstance(error, ProviderBusyError) and error.uncertain
                one.state, one.reason = ("uncertain" if uncertain else "failed"), str(error)
                stopped = True
                advance(one)
                break
            one.state, one.job_id, one.began = "sent", job_id, clock.now()
            active.append(one)
        for one in list(active):
            if _look(client, one, clock.now()):
                active.remove(one)
                advance(one)
        if active:
            clock.sleep(_POLL_SECONDS)
    return results


def _look(client: Auth0Client, one: Sent, now: float) -> bool:
    """Ask for a job and tell whether it has ended."""
    job_id = one.job_id or ""
    try:
        status = get_job(client, job_id)
        if status.status == "pending":
            if now - one.began < _DEADLINE_SECONDS:
                return False
            one.state, one.reason = "uncertain", "the job is still pending after its two hours"
            return True
        if status.status == "gone":
            one.state, one.reason = "failed", f"the job ended as {status.reason}"
        else:
            one.state = "done"
            summary = import_summary(client, job_id)
            if summary is not None:
                one.inserted, one.updated, one.failed = summary.inserted, summary.updated, summary.failed
        for fault in import_faults(client, job_id):
            one.codes.update(fault.codes or ("UNKNOWN",))
    except MeiboError as error:
        one.state, one.reason = ("uncertain" if one.state == "sent" else one.state), str(error)
    return True
