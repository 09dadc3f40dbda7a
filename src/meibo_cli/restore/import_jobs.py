"""Import files into an Auth0 tenant in up to two jobs at a time, and record requests and results in the journal."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Literal

from meibo.clock import Clock, SystemClock
from meibo.errors import MeiboError, ProviderBusyError, RequestRefusedError, WrongFormatError
from meibo.formatting import format_count
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.jobs import get_job
from meibo.providers.base import JobState
from meibo_cli.encoding import json_bytes
from meibo_cli.files import replace_file
from meibo_cli.restore.auth0_imports import (
    MAX_JOBS,
    ImportFault,
    create_users_import,
    import_faults,
    import_summary,
)
from meibo_cli.restore.auth0_target import has_values, live_user
from meibo_cli.restore.import_schema import PREFIX, UPDATED
from meibo_cli.restore.journal import FileImport, Journal, digest

# Auth0 stops an import job after two hours: https://auth0.com/docs/manage-users/user-migration/bulk-user-imports
MAX_JOB_SECONDS: Final = 2 * 3600 + 600
POLL_SECONDS: Final = 2.0
BUSY_SECONDS: Final = 10.0
MIN_INTERVAL_SECONDS: Final = 2.0
MAX_INTERVAL_SECONDS: Final = 60.0
DUPLICATED: Final = "DUPLICATED_USER"


def send(
    client: Auth0Client,
    journal: Journal,
    *,
    clock: Clock | None = None,
    advance: Callable[[FileImport], None] = lambda _: None,
    notify: Callable[[str], None] = lambda _: None,
) -> None:
    """Import the files of a journal that were not imported before.

    First, each file of an earlier process whose job failed or whose result is unknown is compared with the tenant, and
    only the missing users are sent again, in a new file. If a file fails or its result is unknown, no further file is
    sent. ``advance`` is called with each file that was processed, and ``notify`` with the reason for a long wait.
    """
    _Sender(client, journal, clock or SystemClock(), advance, notify).run()


class _Sender:
    def __init__(
        self,
        client: Auth0Client,
        journal: Journal,
        clock: Clock,
        advance: Callable[[FileImport], None],
        notify: Callable[[str], None],
    ) -> None:
        self._client = client
        self._journal = journal
        self._clock = clock
        self._advance = advance
        self._notify = notify
        self._next_request_at = 0.0
        self._busy_since: float | None = None

    def run(self) -> None:
        """Send the files and wait for their jobs."""
        self._settle()
        active = [file for file in self._journal.files if file.state == "sent"]
        waiting = deque(file for file in self._journal.files if file.state == "waiting")
        while active or waiting:
            while waiting and len(active) < MAX_JOBS and self._clock.now() >= self._next_request_at:
                file = waiting[0]
                with _delayed_interrupt():
                    self._start(file)
                if file.state == "sent":
                    active.append(waiting.popleft())
                elif file.state != "waiting" or self._is_busy_for_too_long():
                    self._advance(file)
                    waiting.clear()
            for file in list(active):
                if self._is_finished(file):
                    active.remove(file)
                    self._advance(file)
                    if file.state != "done":
                        waiting.clear()
            if active or waiting:
                self._clock.sleep(POLL_SECONDS)

    def _settle(self) -> None:
        """Determine the results of the files that an earlier process left ``uncertain`` or ``failed``."""
        for file in list(self._journal.files):
            if file.state == "failed" and not file.job_id:
                # The request failed before a job was created, so no user was imported.
                file.state, file.reason = "waiting", None
            elif file.state in ("uncertain", "failed"):
                deadline = file.requested_at + MAX_JOB_SECONDS if file.state == "uncertain" else 0.0
                self._compare_with_tenant(file, deadline)
                self._advance(file)

    def _is_busy_for_too_long(self) -> bool:
        now = self._clock.now()
        if self._busy_since is None:
            self._busy_since = now
            self._notify("Auth0 does not accept another import job at present; waiting for a running import job to end")
        return now - self._busy_since > MAX_JOB_SECONDS

    def _start(self, file: FileImport) -> None:
        """Send a file. If Auth0 is busy, for example because two jobs are running, the state returns to ``waiting``."""
        journal, users = self._journal, self._journal.content(file)
        file.state, file.requested_at, file.reason = "uncertain", self._clock.now(), None
        journal.write()
        try:
            file.job_id = create_users_import(
                self._client, connection_id=journal.connection_id, users=users, upsert=journal.upsert
            )
            file.state, self._busy_since = "sent", None
        except ProviderBusyError as error:
            file.reason = str(error)
            if not error.uncertain:
                file.state = "waiting"
                self._next_request_at = self._clock.now() + max(BUSY_SECONDS, error.retry_after or 0.0)
        except WrongFormatError as error:
            # Auth0 may have created a job although the response does not contain its id.
            file.reason = str(error)
        except MeiboError as error:
            file.state, file.reason = "failed", str(error)
        journal.write()

    def _is_finished(self, file: FileImport) -> bool:
        """Update the state of a file, and return False while its job is pending.

        The state remains ``sent`` if the result cannot be read, or if the job is pending for more than two hours.
        """
        try:
            status = get_job(self._client, file.job_id)
            if status.status == "pending":
                if self._clock.now() - file.requested_at < MAX_JOB_SECONDS:
                    return False
                file.reason = "the job is still pending after more than two hours"
                return True
            faults = self._faults(file, status)
            summary = import_summary(self._client, file.job_id) if status.status == "completed" else None
        except MeiboError as error:
            file.reason = str(error)
            return True
        file.codes = dict(Counter(code for fault in faults for code in fault.codes or ("UNKNOWN",)))
        if summary is not None:
            file.inserted, file.updated, file.failed = summary.inserted, summary.updated, summary.failed
        self._journal.write_failed(file, [{**fault.user, "errors": fault.errors} for fault in faults])
        if status.status == "completed":
            file.state, file.reason = "done", None
        elif status.reason == "missing":
            file.state, file.reason = "uncertain", "Auth0 has deleted the job, so its result is unknown"
        else:
            file.state, file.reason = "failed", f"the job ended with the status {status.reason}"
        self._journal.write()
        return True

    def _faults(self, file: FileImport, status: JobState) -> list[ImportFault]:
        if status.reason == "missing":
            return []
        try:
            return import_faults(self._client, file.job_id)
        except RequestRefusedError:
            if status.status == "completed":
                raise
            # Auth0 rejected the whole file.
            return []

    # -- files with an unknown result

    def _compare_with_tenant(self, file: FileImport, deadline: float) -> None:
        """Compare the users of a file with the tenant until it contains all of them, or until the deadline of the job.

        Users who are missing at the deadline are written to a new file of the journal, which is sent later.
        """
        users: list[dict[str, Any]] = json.loads(self._journal.content(file))
        missing, other, interval = users, list[dict[str, Any]](), MIN_INTERVAL_SECONDS
        while True:
            states = [(user, self._state(user)) for user in missing]
            missing = [user for user, state in states if state == "missing"]
            other += [user for user, state in states if state == "other"]
            left = deadline - self._clock.now()
            if not missing or left <= 0:
                break
            if interval == MIN_INTERVAL_SECONDS:
                end = datetime.fromtimestamp(deadline, UTC)
                self._notify(
                    f"{file.name}: {format_count(len(missing), 'user')} not in the tenant yet; waiting until"
                    f" {end:%Y-%m-%d %H:%M} UTC at the latest, because the job may still be running"
                )
            self._clock.sleep(min(interval, left))
            interval = min(2 * interval, MAX_INTERVAL_SECONDS)
        imported = len(users) - len(missing) - len(other)
        file.inserted, file.updated, file.failed = (
            (0, imported, 0) if self._journal.upsert else (imported, 0, len(other))
        )
        file.state, file.reason = "done", f"{format_count(imported, 'user')} found in the tenant"
        file.codes = {DUPLICATED: len(other)} if other else {}
        error = {"code": DUPLICATED, "message": "The tenant has a user with this id and different values."}
        self._journal.write_failed(file, [{**user, "errors": [error]} for user in other])
        if missing:
            self._add_file(file, missing)
        self._journal.write()

    def _state(self, user: dict[str, Any]) -> Literal["imported", "other", "missing"]:
        """Return whether the tenant contains a user of the file with the same values.

        If the values differ, the result is ``missing`` with ``upsert``, because the user was not updated. Without
        ``upsert``, it is ``other``, because the user existed before the import.
        """
        live = live_user(self._client, PREFIX + user["user_id"])
        if live is None:
            return "missing"
        if has_values(live, user, user.keys() & UPDATED if self._journal.upsert else user.keys() - {"user_id"}):
            return "imported"
        return "missing" if self._journal.upsert else "other"

    def _add_file(self, file: FileImport, users: list[dict[str, Any]]) -> None:
        name = f"{file.name.removesuffix('.json')}-rest.json"
        content = b"[" + b",\n".join(map(json_bytes, users)) + b"]"
        replace_file(self._journal.folder / name, content)
        rest = FileImport(name=name, sha256=digest(content), users=len(users))
        self._journal.files.insert(self._journal.files.index(file) + 1, rest)


@contextmanager
def _delayed_interrupt() -> Iterator[None]:
    """Delay Ctrl-C until the response of a request is in the journal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if received:
        raise KeyboardInterrupt
