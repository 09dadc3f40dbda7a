"""Run the same tests against both readers of an archive: disk and S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from meibo.archive.reader import DiskReader, Listed
from meibo.errors import ArchiveConflictError
from tests.support.archives import BucketArchive, Storage


def test_objects_are_listed_in_order_below_a_prefix_and_after_a_key(storage: Storage) -> None:
    for key in ("a/b/2", "a/b.x", "a/b/1", "a/c", "b/1"):
        storage.put(key, key.encode())

    assert [item.key for item in storage.reader().list("a/")] == ["a/b.x", "a/b/1", "a/b/2", "a/c"]
    assert list(storage.reader().list("a/b/", after="a/b/1")) == [Listed("a/b/2", 5)]
    assert [item.key for item in storage.reader().list("a/b")] == ["a/b.x", "a/b/1", "a/b/2"]
    assert list(storage.reader().list("none/")) == []


def test_folders_are_listed_without_their_subfolders(storage: Storage) -> None:
    for key in ("runs/dt=2/x/y", "runs/dt=1/x", "runs/file"):
        storage.put(key, b"")

    assert list(storage.reader().folders("runs/")) == ["runs/dt=1/", "runs/dt=2/"]
    assert list(storage.reader().folders("none/")) == []


def test_bytes_are_read_completely(storage: Storage) -> None:
    body = bytes(range(256)) * 8192
    version = storage.put("a/b", body)

    assert storage.reader().read("a/b") == body
    assert b"".join(storage.reader().chunks("a/b")) == body
    assert b"".join(storage.reader().chunks("a/b", version)) == body
    stat = storage.reader().stat("a/b")
    assert stat is not None
    assert (stat.bytes, stat.version_id) == (len(body), version)


def test_missing_object_is_reported(storage: Storage) -> None:
    reader = storage.reader()

    assert reader.read("none") is None
    assert reader.stat("none") is None
    with pytest.raises(ArchiveConflictError, match="none is not there"):
        list(reader.chunks("none"))


def test_earlier_version_is_read_by_its_id(storage: Storage) -> None:
    first = storage.put("a", b"first")
    storage.put("a", b"second")

    current = b"".join(storage.reader().chunks("a"))
    named = b"".join(storage.reader().chunks("a", first))

    assert current == b"second"
    assert named == (b"first" if isinstance(storage, BucketArchive) else b"second")


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_storage_class_is_known_without_reading(storage: BucketArchive) -> None:
    for storage_class in ("STANDARD", "GLACIER_IR", "DEEP_ARCHIVE"):
        storage.client.put_object(Bucket=storage.name, Key=storage_class, Body=b"", StorageClass=storage_class)
    reader = storage.reader()

    stats = {key: reader.stat(key) for key in ("STANDARD", "GLACIER_IR", "DEEP_ARCHIVE")}

    assert {key: stat and stat.storage_class for key, stat in stats.items()} == {
        "STANDARD": None,
        "GLACIER_IR": "GLACIER_IR",
        "DEEP_ARCHIVE": "DEEP_ARCHIVE",
    }


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "a/./b", "a//b", "", "a/b\0", "{outside}/secret"])
def test_key_outside_the_folder_does_not_exist(tmp_path: Path, key: str) -> None:
    (tmp_path / "archive" / "a").mkdir(parents=True)
    for path in ("secret", "archive/a/b"):
        (tmp_path / path).write_bytes(b"body")
    reader = DiskReader(tmp_path / "archive")
    key = key.format(outside=tmp_path)

    assert reader.read(key) is None
    assert reader.stat(key) is None
    with pytest.raises(ArchiveConflictError):
        list(reader.chunks(key))
    assert reader.read("a/b") == b"body"


@pytest.mark.parametrize("target", ["nowhere", "link"])
def test_dangling_link_is_listed_as_empty_and_does_not_exist(tmp_path: Path, target: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to(target)
    reader = DiskReader(tmp_path)

    assert list(reader.list("a/")) == [Listed("a/link", 0)]
    assert list(reader.folders("a/")) == []
    assert reader.read("a/link") is None
    assert reader.stat("a/link") is None
