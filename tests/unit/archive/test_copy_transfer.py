"""Copies of one part, and the errors that end a copy, without a network."""

from __future__ import annotations

import base64
import hashlib
import io
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import ClientError

from meibo import aws
from meibo.archive.content import Crc64Nvme, FileDigest
from meibo.archive.content.digest import Crc32
from meibo.archive.copy import (
    Content,
    CopyOptions,
    Counts,
    LocationSource,
    StreamSource,
    Target,
    copy,
    transfer,
)
from meibo.archive.copy.cancellation import CancelledError, CancelToken, RetryBudget
from meibo.archive.copy.connection import retry_after
from meibo.archive.copy.transfer import Layout
from meibo.errors import (
    ArchiveConflictError,
    AwsBusyError,
    ConfigurationError,
    CopyBrokenError,
    CorruptFileError,
    OutOfTimeError,
)
from meibo.settings import MIB, ObjectLock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client


def refused(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")


@dataclass
class FakeS3:
    """The calls of a copy that has a single part, and its object."""

    stored: bytes | None = None
    error: ClientError | None = None
    conflicts: int = 0
    returned_checksum: bool = True
    puts: list[dict[str, Any]] = field(default_factory=list)
    meta: Any = field(default_factory=lambda: SimpleNamespace(events=SimpleNamespace(register=lambda *_, **__: None)))

    def put_object(self, **parameters: Any) -> dict[str, str]:
        self.puts.append(parameters)
        if len(self.puts) <= self.conflicts:
            raise refused("ConditionalRequestConflict", 409)
        if self.error is not None:
            raise self.error
        if self.stored is not None:
            raise refused("PreconditionFailed", 412)
        self.stored = parameters["Body"].read()
        return {"ETag": '"tag"', "VersionId": "3"}

    def head_object(self, **_: Any) -> dict[str, Any]:
        assert self.stored is not None
        head = {"ContentLength": len(self.stored), "ETag": '"tag"', "VersionId": "3"}
        if self.returned_checksum:
            crc = Crc64Nvme()
            head |= {"ChecksumCRC64NVME": crc.encode(crc.update(self.stored)), "ChecksumType": "FULL_OBJECT"}
        return head

    def get_object(self, **_: Any) -> dict[str, Any]:
        assert self.stored is not None
        body = io.BytesIO(self.stored)
        return {"Body": SimpleNamespace(iter_chunks=lambda size: iter(lambda: body.read(size), b""))}


def target(fake: FakeS3, **more: Any) -> Target:
    return Target(cast("S3Client", fake), "archive", "users.csv", "text/csv", **more)


def test_file_of_one_part_is_uploaded_once_with_a_checksum_and_a_condition() -> None:
    fake, start = FakeS3(), datetime.now(UTC)

    result = copy(
        StreamSource([b"id\n", b"1\n"]),
        target(fake, object_lock=ObjectLock(mode="COMPLIANCE", days=365)),
        content=Content("csv", "never", header=True),
    )

    assert fake.stored == b"id\n1\n"
    (put,) = fake.puts
    assert put["IfNoneMatch"] == "*"
    assert put["ChecksumCRC64NVME"] == result.checksum
    assert put["ObjectLockMode"] == "COMPLIANCE"
    assert start <= put["ObjectLockRetainUntilDate"] - timedelta(days=365) <= datetime.now(UTC)
    assert (result.sha256, result.version_id) == (hashlib.sha256(fake.stored).hexdigest(), "3")
    assert (result.rows, result.columns, result.already_there) == (1, ("id",), False)


@pytest.mark.parametrize("returned_checksum", [True, False])
def test_same_object_is_a_success_even_if_s3_returns_no_checksum(returned_checksum: bool) -> None:
    fake = FakeS3(stored=b"same", returned_checksum=returned_checksum)
    assert copy(StreamSource([b"same"]), target(fake)).already_there
    with pytest.raises(ArchiveConflictError, match=r"users\.csv"):
        copy(StreamSource([b"else"]), target(fake))


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("AccessDenied", 403, ConfigurationError),
        ("InternalError", 500, AwsBusyError),
        ("BadDigest", 400, CopyBrokenError),
    ],
)
def test_permanent_errors_are_distinguished_from_temporary_errors(
    code: str, status: int, error: type[Exception]
) -> None:
    with pytest.raises(error, match=code):
        copy(StreamSource([b"x"]), target(FakeS3(error=refused(code, status))))


def test_put_that_conflicts_with_another_write_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "_MIN_CONFLICT_WAIT_SECONDS", 0.0)
    fake = FakeS3(conflicts=3)

    result = copy(StreamSource([b"some bytes"]), target(fake))

    assert (fake.stored, result.already_there, len(fake.puts)) == (b"some bytes", False, 4)


