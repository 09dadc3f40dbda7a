"""The copy against SeaweedFS, an independent implementation of S3 that verifies checksums and conditions."""

from __future__ import annotations

import hashlib
import random
import ssl
import uuid
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from meibo.archive.content import Crc64Nvme
from meibo.archive.copy import Content, CopyOptions, CopyResult, LocationSource, Target, copy, transfer
from meibo.errors import ArchiveConflictError, CopyBrokenError, CorruptFileError
from meibo.settings import ObjectLock
from tests.integration.archive.faulty_servers import Fault, File

if TYPE_CHECKING:
    from tests.integration.archive.conftest import Seaweed
    from tests.integration.archive.faulty_servers import Server

pytestmark = pytest.mark.xdist_group("seaweed")

PART = 5 * 1024 * 1024
SIZES = [0, 1000, PART, 3 * PART + 1]


class Archive:
    """A key in SeaweedFS that no other test uses, and a source."""

    def __init__(self, seaweed: Seaweed, source: Server, tls: ssl.SSLContext) -> None:
        self.client = seaweed.client
        self.source = source
        self.target = Target(seaweed.client, "archive", f"dt=2026-11-21/名簿 {uuid.uuid4()}.csv", "text/csv")
        self.options = CopyOptions(
            workers=4,
            part_bytes=PART,
            max_attempts=2,
            backoff_seconds=0.001,
            source_tls=tls,
            target_tls=seaweed.tls,
        )

    def copy(self, data: bytes, content: Content | None = None, **faults: Fault) -> CopyResult:
        self.source.serve(File(data, faults={int(at[1:]): fault for at, fault in faults.items()}))
        return copy(LocationSource(self.source.location), self.target, content=content, options=self.options)

    def nothing_is_left(self) -> bool:
        objects = self.client.list_objects_v2(Bucket="archive", Prefix=self.target.key)
        uploads = self.client.list_multipart_uploads(Bucket="archive", Prefix=self.target.key)
        return not objects.get("Contents") and not uploads.get("Uploads")


@pytest.fixture
def archive(seaweed: Seaweed, source: Server, tls: ssl.SSLContext) -> Archive:
    return Archive(seaweed, source, tls)


@pytest.mark.parametrize("size", SIZES)
def test_archived_bytes_are_the_served_bytes(archive: Archive, size: int) -> None:
    data = random.Random(size).randbytes(size)

    result = archive.copy(data, _1=Fault("reset", 70_000))

    stored = archive.client.get_object(Bucket="archive", Key=archive.target.key, ChecksumMode="ENABLED")
    assert hashlib.sha256(stored["Body"].read()).hexdigest() == result.sha256
    assert stored["ChecksumCRC64NVME"] == result.checksum
    assert stored["ContentType"] == "text/csv"


@pytest.mark.parametrize("size", [1000, 2 * PART])
def test_wrong_checksum_is_refused_by_the_server(archive: Archive, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Crc64Nvme):
        def encode(self, value: int) -> str:
            return super().encode(value ^ 1)

    monkeypatch.setattr(transfer, "best_checksum", Wrong)
    with pytest.raises(CopyBrokenError, match="BadDigest"):
        archive.copy(bytes(size))
    assert archive.nothing_is_left()


@pytest.mark.parametrize("size", [1000, 2 * PART])
def test_second_archive_is_refused_by_the_server(archive: Archive, size: int) -> None:
    first = archive.copy(b"a" * size)

    # then: a second copy of the same file succeeds and changes nothing
    again = archive.copy(b"a" * size)
    assert (again.already_there, again.etag) == (True, first.etag)

    # and: another file is rejected by the copy and by the server
    with pytest.raises(ArchiveConflictError):
        archive.copy(b"b" * size)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        archive.client.put_object(Bucket="archive", Key=archive.target.key, Body=b"b", IfNoneMatch="*")
    head = archive.client.head_object(Bucket="archive", Key=archive.target.key)
    assert head["ETag"].strip('"') == first.etag


def test_truncated_file_leaves_neither_an_object_nor_an_upload(archive: Archive) -> None:
    with pytest.raises(CorruptFileError):
        archive.copy(b"\x1f\x8b\x08\0\0\0\0\0\0\3" + bytes(2 * PART), Content("opaque", "required"))
    assert archive.nothing_is_left()


def test_retention_is_requested_with_the_object(archive: Archive) -> None:
    # A request can be sent again, so the number of requests varies.
    retained: dict[str, set[bool]] = {"CreateMultipartUpload": set(), "PutObject": set()}
    for call, states in retained.items():
        archive.client.meta.events.register_last(
            f"before-send.s3.{call}",
            lambda request, states=states, **_: states.add("x-amz-object-lock-retain-until-date" in request.headers),
        )
    lock = ObjectLock(mode="GOVERNANCE", days=1)
    archive.target = Target(archive.client, "archive", archive.target.key, object_lock=lock)
    for size in (10, 2 * PART):
        with pytest.raises(CopyBrokenError, match=r"InvalidRequest|ObjectLock"):
            archive.copy(bytes(size))
    assert retained == {"CreateMultipartUpload": {True}, "PutObject": {True}}
