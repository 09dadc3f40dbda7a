"""Download an archive into a folder. Files are complete, and a manifest is written after its file."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from moto import mock_aws

from meibo.archive.storage import TEMPORARY_PREFIX
from meibo.errors import ConfigurationError
from meibo_cli.archive_folder import locked_archive
from meibo_local.aws import LocalAws

RUN = "dt=2026-11-21/run=20261121T180000Z"
OBJECT = f"archive/provider=auth0/source=acme/dataset=users/format=ndjson/scope=all/{RUN}/users.ndjson.gz"
MANIFEST = OBJECT.replace("users.ndjson.gz", "_manifest.json")
RUN_MANIFEST = f"runs/{RUN}/_manifest.json"
REPORT = f"reports/{RUN}/index.html"
# In the order of a listing: manifests precede their objects.
KEYS = sorted([OBJECT, MANIFEST, RUN_MANIFEST, f"runs/{RUN}/_plan.json", REPORT])
EVERYTHING = {key: key.encode() for key in KEYS}
CALLS = ("open", "os.link", "os.mkdir", "os.remove", "os.rmdir")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAws]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="archive")
        for key, body in EVERYTHING.items():
            client.put_object(Bucket="archive", Key=key, Body=body)
        yield LocalAws("archive", "", "", "", "", "", Mock(), Mock(), {})


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.parent.name.startswith(TEMPORARY_PREFIX)
    }


def download_and_die(aws: LocalAws, step: int, folder: Path) -> int:
    """Download all keys in a process that ends before its nth call on files, without cleanup; return its status."""
    child = os.fork()
    if child == 0:
        steps = itertools.count(1)

        def die(event: str, arguments: tuple[Any, ...]) -> None:
            if event in CALLS and str(arguments[0]).startswith(str(folder)) and next(steps) == step:
                os._exit(9)

        sys.addaudithook(die)
        try:
            aws.download(folder)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_process_killed_at_any_step_leaves_complete_files_and_true_manifests(aws: LocalAws, tmp_path: Path) -> None:
    sizes = set()
    status, step = 9, 0
    while status == 9:
        step += 1
        folder = tmp_path / str(step)
        folder.mkdir()

        status = download_and_die(aws, step, folder)

        present = files(folder)
        assert present.items() <= EVERYTHING.items()
        assert MANIFEST not in present or OBJECT in present
        assert RUN_MANIFEST not in present or {MANIFEST, OBJECT} <= set(present)
        assert REPORT not in present or len(present) == len(KEYS)
        sizes.add(len(present))
        # The next download completes the archive.
        aws.download(folder)
        assert files(folder) == EVERYTHING
    assert status == 0
    assert sizes == set(range(len(KEYS) + 1))


def test_existing_file_is_not_changed(aws: LocalAws, tmp_path: Path) -> None:
    (tmp_path / OBJECT).parent.mkdir(parents=True)
    (tmp_path / OBJECT).write_bytes(b"earlier")

    assert aws.download(tmp_path) == len(KEYS) - 1

    assert files(tmp_path) == {**EVERYTHING, OBJECT: b"earlier"}


def test_second_writer_is_rejected_and_a_stale_lock_is_ignored(tmp_path: Path) -> None:
    with locked_archive(tmp_path, "demonstration"):
        with pytest.raises(ConfigurationError, match=re.escape(f"process ({os.getpid()})")) as refused:
            locked_archive(tmp_path, "demonstration").__enter__()
        assert str(tmp_path) in str(refused.value)
    # The lock file of a killed process contains a process id that another process may have.
    (tmp_path / ".lock").write_text("1\n", encoding="ascii")

    with locked_archive(tmp_path, "demonstration"):
        assert (tmp_path / ".lock").read_text(encoding="ascii") == f"{os.getpid()}\n"
