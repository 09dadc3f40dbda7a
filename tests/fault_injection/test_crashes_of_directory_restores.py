"""Kill a restore of roles, organizations and memberships around every request and every line of its progress."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from meibo.providers.auth0.client import Auth0Client
from meibo_cli.restore.directory_execution import apply_directory_plan
from meibo_cli.restore.directory_plan import ProgressFile
from meibo_cli.restore.memberships import Queueing
from meibo_simulators import SimulatedTenant
from tests.fault_injection.test_crashes_of_restores import KilledError, Killer
from tests.integration.cli.conftest import invoke
from tests.support.directories import archive_tenant, contents, empty_tenant, running, source_tenant

SIZE = {"users": 12, "organizations": 3, "members": 4, "roles": 2}


@contextmanager
def process(moment: int | None = None) -> Iterator[Killer]:
    """Run the block as a process that is killed at a moment. If the moment is None, the process is not killed."""
    killer = Killer(moment)
    with (
        mock.patch.object(Auth0Client, "request", killer.around(Auth0Client.request)),
        mock.patch.object(ProgressFile, "add", killer.around(ProgressFile.add)),
    ):
        try:
            yield killer
        except KilledError:
            assert moment is not None


class Restores:
    """Restores of one plan into a tenant that is emptied before each of them."""

    def __init__(self, source: SimulatedTenant, target: SimulatedTenant, plan: Path, folder: Path) -> None:
        self.source = source
        self.target = target
        self._plan = plan
        self._folder = folder
        self._count = 0

    def begin(self) -> Path:
        """Empty the tenant, and return a folder with the plan."""
        fresh = empty_tenant(users=SIZE["users"])
        self.target.organizations, self.target.roles = fresh.organizations, fresh.roles
        self._count += 1
        return shutil.copytree(self._plan, self._folder / str(self._count))

    def apply(self, folder: Path) -> None:
        apply_directory_plan(folder, Queueing(None, "meibo", "/meibo/sources"), yes=True)

    def check(self) -> None:
        """Check that the tenant contains every object once."""
        assert contents(self.target) == contents(self.source)
        assert len(self.target.roles.by_id) == SIZE["roles"]
        assert self.target.organizations.count() == SIZE["organizations"]


@pytest.fixture(scope="module")
def restores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restores]:
    folder = tmp_path_factory.mktemp("restores")
    source = source_tenant(**SIZE)
    with running(source):
        run_id = archive_tenant(source, folder / "archive")
    target = empty_tenant(users=SIZE["users"])
    with running(target):
        location = ("--archive", str(folder / "archive"), "--run", run_id, "--domain", target.domain)
        options = ("--datasets", "all", "--location-host", target.allowed_hosts[0], "-o", str(folder / "plan"))
        result = invoke("restore", "acme", *location, *options)
        assert result.status == 0, result.output + result.errors
        yield Restores(source, target, folder / "plan", folder)


def moments(restores: Restores) -> int:
    folder = restores.begin()
    with process() as killer:
        restores.apply(folder)
    restores.check()
    return killer.moments


def test_restore_killed_at_any_moment_is_resumed(restores: Restores) -> None:
    count = moments(restores)

    assert count >= 60
    for moment in range(count):
        folder = restores.begin()
        with process(moment):
            restores.apply(folder)
        restores.apply(folder)
        restores.check()


@pytest.mark.parametrize("distance", [10, 7])
def test_restore_that_is_killed_repeatedly_is_resumed(restores: Restores, distance: int) -> None:
    folder, killed = restores.begin(), 0
    for _ in range(moments_of_one_process := 200):
        with process(distance) as killer:
            restores.apply(folder)
        if killer.moments < distance:
            break
        killed += 1

    assert 1 <= killed < moments_of_one_process
    restores.check()


def test_truncated_line_of_the_progress_file_is_ignored(restores: Restores) -> None:
    folder = restores.begin()
    with process(20):
        restores.apply(folder)
    path = folder / "progress.ndjson"
    path.write_bytes(path.read_bytes()[:-5])

    restores.apply(folder)

    restores.check()
