"""Archives on disk and in a versioned bucket, and the command ``meibo``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from meibo.providers import clear_clients
from meibo_cli.main import app
from meibo_local.caches import SharingSession, shared_clients
from tests.support.archives import ArchiveBuilder, BucketArchive, FolderArchive, Storage
from tests.support.local_runs import LocalRuns, local_runs

BUCKET = "archive"


def bucket() -> BucketArchive:
    client: Any = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return BucketArchive(client, BUCKET)


@pytest.fixture(scope="session")
def aws_session() -> SharingSession:
    """Return a session whose clients all tests share, because creating a client takes longer than most tests."""
    return SharingSession()


@pytest.fixture
def account(aws_session: SharingSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws(), shared_clients(), mock.patch.object(boto3, "DEFAULT_SESSION", aws_session):
        yield


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, account: None, tmp_path: Path) -> Storage:
    return FolderArchive(tmp_path / "archive") if request.param == "disk" else bucket()


@pytest.fixture
def builder(storage: Storage) -> ArchiveBuilder:
    return ArchiveBuilder(storage)


@dataclass
class CommandResult:
    status: int
    output: str
    errors: str

    def json(self) -> Any:
        return json.loads(self.output)


Meibo = Callable[..., CommandResult]


def invoke(*arguments: str, text: str | None = None) -> CommandResult:
    """Run a command of ``meibo`` in this process, without the clients of an earlier command.

    ``text`` is its standard input.
    """
    clear_clients()
    result = CliRunner().invoke(app, list(arguments), input=text)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return CommandResult(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def meibo(storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Meibo:
    """Run the command against the archive of the test, in an empty working folder."""
    location = str(storage.path) if isinstance(storage, FolderArchive) else f"s3://{BUCKET}"
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("MEIBO_ARCHIVE", location)

    return invoke


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRuns]:
    with local_runs(tmp_path, monkeypatch) as runs:
        yield runs


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Set the umask to 0, so that all users can read created files unless the program sets their mode."""
    umask = os.umask(0)
    yield
    os.umask(umask)
