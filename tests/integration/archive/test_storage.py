"""Run the same tests against S3ArchiveStore and the in-memory archive, so that both behave alike."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from meibo.archive.storage import ArchiveStore, S3ArchiveStore
from meibo.errors import ArchiveConflictError
from meibo_local.caches import shared_clients
from tests.support.memory_archive import MemoryArchiveStore


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveStore]:
    if request.param == "memory":
        yield MemoryArchiveStore()
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws(), shared_clients():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="archive")
        yield S3ArchiveStore(client, "archive")


def test_document_is_read_as_it_was_written(store: ArchiveStore) -> None:
    assert store.put_json("runs/a.json", {"名簿": [1, None, "é"]}) is True

    assert store.get_json("runs/a.json") == {"名簿": [1, None, "é"]}


def test_document_is_not_overwritten(store: ArchiveStore) -> None:
    store.put_json("runs/a.json", {"first": True})

    assert store.put_json("runs/a.json", {"first": False}) is False
    assert store.get_json("runs/a.json") == {"first": True}


def test_missing_document_is_none(store: ArchiveStore) -> None:
    assert store.get_json("runs/none.json") is None
    assert store.exists("runs/none.json") is False


def test_existing_document_is_reported(store: ArchiveStore) -> None:
    store.put_json("runs/a.json", {})

    assert store.exists("runs/a.json") is True


def test_keys_are_listed_in_order_below_a_prefix_and_after_a_key(store: ArchiveStore) -> None:
    for key in ("runs/c.json", "runs/a.json", "archive/x.json", "runs/b.json"):
        store.put_json(key, {})

    assert list(store.keys("runs/")) == ["runs/a.json", "runs/b.json", "runs/c.json"]
    assert list(store.keys("runs/", after="runs/a.json")) == ["runs/b.json", "runs/c.json"]


def test_object_that_is_not_json_is_an_archive_conflict(store: ArchiveStore) -> None:
    if isinstance(store, MemoryArchiveStore):
        store.objects["runs/a.json"] = b"not json"
    else:
        boto3.client("s3", region_name="us-east-1").put_object(Bucket="archive", Key="runs/a.json", Body=b"not json")

    with pytest.raises(ArchiveConflictError, match=r"runs/a\.json"):
        store.get_json("runs/a.json")


def test_lines_are_read_as_they_were_written(store: ArchiveStore) -> None:
    lines = [{"member": "auth0|名簿"}, {"reason": "two\nlines and\u2028a separator"}]

    assert store.put_lines("changes/a.ndjson", lines) is True

    assert store.get_lines("changes/a.ndjson") == lines


def test_lines_are_not_overwritten(store: ArchiveStore) -> None:
    store.put_lines("changes/a.ndjson", [{"first": True}])

    assert store.put_lines("changes/a.ndjson", [{"first": False}]) is False
    assert store.get_lines("changes/a.ndjson") == [{"first": True}]


def test_missing_lines_are_none(store: ArchiveStore) -> None:
    assert store.get_lines("changes/missing.ndjson") is None


def test_bytes_are_read_as_they_were_written_and_not_overwritten(store: ArchiveStore) -> None:
    body = bytes(range(256)) * 8192

    assert store.put_bytes("parts/a.gz", body, content_type="application/gzip") is True

    assert store.put_bytes("parts/a.gz", b"other", content_type="application/gzip") is False
    assert b"".join(store.chunks("parts/a.gz")) == body


def test_missing_object_is_an_archive_conflict(store: ArchiveStore) -> None:
    with pytest.raises(ArchiveConflictError, match=r"parts/none\.gz"):
        list(store.chunks("parts/none.gz"))
