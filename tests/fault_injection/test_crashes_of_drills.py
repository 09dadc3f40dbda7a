"""Kill a restore of users, roles, organizations and memberships at every tenth call, and continue it.

A call is a request to the tenant, or a write to the journal of an import or to the progress of the plan.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from meibo.providers.auth0.client import Auth0Client
from meibo_cli.files import replace_file
from meibo_cli.restore import drill, import_jobs, journal
from meibo_cli.restore.directory_plan import ProgressFile
from meibo_local.drill import empty_tenant, source_tenant
from meibo_simulators import SimulatedTenant
from meibo_simulators.auth0 import imports
from tests.fault_injection.test_crashes_of_restores import KilledError, Killer
from tests.integration.cli.conftest import CommandResult, invoke
from tests.support.directories import archive_tenant, contents, running

USERS = 14
# A killer has a moment before and a moment after each call.
TEN_CALLS = 20


class MainThreadKiller(Killer):
    """A killer of the main thread. The threads of an export only read the tenant."""

    def pass_moment(self) -> None:
        if threading.current_thread() is threading.main_thread():
            super().pass_moment()


@contextmanager
def process(moment: int | None = None) -> Iterator[MainThreadKiller]:
    """Run the block as a process that is killed at a moment. If the moment is None, the process is not killed."""
    killer = MainThreadKiller(moment)
    write = killer.around(replace_file)
    with (
        mock.patch.object(Auth0Client, "request", killer.around(Auth0Client.request)),
        mock.patch.object(ProgressFile, "add", killer.around(ProgressFile.add)),
        mock.patch.object(journal, "replace_file", write),
        mock.patch.object(import_jobs, "replace_file", write),
        mock.patch.object(drill, "replace_file", write),
    ):
        try:
            yield killer
        except KilledError:
            assert moment is not None


@dataclass
class Drills:
    """Drills of one archive. ``imported`` counts the users in the import requests that the tenant accepted."""

    source: SimulatedTenant
    archive: Path
    run_id: str
    folder: Path
    imported: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def target(self) -> Iterator[SimulatedTenant]:
        """Serve an empty tenant."""
        self.imported.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        tenant = empty_tenant()
        tenant.switches.polls_until_completed = 0
        tenant.switches.import_seconds = 0

        def import_users(directory: Any, job: Any, connection_id: str, rows: list[Any], *, upsert: bool) -> None:
            self.imported.update(row["user_id"] for row in rows)
            imports.import_users(directory, job, connection_id, rows, upsert=upsert)

        with mock.patch("meibo_simulators.auth0.user_routes.import_users", import_users), running(tenant):
            yield tenant

    def execute(self, tenant: SimulatedTenant) -> CommandResult:
        """Begin the drill, or continue it."""
        if (self.folder / drill.SETTINGS).exists():
            self._leave_incomplete_files()
            return invoke("drill", "--resume", str(self.folder))
        shutil.rmtree(self.folder, ignore_errors=True)
        location = ("--archive", str(self.archive), "--run", self.run_id, "-o", str(self.folder))
        target = ("--to", tenant.domain, "--location-host", tenant.file_host)
        return invoke("drill", "acme", *location, *target, "--yes")

    def _leave_incomplete_files(self) -> None:
        """Write the incomplete files that a killed process leaves. After an exception, a process removes them."""
        for name, complete in (("users-1", "journal.json"), ("users-2", "journal.json"), ("directory", "plan.json")):
            folder = self.folder / name
            if not (folder / complete).exists():
                folder.mkdir(exist_ok=True)
                (folder / "incomplete").write_bytes(b"")

    def check(self, result: CommandResult, tenant: SimulatedTenant) -> None:
        """Check that every object was restored exactly once."""
        assert result.status == 0, result.output + result.errors
        report = json.loads((self.folder / "report.json").read_bytes())
        assert report["passed"] is True
        groups = report["groups"].values()
        assert all(group["missing"] == group["different"] == group["unexpected"] == 0 for group in groups)
        assert len(self.imported) == USERS
        assert set(self.imported.values()) == {1}
        original, restored = contents(self.source), contents(tenant)
        assert restored["roles"] == original["roles"]
        assert len(tenant.roles.by_id) == len(self.source.roles.by_id)
        assert tenant.organizations.count() == self.source.organizations.count()


@pytest.fixture(autouse=True)
def _short_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a few users per file, and do not wait for jobs, because they finish at once in this tenant."""
    monkeypatch.setattr("os.fsync", lambda _file: None)
    monkeypatch.setattr("meibo_cli.restore.import_files.MAX_FILE_BYTES", 3000)
    monkeypatch.setattr("meibo_cli.restore.import_jobs.POLL_SECONDS", 0.0)
    monkeypatch.setattr("meibo_cli.restore.import_jobs.MAX_JOB_SECONDS", 0.0)


@pytest.fixture(scope="module")
def drills(tmp_path_factory: pytest.TempPathFactory) -> Drills:
    folder = tmp_path_factory.mktemp("drills")
    source = source_tenant(users=USERS, organizations=3, members=4, roles=2)
    source.switches.polls_until_completed = 0
    with running(source):
        run_id = archive_tenant(source, folder / "archive")
    return Drills(source, folder / "archive", run_id, folder / "drill")


@pytest.mark.parametrize("distance", [TEN_CALLS, TEN_CALLS - 3])
def test_drill_killed_again_at_every_tenth_call_restores_everything_once(drills: Drills, distance: int) -> None:
    killed = 0
    with drills.target() as tenant:
        while killed < (limit := 200):
            with process(distance) as killer:
                result = drills.execute(tenant)
            if killer.moments < distance:
                break
            killed += 1

        assert 5 <= killed < limit
        drills.check(result, tenant)


@pytest.mark.parametrize("part", range(PARTS := 4))
def test_drill_killed_at_any_tenth_call_is_continued(drills: Drills, part: int) -> None:
    with drills.target() as tenant, process() as killer:
        drills.check(drills.execute(tenant), tenant)

    assert killer.moments >= 10 * TEN_CALLS
    # An odd distance, so that the process is killed before some calls and after others.
    for moment in range(0, killer.moments, TEN_CALLS + 1)[part::PARTS]:
        with drills.target() as tenant:
            with process(moment):
                drills.execute(tenant)
            drills.check(drills.execute(tenant), tenant)
