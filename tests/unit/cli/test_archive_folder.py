"""An archive folder has one writer, and does not contain both real exports and exports of the demonstration."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from meibo.errors import ConfigurationError
from meibo_cli.archive_folder import MARKER, Kind, locked_archive, remove_parts
from meibo_cli.files import LOCK, replace_file

KINDS: tuple[Kind, ...] = get_args(Kind)


def visible(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", KINDS)
def test_new_folder_is_marked_at_first_use(tmp_path: Path, kind: Kind) -> None:
    folder = tmp_path / "a" / "archive"

    with locked_archive(folder, kind):
        pass

    assert json.loads((folder / MARKER).read_text(encoding="utf-8")) == {"kind": kind, "version": 1}
    with locked_archive(folder, kind):
        assert visible(folder) == {LOCK, MARKER}


@pytest.mark.parametrize("kind", KINDS)
def test_folder_of_the_other_kind_is_refused(tmp_path: Path, kind: Kind) -> None:
    (other,) = set(KINDS) - {kind}
    with locked_archive(tmp_path, other):
        pass

    with pytest.raises(ConfigurationError) as refused:
        locked_archive(tmp_path, kind).__enter__()

    description = {
        "archive": "an archive of real directories, which `meibo run` writes",
        "demonstration": "a demonstration with simulated directories, which `make run` writes",
    }[other]
    assert str(refused.value) == (
        f"{tmp_path}/ is {description}; choose another folder, because real archives and demonstrations are never mixed"
    )


def test_folder_with_files_but_without_a_marker_is_refused(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()

    with pytest.raises(ConfigurationError) as refused:
        locked_archive(tmp_path, "archive").__enter__()

    assert str(refused.value) == (
        f"{tmp_path}/ contains files but no .meibo, so its kind is unknown; choose another"
        " folder or, if it is an archive of real directories, which `meibo run` writes, create"
        f' {tmp_path}/.meibo with {{"kind": "archive", "version": 1}}'
    )
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "not JSON", '{"kind": "other", "version": 1}', '{"kind": "archive", "version": 2}']
)
def test_unknown_marker_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_text(text, encoding="utf-8")

    with pytest.raises(ConfigurationError) as refused:
        locked_archive(tmp_path, "archive").__enter__()

    assert str(refused.value) == (
        f'{tmp_path}/.meibo: expected {{"kind": "archive", "version": 1}}; another version of Meibo or another program'
        " wrote it"
    )


def test_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with locked_archive(tmp_path, "archive"):
        with pytest.raises(ConfigurationError) as refused:
            locked_archive(tmp_path, "archive").__enter__()
        assert str(refused.value) == (
            f"another process ({os.getpid()}) is writing to {tmp_path}/; wait until it has ended, or choose another"
            " folder"
        )
    # The lock file of a killed process contains a process id that another process may have.
    (tmp_path / LOCK).write_text("1\n", encoding="ascii")

    with locked_archive(tmp_path, "archive"):
        assert (tmp_path / LOCK).read_text(encoding="ascii") == f"{os.getpid()}\n"


def test_parts_of_complete_and_old_runs_are_removed(tmp_path: Path) -> None:
    runs = {
        "complete": "parts/dt=2026-11-21/run=20261121T180000Z",
        "killed": "parts/dt=2026-11-20/run=20261120T180000Z",
        "old": "parts/dt=2026-11-13/run=20261113T180000Z",
    }
    for folder in runs.values():
        (tmp_path / folder / "acme").mkdir(parents=True)
    now = datetime(2026, 11, 21, 18, 5, tzinfo=UTC)

    remove_parts(tmp_path, now, "20261121T180000Z")

    assert {name for name, folder in runs.items() if (tmp_path / folder).exists()} == {"killed"}


def test_file_is_replaced(tmp_path: Path) -> None:
    replace_file(tmp_path / "index.html", b"first")
    replace_file(tmp_path / "index.html", b"second")

    assert visible(tmp_path) == {"index.html"}
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == "second"
