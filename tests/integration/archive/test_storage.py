"""One suite for all storage implementations, so that the folder and the in-memory storage behave like S3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from meibo.archive.storage import (
    TEMPORARY_PREFIX,
    ArchiveStorage,
    FolderReader,
    FolderStorage,
    S3Reader,
    S3Storage,
    StoredObject,
)
from meibo.errors import ArchiveConflictError, ConfigurationError
from meibo_local.caches import shared_clients
from tests.support.memory_archive import MemoryStorage


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws(), shared_clients():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="archive")
        client.put_bucket_versioning(Bucket="archive", VersioningConfiguration={"Status": "Enabled"})
        yield client


@pytest.fixture(params=["memory", "folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ArchiveStorage:
    if request.param == "memory":
        return MemoryStorage()
    if request.param == "folder":
        return FolderStorage(tmp_path / "archive")
    return S3Storage(request.getfixturevalue("s3"), "archive")


def put(storage: ArchiveStorage, key: str, body: bytes = b"body") -> bool:
    return storage.put_bytes(key, body, content_type="application/octet-stream")


def test_document_is_read_as_it_was_written(storage: ArchiveStorage) -> None:
    assert storage.put_json("runs/a.json", {"名簿": [1, None, "é"]}) is True

    assert storage.read_json("runs/a.json") == {"名簿": [1, None, "é"]}


def test_object_is_never_overwritten(storage: ArchiveStorage) -> None:
    storage.put_json("runs/a.json", {"first": True})

    assert storage.put_json("runs/a.json", {"first": False}) is False
    assert storage.read_json("runs/a.json") == {"first": True}


def test_only_one_of_several_writers_succeeds(storage: ArchiveStorage) -> None:
    results: list[bool] = []
    writers = [
        threading.Thread(target=lambda body=body: results.append(put(storage, "runs/a", body)))
        for body in (b"1", b"2", b"3", b"4")
    ]

    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert sorted(results) == [False, False, False, True]


def test_bytes_are_read_as_they_were_written(storage: ArchiveStorage) -> None:
    body = bytes(range(256)) * 8192

    assert put(storage, "parts/a.gz", body) is True

    assert storage.read("parts/a.gz") == body
    assert b"".join(storage.chunks("parts/a.gz")) == body
    stat = storage.stat("parts/a.gz")
    assert stat is not None
    assert stat.bytes == len(body)
    assert storage.exists("parts/a.gz") is True


def test_missing_object_does_not_exist(storage: ArchiveStorage) -> None:
    assert storage.read("runs/none.json") is None
    assert storage.read_json("runs/none.json") is None
    assert storage.stat("runs/none.json") is None
    assert storage.exists("runs/none.json") is False
    with pytest.raises(ArchiveConflictError, match=r"^runs/none\.json does not exist$"):
        list(storage.chunks("runs/none.json"))


def test_object_that_is_not_json_is_a_conflict(storage: ArchiveStorage) -> None:
    put(storage, "runs/a.json", b"not json")

    with pytest.raises(
        ArchiveConflictError,
        match=r"^runs/a\.json: expected JSON, found other data; the object was changed after it was written$",
    ):
        storage.read_json("runs/a.json")


def test_objects_are_listed_in_order_below_the_prefix_and_after_a_key(storage: ArchiveStorage) -> None:
    for key in ("a/b/2", "a/b.x", "a/b/1", "a/c", "b/1"):
        put(storage, key, key.encode())

    assert list(storage.keys("a/")) == ["a/b.x", "a/b/1", "a/b/2", "a/c"]
    assert list(storage.list("a/b/", after="a/b/1")) == [StoredObject("a/b/2", 5)]
    assert list(storage.keys("a/b")) == ["a/b.x", "a/b/1", "a/b/2"]
    assert list(storage.list("none/")) == []


def test_folders_are_listed_one_level_deep(storage: ArchiveStorage) -> None:
    for key in ("runs/dt=2/x/y", "runs/dt=1/x", "runs/file"):
        put(storage, key)

    assert list(storage.folders("runs/")) == ["runs/dt=1/", "runs/dt=2/"]
    assert list(storage.folders("none/")) == []


def test_earlier_version_is_read_by_its_id(s3: Any) -> None:
    first = s3.put_object(Bucket="archive", Key="a", Body=b"first")["VersionId"]
    second = s3.put_object(Bucket="archive", Key="a", Body=b"second")["VersionId"]
    reader = S3Reader(s3, "archive")

    assert b"".join(reader.chunks("a")) == b"second"
    assert b"".join(reader.chunks("a", first)) == b"first"
    stat = reader.stat("a")
    assert stat is not None
    assert stat.version_id == second


def test_storage_class_is_returned_without_reading(s3: Any) -> None:
    for storage_class in ("STANDARD", "GLACIER_IR", "DEEP_ARCHIVE"):
        s3.put_object(Bucket="archive", Key=storage_class, Body=b"", StorageClass=storage_class)
    reader = S3Reader(s3, "archive")

    stats = {key: reader.stat(key) for key in ("STANDARD", "GLACIER_IR", "DEEP_ARCHIVE")}

    assert {key: stat and stat.storage_class for key, stat in stats.items()} == {
        "STANDARD": None,
        "GLACIER_IR": "GLACIER_IR",
        "DEEP_ARCHIVE": "DEEP_ARCHIVE",
    }


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "a/./b", "a//b", "", "a/b\0", "{outside}/secret"])
def test_key_that_leads_out_of_the_folder_does_not_exist(tmp_path: Path, key: str) -> None:
    (tmp_path / "archive" / "a").mkdir(parents=True)
    for path in ("secret", "archive/a/b"):
        (tmp_path / path).write_bytes(b"body")
    folder = FolderStorage(tmp_path / "archive")
    key = key.format(outside=tmp_path)

    assert folder.read(key) is None
    assert folder.stat(key) is None
    with pytest.raises(ArchiveConflictError):
        list(folder.chunks(key))
    with pytest.raises(ConfigurationError, match=r"^expected a key without empty, '\.' or '\.\.' segments, found "):
        put(folder, key)
    assert folder.read("a/b") == b"body"


@pytest.mark.parametrize("target", ["nowhere", "link"])
def test_dangling_link_is_listed_without_content(tmp_path: Path, target: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to(target)
    reader = FolderReader(tmp_path)

    assert list(reader.list("a/")) == [StoredObject("a/link", 0)]
    assert list(reader.folders("a/")) == []
    assert reader.read("a/link") is None
    assert reader.stat("a/link") is None


def test_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    put(FolderStorage(tmp_path / "archive"), "runs/a.json")

    path = tmp_path / "archive" / "runs" / "a.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_file_that_was_not_completed_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / f"{TEMPORARY_PREFIX}1").write_bytes(b"incomplete")
    put(FolderStorage(tmp_path), "runs/a")

    assert list(FolderReader(tmp_path).keys("runs/")) == ["runs/a"]
