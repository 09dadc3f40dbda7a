"""The copy against faulty servers: the archived bytes are those of the source, or no object is visible."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import random
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meibo.archive.copy import Content, CopyOptions, CopyResult, LocationSource, StreamSource, Target, copy
from meibo.errors import (
    ArchiveConflictError,
    AwsBusyError,
    ConfigurationError,
    CopyBrokenError,
    CorruptFileError,
    LocationRefusedError,
    OutOfTimeError,
    SourceChangedError,
    WrongFormatError,
)
from meibo.settings import ObjectLock
from tests.integration.archive.faulty_servers import Fault, File, crc64

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client

    from tests.integration.archive.faulty_servers import Server, Store

PART = 50_000


def content_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class Bench:
    """Everything that a copy needs, with small parts and short waits."""

    def __init__(self, source: Server, sink: Server, client: S3Client, tls: ssl.SSLContext) -> None:
        self.source, self.sink, self.client = source, sink, client
        self.options = CopyOptions(
            workers=4,
            part_bytes=PART,
            stall_seconds=5,
            backoff_seconds=0.001,
            max_backoff_seconds=0.05,
            source_tls=tls,
            target_tls=tls,
        )
        self.target = Target(client, "archive", "runs/dt=1/名簿 1.csv")

    def serve(self, data: bytes, **how: object) -> File:
        self.sink.empty()
        return self.source.serve(File(data, **how))  # type: ignore[arg-type]

    @property
    def store(self) -> Store:
        return self.sink.store

    @property
    def archived(self) -> bytes | None:
        stored = self.store.objects.get(f"/archive/{self.target.key}")
        return None if stored is None else stored[0]

    def copy(self, content: Content | None = None, **options: object) -> CopyResult:
        return copy(
            LocationSource(self.source.location),
            self.target,
            content=content,
            options=dataclasses.replace(self.options, **options),  # type: ignore[arg-type]
        )

    def check(self, result: CopyResult, data: bytes) -> None:
        assert self.archived == data
        assert result.bytes == len(data)
        assert result.sha256 == hashlib.sha256(data).hexdigest()
        assert result.checksum == crc64(data)
        assert not self.store.uploads


@pytest.fixture(scope="session")
def bench(source: Server, sink: Server, client: S3Client, tls: ssl.SSLContext) -> Bench:
    return Bench(source, sink, client, tls)


sizes = st.one_of(
    st.integers(0, 3),
    st.builds(lambda parts, more: max(0, parts * PART + more), st.integers(0, 7), st.integers(-2, 2)),
    st.integers(0, 8 * PART),
)
source_faults = st.dictionaries(
    st.integers(0, 12),
    st.one_of(
        st.builds(Fault, st.sampled_from(["reset", "short"]), st.integers(0, PART)),
        st.builds(Fault, st.just("status"), status=st.sampled_from([500, 503, 429, 403, 401])),
    ),
    max_size=4,
)
sink_faults = st.dictionaries(
    st.integers(0, 10),
    st.one_of(
        st.builds(Fault, st.just("reset"), st.integers(0, PART)),
        st.builds(Fault, st.just("status"), status=st.sampled_from([500, 503])),
        st.just(Fault("lost")),
        st.just(Fault("status", status=400, code="BadDigest")),
    ),
    max_size=3,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=sizes,
    ranges=st.booleans(),
    etag=st.sampled_from(['"v1"', '"v1"', 'W/"v1"', None]),
    chunked=st.booleans(),
    uses=st.sampled_from([1, 2, 5, 1 << 30]),
    faults=source_faults,
    put_faults=sink_faults,
    change_at=st.none() | st.integers(1, 8),
    slow=st.booleans(),
)
def test_object_has_the_bytes_of_the_source_or_does_not_exist(
    bench: Bench,
    size: int,
    ranges: bool,
    etag: str | None,
    chunked: bool,
    uses: int,
    faults: dict[int, Fault],
    put_faults: dict[int, Fault],
    change_at: int | None,
    slow: bool,
) -> None:
    # given: a source and an S3 with several kinds of faults
    first, second = content_of(size), content_of(size + 1, seed=2)
    changes = {} if change_at is None else {change_at: (second, '"v2"' if etag else None)}
    bench.serve(first, ranges=ranges, etag=etag, chunked=chunked, uses=uses, faults=faults, changes=changes)
    bench.store.faults = put_faults
    if slow:
        bench.store.gate = threading.Event()
        threading.Timer(0.02, bench.store.gate.set).start()

    try:
        result = bench.copy()

    except CopyBrokenError:
        assert etag != '"v1"' or change_at is not None  # all other faults are temporary
        assert bench.archived is None
        assert not bench.store.uploads
    else:
        bench.check(result, second if bench.archived == second else first)


def test_requests_are_counted_and_none_is_repeated(bench: Bench) -> None:
    data = content_of(7 * PART + 1)
    file = bench.serve(data)

    result = bench.copy()

    bench.check(result, data)
    assert file.locations == 1
    assert len(file.requests) == 8
    assert sorted(bench.store.puts) == list(range(1, 9))
    assert bench.store.calls == ["CreateMultipartUpload", "CompleteMultipartUpload"]
    assert (result.counts.gets, result.counts.puts, result.counts.parts) == (8, 8, 8)
    assert (result.counts.refreshes, result.counts.breaks, result.counts.restarts) == (0, 0, 0)


@pytest.mark.parametrize("size", [0, 1, PART])
def test_file_of_one_part_is_uploaded_with_one_put_object(bench: Bench, size: int) -> None:
    data = content_of(size)
    bench.serve(data)

    result = bench.copy()

    bench.check(result, data)
    assert bench.store.calls == ["PutObject"]
    assert result.counts.parts == 1


def test_every_range_after_the_first_requires_the_same_etag(bench: Bench) -> None:
    file = bench.serve(content_of(3 * PART))
    bench.copy()
    assert [("if-match" in request, "range" in request) for request in file.requests[1:]] == [(True, True)] * 2


def test_request_of_a_location_has_only_the_required_headers(bench: Bench) -> None:
    file = bench.serve(content_of(1))
    bench.copy()
    assert set(file.requests[0]) == {"host", "user-agent", "accept-encoding", "range"}


def test_source_without_ranges_is_read_with_one_request(bench: Bench) -> None:
    data = content_of(6 * PART)
    file = bench.serve(data, ranges=False)
    bench.check(bench.copy(), data)
    assert len(file.requests) == 1


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("kind", ["reset", "short"])
@pytest.mark.parametrize("at", [0, 1, 12_345])
def test_broken_download_resumes_at_the_first_missing_byte(bench: Bench, ranges: bool, kind: str, at: int) -> None:
    data = content_of(PART - 5)
    file = bench.serve(data, ranges=ranges, faults={0: Fault(kind, at)})
    result = bench.copy()
    bench.check(result, data)
    assert len(file.requests) == 2
    # After a reset, the client loses the bytes that it has not read. After a normal close, it does not.
    if kind == "short":
        expected_range = f"bytes={at}-{len(data) - 1 if ranges else ''}"
        assert file.requests[1].get("range") == (expected_range if ranges or at else None)
    assert result.counts.breaks == 1


def test_expired_location_is_fetched_again_once_for_all_workers(bench: Bench) -> None:
    data = content_of(12 * PART)
    file = bench.serve(data, uses=4)
    result = bench.copy()
    bench.check(result, data)
    assert file.locations == 1 + result.counts.refreshes
    assert len(file.requests) - file.expired == 12
    assert result.counts.refreshes <= 4


def test_repeatedly_refused_locations_end_the_copy(bench: Bench) -> None:
    bench.serve(content_of(10), uses=0)
    with pytest.raises(CopyBrokenError, match=r"^a new location failed 8 times in a row, last with: status 403$"):
        bench.copy()


def test_error_of_the_provider_client_is_raised_unchanged(bench: Bench) -> None:
    bench.serve(content_of(10))

    def fetch() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        copy(LocationSource(fetch), bench.target, options=bench.options)


@pytest.mark.parametrize("ranges", [True, False])
def test_stalled_connections_are_retried(bench: Bench, ranges: bool) -> None:
    data = content_of(2 * PART)
    bench.serve(data, ranges=ranges, faults={0: Fault("stall", 1000)})
    bench.store.faults = {0: Fault("stall")}
    result = bench.copy(stall_seconds=0.2)
    bench.check(result, data)
    assert result.counts.breaks == 2


def test_redirect_is_not_followed(bench: Bench) -> None:
    bench.serve(content_of(10), faults={0: Fault("status", status=302)})
    with pytest.raises(LocationRefusedError, match="302"):
        bench.copy()


def test_untrusted_certificate_is_refused_at_once(bench: Bench) -> None:
    file = bench.serve(content_of(10))
    with pytest.raises(LocationRefusedError, match="certificate of localhost"):
        bench.copy(source_tls=ssl.create_default_context())
    assert not file.requests


def test_changed_source_starts_over(bench: Bench) -> None:
    before, after = content_of(5 * PART), content_of(4 * PART, seed=2)
    bench.serve(before, changes={2: (after, '"v2"')})
    result = bench.copy()
    bench.check(result, after)
    assert result.counts.restarts == 1
    assert bench.store.aborted <= 1


def test_source_of_another_size_starts_over_even_without_an_etag(bench: Bench) -> None:
    # given: the first response is reset before its first byte, and only the length of the second response differs
    before, after = content_of(PART), content_of(PART + 1, seed=2)
    bench.serve(before, etag=None, ranges=False, faults={0: Fault("reset", 0)}, changes={1: (after, None)})
    result = bench.copy()
    bench.check(result, after)
    assert result.counts.restarts == 1


def test_source_that_always_changes_ends_the_copy(bench: Bench) -> None:
    changes = {number: (content_of(5 * PART, seed=number), f'"{number}"') for number in range(60)}
    bench.serve(b"", changes=changes, ranges=True, faults={n: Fault("reset", 10) for n in range(60)})
    with pytest.raises(SourceChangedError, match="the copy was restarted 3 times, last because the location has "):
        bench.copy()
    assert bench.archived is None


def test_source_that_breaks_after_each_byte_ends_the_copy(bench: Bench) -> None:
    bench.serve(content_of(3 * PART), faults={number: Fault("short", 1) for number in range(1, 4 * PART)})
    with pytest.raises(CopyBrokenError, match="the source failed 8 times in a row, last with: a short body"):
        bench.copy()
    assert bench.archived is None


def test_failed_parts_are_sent_again_and_no_other_part_is(bench: Bench) -> None:
    data = content_of(5 * PART)
    bench.serve(data)
    bench.store.faults = {1: Fault("lost"), 3: Fault("status", status=503, retry_after="0")}
    result = bench.copy()
    bench.check(result, data)
    assert (result.counts.parts, result.counts.puts, result.counts.breaks) == (5, 7, 2)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("status", status=403, code="AccessDenied"), ConfigurationError),
        (Fault("status", status=404, code="NoSuchUpload"), CopyBrokenError),
        (Fault("status", status=400, code="BadDigest"), CopyBrokenError),
        (Fault("status", status=503), AwsBusyError),
        (Fault("status", status=400, code="RequestTimeout"), AwsBusyError),
    ],
)
def test_repeated_errors_of_s3_end_the_copy_and_abort_the_upload(
    bench: Bench, fault: Fault, error: type[Exception]
) -> None:
    bench.serve(content_of(5 * PART))
    bench.store.faults = dict.fromkeys(range(100), fault)
    with pytest.raises(error, match=fault.code):
        bench.copy()
    assert bench.archived is None
    assert not bench.store.uploads


def test_unreachable_s3_is_busy(bench: Bench) -> None:
    bench.serve(content_of(5 * PART))
    bench.store.faults = dict.fromkeys(range(100), Fault("reset"))
    with pytest.raises(AwsBusyError, match="the upload to S3 failed 8 times in a row, last with: "):
        bench.copy()
    assert bench.archived is None
    assert not bench.store.uploads


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [(307, "TemporaryRedirect", AwsBusyError), (301, "PermanentRedirect", ConfigurationError)],
)
def test_redirect_of_a_part_is_reported_and_not_followed(
    bench: Bench, status: int, code: str, error: type[Exception]
) -> None:
    bench.serve(content_of(5 * PART))
    bench.store.faults = dict.fromkeys(range(100), Fault("status", status=status, code=code))
    with pytest.raises(
        error, match=rf"\({status}\) from localhost to archive\.s3\.eu-south-1\.amazonaws\.com"
    ) as caught:
        bench.copy()
    assert "X-Amz" not in str(caught.value)
    assert len(bench.store.puts) <= bench.options.workers  # No part was sent twice.
    assert bench.archived is None
    assert not bench.store.uploads


@pytest.mark.parametrize("size", [10, 3 * PART])
def test_second_copy_of_the_same_file_succeeds_and_of_another_conflicts(bench: Bench, size: int) -> None:
    data = content_of(size)
    bench.serve(data)
    first = bench.copy()

    again = bench.copy()
    assert again.already_there
    assert again.sha256 == first.sha256
    assert not bench.store.uploads

    bench.source.serve(File(content_of(size, seed=9)))
    with pytest.raises(ArchiveConflictError):
        bench.copy()
    assert bench.archived == data
    assert not bench.store.uploads


@pytest.mark.parametrize("size", [1000, 5 * PART])
def test_truncated_file_is_not_archived(bench: Bench, size: int) -> None:
    zipped = gzip.compress(content_of(size))
    bench.serve(zipped[:-1])
    with pytest.raises(CorruptFileError, match="ends early"):
        bench.copy(Content("opaque", "required"))
    assert bench.archived is None
    assert not bench.store.uploads


def test_file_of_another_format_ends_the_copy_early(bench: Bench) -> None:
    file = bench.serve(b"<html>" + content_of(100 * PART))
    with pytest.raises(WrongFormatError, match="HTML"):
        bench.copy(Content("csv", "never"))
    assert len(file.requests) < 100
    assert bench.archived is None


def test_rows_are_counted_during_the_copy(bench: Bench) -> None:
    rows = b"".join(b'"auth0|%d","line\nbreak"\r\n' % number for number in range(20_000))
    data = gzip.compress(b"id,note\r\n" + rows)
    bench.serve(data)
    result = bench.copy(Content("csv", "required", header=True), part_bytes=7_000)
    bench.check(result, data)
    assert (result.rows, result.columns, result.gzip) == (20_000, ("id", "note"), True)
    assert result.expanded_bytes == len(rows) + 9


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 6 * PART])
def test_stream_is_archived(bench: Bench, size: int) -> None:
    data = content_of(size)
    bench.sink.empty()
    chunks = (data[at : at + 7_001] for at in range(0, size, 7_001))
    result = copy(StreamSource(chunks), bench.target, options=bench.options)
    bench.check(result, data)
    assert bench.store.calls[0] == ("CreateMultipartUpload" if size > PART else "PutObject")


def test_stream_that_raises_is_not_archived(bench: Bench) -> None:
    bench.sink.empty()

    def chunks() -> Iterator[bytes]:
        yield content_of(3 * PART)
        raise CopyBrokenError("the body is short")

    with pytest.raises(CopyBrokenError, match="the body is short"):
        copy(StreamSource(chunks()), bench.target, options=bench.options)
    assert bench.archived is None
    assert not bench.store.uploads


def test_copy_without_time_left_aborts_its_upload(bench: Bench) -> None:
    # given: S3 does not respond, and the invocation ends soon
    bench.serve(content_of(40 * PART))
    bench.store.gate = threading.Event()
    end = time.monotonic() + 1.4
    try:
        with pytest.raises(OutOfTimeError):
            copy(
                LocationSource(bench.source.location),
                bench.target,
                options=dataclasses.replace(bench.options, reserve_seconds=1),
                time_left=lambda: end - time.monotonic(),
            )
    finally:
        bench.store.gate.set()
    assert bench.archived is None
    assert bench.store.aborted == 1


def test_slow_target_limits_the_download(bench: Bench) -> None:
    # given: S3 does not respond yet
    data = content_of(40 * PART)
    file = bench.serve(data)
    gate = bench.store.gate = threading.Event()
    results: list[CopyResult] = []
    copying = threading.Thread(target=lambda: results.append(bench.copy()))
    copying.start()

    # when: every worker waits for S3
    for _ in range(200):
        if len(bench.store.puts) == bench.options.workers:
            break
        copying.join(0.02)

    # then: only the parts that fit into the buffers of the workers were requested
    assert len(file.requests) == bench.options.workers
    gate.set()
    copying.join(20)
    bench.check(results[0], data)


@pytest.mark.parametrize("parts", [1, 2])
def test_checksums_are_signed_and_object_lock_is_set(bench: Bench, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content_of(parts * PART)
    lock, now = ObjectLock(mode="GOVERNANCE", days=30), datetime.now(UTC)
    monkeypatch.setattr(bench, "target", dataclasses.replace(bench.target, object_lock=lock))
    bench.serve(data)
    bench.check(bench.copy(), data)
    assert len(bench.store.headers) == (parts if parts > 1 else 0)
    assert all("x-amz-checksum-crc64nvme" in headers for headers in bench.store.headers)
    properties = bench.store.objects[f"/archive/{bench.target.key}"][1]
    assert properties["x-amz-object-lock-mode"] == "GOVERNANCE"
    retained_until = datetime.fromisoformat(properties["x-amz-object-lock-retain-until-date"])
    assert timedelta(days=30) - timedelta(seconds=1) <= retained_until - now < timedelta(days=30, seconds=60)
    if parts == 1:
        assert properties["x-amz-sdk-checksum-algorithm"] == "CRC64NVME"
        assert properties["x-amz-checksum-crc64nvme"] == crc64(data)
    else:
        assert properties["x-amz-checksum-type"] == "FULL_OBJECT"


@pytest.mark.parametrize("etag", ['"v1"', None])
def test_errors_do_not_contain_the_location(bench: Bench, etag: str | None) -> None:
    bench.serve(content_of(10), etag=etag, faults=dict.fromkeys(range(100), Fault("reset", 0)))
    with pytest.raises(CopyBrokenError) as caught:
        bench.copy()
    error: BaseException | None = caught.value
    while error is not None:
        assert "token" not in str(error)
        error = error.__cause__ or error.__context__
