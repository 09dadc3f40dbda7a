"""Kill an import before and after every write of the journal and every request, then resume it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from meibo.providers.auth0.client import Auth0Client
from meibo_cli.files import replace_file
from meibo_cli.restore import import_jobs
from meibo_cli.restore import journal as journal_module
from meibo_simulators import FIRST_CONNECTION
from tests.support.imports import ImportTarget, import_target, user

FILES, USERS = 3, 2


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the writes to the disk: a killed process loses nothing that the system has buffered."""
    monkeypatch.setattr("os.fsync", lambda _file: None)


class KilledError(BaseException):
    """The process was killed."""


@dataclass
class Killer:
    """Kills the process at a numbered moment. Moments are before and after each request and write."""

    moment: int | None = None
    moments: int = 0

    def pass_moment(self) -> None:
        if self.moments == self.moment:
            raise KilledError
        self.moments += 1

    def around(self, function: Any) -> Any:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            self.pass_moment()
            result = function(*arguments, **options)
            self.pass_moment()
            return result

        return wrapper


@contextmanager
def process(moment: int | None = None) -> Iterator[Killer]:
    """Run the block as a process that is killed at a moment. If the moment is None, the process is not killed."""
    killer = Killer(moment)
    write = killer.around(replace_file)
    with (
        mock.patch.object(Auth0Client, "request", killer.around(Auth0Client.request)),
        mock.patch.object(journal_module, "replace_file", write),
        mock.patch.object(import_jobs, "replace_file", write),
    ):
        try:
            yield killer
        except KilledError:
            assert moment is not None


def prepare(target: ImportTarget, folder: Path, *, upsert: bool) -> None:
    target.journal(folder, files=FILES, users=USERS, upsert=upsert)
    if upsert:
        for number in range(FILES * USERS):
            profile = {**user(number), "user_id": f"auth0|{number:024}", "user_metadata": {"edited": True}}
            profile["email"] = profile["email"].lower()
            identity = {
                "connection": "Username-Password-Authentication",
                "provider": "auth0",
                "user_id": f"{number:024}",
            }
            target.tenant.directory.put(FIRST_CONNECTION, {**profile, "identities": [identity]})


def check(target: ImportTarget, folder: Path, *, upsert: bool) -> None:
    """Check that every user was sent exactly once, and that the journal states it."""
    journal = journal_module.Journal.read(folder)
    assert all(file.succeeded for file in journal.files)
    assert sum(file.updated if upsert else file.inserted for file in journal.files) == FILES * USERS
    assert target.users() == {f"auth0|{n:024}": user(n)["user_metadata"] for n in range(FILES * USERS)}
    assert target.received == {f"{n:024}": 1 for n in range(FILES * USERS)}


def moments_of_an_import(folder: Path, *, upsert: bool) -> int:
    with import_target() as target:
        prepare(target, folder / "complete", upsert=upsert)
        with process() as killer:
            target.send(folder / "complete")
        check(target, folder / "complete", upsert=upsert)
        return killer.moments


@pytest.mark.parametrize("upsert", [False, True])
def test_import_killed_at_any_moment_is_resumed(tmp_path: Path, upsert: bool) -> None:
    moments = moments_of_an_import(tmp_path, upsert=upsert)

    assert moments >= 2 * FILES * 6
    for moment in range(moments):
        folder = tmp_path / str(moment)
        with import_target() as target:
            prepare(target, folder, upsert=upsert)
            with process(moment):
                target.send(folder)
            target.send(folder)
            check(target, folder, upsert=upsert)


@pytest.mark.parametrize("second", range(0, 60, 3))
def test_resumed_import_can_be_killed_again(tmp_path: Path, second: int) -> None:
    for first in range(second % 7, 60, 7):
        folder = tmp_path / str(first)
        with import_target() as target:
            prepare(target, folder, upsert=False)
            for moment in (first, second):
                with process(moment):
                    target.send(folder)
            target.send(folder)
            check(target, folder, upsert=False)