def test_wait_for_another_write_ends_with_the_invocation() -> None:
    fake = FakeS3(conflicts=100)

    with pytest.raises(OutOfTimeError):
        copy(StreamSource([b"x"]), target(fake), time_left=lambda: 0.0 if fake.puts else 60.0)

    assert len(fake.puts) == 1
    assert fake.stored is None


def test_invalid_file_is_not_uploaded() -> None:
    fake = FakeS3()
    with pytest.raises(CorruptFileError):
        copy(StreamSource([b"\x1f\x8b rubbish"]), target(fake), content=Content("csv", "required"))
    assert not fake.puts


def test_file_is_not_uploaded_without_time_left() -> None:
    fake = FakeS3()
    with pytest.raises(OutOfTimeError):
        copy(StreamSource([b"x"]), target(fake), time_left=lambda: 9.0)
    assert not fake.puts


def test_error_of_a_stream_is_raised_unchanged() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        copy(StreamSource(chunks()), target(FakeS3()))


def test_crc32_is_used_without_awscrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "best_checksum", Crc32)
    fake = FakeS3()
    result = copy(StreamSource([b"some bytes"]), target(fake))
    assert result.checksum_algorithm == "CRC32"
    assert fake.puts[0]["ChecksumCRC32"] == base64.b64encode(zlib.crc32(b"some bytes").to_bytes(4, "big")).decode()


@pytest.mark.parametrize("checksum", [Crc64Nvme(), Crc32()])
def test_parts_combine_to_the_checksum_of_the_whole(checksum: Crc64Nvme | Crc32) -> None:
    parts = [b"one", b"", b"two" * 1000]
    digest = FileDigest(checksum)
    for part in parts:
        digest.add(memoryview(part), checksum.update(part))
    whole = b"".join(parts)
    assert digest.checksum == checksum.encode(checksum.update(whole))
    assert digest.sha256 == hashlib.sha256(whole).hexdigest()


def test_repr_contains_no_secret() -> None:
    source = LocationSource(lambda: "https://example.com/?signature=secret")
    shown = repr([source, StreamSource([b"secret"]), target(FakeS3(stored=b"secret")), CopyOptions()])
    assert "secret" not in shown


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 10 * MIB, 59 * MIB, 200 * MIB, 1024 * MIB, 1 << 42])
@pytest.mark.parametrize("workers", [1, 4, 16])
def test_parts_cover_the_file_within_the_limits_of_s3_and_of_memory(size: int, workers: int) -> None:
    layout = Layout.of(size, CopyOptions(workers=workers))

    assert layout.count is not None
    lengths = [layout.length(index) for index in range(layout.count)]
    assert [layout.offset(index) for index in range(layout.count)] == [0, *accumulate(lengths[:-1])]
    assert sum(lengths) == size
    assert all(length >= 5 * MIB for length in lengths[:-1])
    assert layout.count <= 10_000
    assert layout.workers == 1 or layout.workers * max(lengths) <= workers * 5 * MIB


@pytest.mark.parametrize(("size", "parts"), [(5, 1), (10, 2), (59, 12), (125, 25), (126, 26), (253, 51), (1024, 205)])
def test_parts_have_the_minimum_size_of_s3(size: int, parts: int) -> None:
    layout = Layout.of(size * MIB, CopyOptions())

    assert layout.count == parts
    assert layout.workers == min(parts, 16)


def test_only_consecutive_failures_use_up_the_retry_budget() -> None:
    options, counts = CopyOptions(max_attempts=3, backoff_seconds=0), Counts()
    budget = RetryBudget("the source", options, CancelToken(options, None), counts)
    for _ in range(5):
        budget.spend("a reset")
        budget.spend("a reset")
        budget.progress(8 << 20)
    budget.spend("a reset")
    budget.spend("a reset")
    with pytest.raises(CopyBrokenError, match="the source failed 3 times in a row, last with: a timeout"):
        budget.spend("a timeout")
    assert counts.breaks == 13


def test_few_bytes_between_failures_do_not_restore_the_retry_budget() -> None:
    options = CopyOptions(max_attempts=4, backoff_seconds=0)
    budget = RetryBudget("the source", options, CancelToken(options, None), Counts())
    for _ in range(3):
        budget.progress(1000)
        budget.spend("a reset")
    budget.progress(1000)
    with pytest.raises(CopyBrokenError, match="the source failed 4 times in a row"):
        budget.spend("a reset")


def test_wait_ends_with_the_copy() -> None:
    token = CancelToken(CopyOptions(), None)
    token.cancel(CopyBrokenError("elsewhere"))
    with pytest.raises(CancelledError):
        token.sleep(60)


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0), ("12", 12), ("²", 0), ("٣", 0), ("-1", 0), ("1.5", 0), ("soon", 0), (None, 0)]
)
def test_only_ascii_digits_of_retry_after_are_seconds(value: str | None, seconds: float) -> None:
    assert retry_after(value) == seconds
