"""An archive in a folder is complete or absent, even if the process is killed, and has one writer."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from meibo.errors import ConfigurationError
from meibo_local.folder import locked, receive

RUN = "dt=2026-11-21/run=20261121T180000Z"
OBJECT = f"archive/provider=auth0/source=acme/dataset=users/format=ndjson/scope=all/{RUN}/users.ndjson.gz"
MANIFEST = OBJECT.replace("users.ndjson.gz", "_manifest.json")
RUN_MANIFEST = f"runs/{RUN}/_manifest.json"
# In the order of a listing: manifests precede their objects.
KEYS = sorted([OBJECT, MANIFEST, RUN_MANIFEST, f"runs/{RUN}/_plan.json", f"reports/{RUN}/index.html"])


def write(key: str, file: IO[bytes]) -> None:
    file.write(key.encode())


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {".lock", ".meibo"}
    }


def visible(folder: Path) -> set[str]:
    return {key for key in files(folder) if not key.startswith(".")}


def assert_manifests_are_true(present: set[str]) -> None:
    assert MANIFEST not in present or OBJECT in present
    assert RUN_MANIFEST not in present or {MANIFEST, OBJECT} <= present


CALLS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")


def receive_and_die(step: int, folder: Path) -> int:
    """Receive all keys in a process that ends before its nth call on files, without cleanup; return its status."""
    child = os.fork()
    if child == 0:
        steps = itertools.count(1)

        def die(event: str, arguments: tuple[Any, ...]) -> None:
            if event in CALLS and str(arguments[0]).startswith(str(folder)) and next(steps) == step:
                os._exit(9)

        sys.addaudithook(die)
        try:
            receive(folder, KEYS, write)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_process_killed_at_any_step_leaves_all_files_or_none(tmp_path: Path) -> None:
    everything = {key: key.encode() for key in KEYS}
    states = set()
    status, step = 9, 0
    while status == 9:
        step += 1
        folder = tmp_path / str(step)
        with locked(folder):
            pass
        status = receive_and_die(step, folder)
        assert_manifests_are_true(visible(folder))

        with locked(folder):
            recovered = files(folder)

        assert recovered in ({}, everything)
        states.add(len(recovered))
    assert status == 0
    assert states == {0, len(KEYS)}


def test_failed_download_leaves_nothing(tmp_path: Path) -> None:
    def fail(key: str, file: IO[bytes]) -> None:
        file.write(b"some bytes")
        if key == OBJECT:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        receive(tmp_path, KEYS, fail)

    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / OBJECT).parent.mkdir(parents=True)
    (tmp_path / OBJECT).write_bytes(b"earlier")

    receive(tmp_path, KEYS, write)

    assert files(tmp_path) == {**{key: key.encode() for key in KEYS}, OBJECT: b"earlier"}


def test_key_outside_the_folder_is_rejected(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()

    with pytest.raises(ConfigurationError, match=r"expected a key that is a relative path, got 'a/\.\./\.\./b'"):
        receive(folder, ["a/../../b"], write)

    assert files(tmp_path) == {}


def test_second_writer_is_rejected_and_a_stale_lock_is_ignored(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()}") as refused:
            locked(tmp_path).__enter__()
        assert str(tmp_path) in str(refused.value)
    # The lock file of a killed process, whose id may belong to another process now.
    (tmp_path / ".lock").write_text("1\n", encoding="ascii")

    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text(encoding="ascii") == f"{os.getpid()}\n"
