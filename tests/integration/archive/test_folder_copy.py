"""A file that is copied into a folder is complete or absent after any failure, as in a bucket."""

from __future__ import annotations

import gzip
import hashlib
import random
import ssl
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meibo.archive.copier import FolderCopier
from meibo.archive.copy import Content, CopyOptions, CopyResult, LocationSource, StreamSource
from meibo.archive.storage import CHUNK_BYTES, FolderStorage
from meibo.errors import (
    ArchiveConflictError,
    CopyBrokenError,
    CorruptFileError,
    JobGoneError,
    LocationRefusedError,
    OutOfTimeError,
    SourceChangedError,
    WrongFormatError,
)
from tests.integration.archive.faulty_servers import Fault, File, Server, crc64

KEY = "archive/a/users.csv"
NDJSON = Content(format="ndjson", gzip="required")


def random_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class Bench:
    """A source and a folder, with short waits."""

    def __init__(self, source: Server, tls: ssl.SSLContext, folder: Path) -> None:
        self.source = source
        self.folder = folder
        options = CopyOptions(stall_seconds=5, backoff_seconds=0.001, max_backoff_seconds=0.05, source_tls=tls)
        self.copier = FolderCopier(storage=FolderStorage(folder), options=options)

    def copy(self, content: Content | None = None) -> CopyResult:
        return self.copier.copy(LocationSource(self.source.location), KEY, content or Content())

    def files(self) -> dict[str, bytes]:
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def bench(source: Server, tls: ssl.SSLContext, tmp_path: Path) -> Bench:
    return Bench(source, tls, tmp_path / "archive")


faults_of_requests = st.dictionaries(
    st.integers(0, 8),
    st.one_of(
        st.builds(Fault, st.sampled_from(["reset", "short"]), st.integers(0, 2 * CHUNK_BYTES)),
        st.builds(Fault, st.just("status"), status=st.sampled_from([500, 503, 429, 403, 401])),
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.sampled_from([0, 1, 70_000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 2_500_000]),
    ranges=st.booleans(),
    etag=st.sampled_from(['"v1"', 'W/"v1"', None]),
    chunked=st.booleans(),
    uses=st.sampled_from([1, 2, 1 << 30]),
    faults=faults_of_requests,
    change_at=st.none() | st.integers(1, 5),
)
def test_file_has_the_bytes_of_the_source_or_does_not_exist(
    source: Server,
    tls: ssl.SSLContext,
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    ranges: bool,
    etag: str | None,
    chunked: bool,
    uses: int,
    faults: dict[int, Fault],
    change_at: int | None,
) -> None:
    bench = Bench(source, tls, tmp_path_factory.mktemp("copy"))
    first, second = random_bytes(size), random_bytes(size + 1, seed=2)
    changes = {} if change_at is None else {change_at: (second, '"v2"' if etag else None)}
    source.serve(File(first, ranges=ranges, etag=etag, chunked=chunked, uses=uses, faults=faults, changes=changes))

    try:
        result = bench.copy()
    except CopyBrokenError:
        assert bench.files() == {}
    else:
        body = second if result.bytes == len(second) else first
        assert bench.files() == {KEY: body}
        assert result.sha256 == hashlib.sha256(body).hexdigest()
        assert result.checksum == crc64(body)


def test_complete_file_is_requested_once(bench: Bench) -> None:
    data = random_bytes(2_500_000)
    file = bench.source.serve(File(data))
    received: list[tuple[str, int]] = []
    bench.copier = replace(bench.copier, received=lambda key, count: received.append((key, count)))

    result = bench.copy()

    assert (file.locations, len(file.requests)) == (1, 1)
    assert (result.counts.gets, result.counts.breaks, result.already_there) == (1, 0, False)
    assert {key for key, _ in received} == {KEY}
    assert sum(count for _, count in received) == len(data)


def test_broken_connection_is_resumed_at_the_first_missing_byte(bench: Bench) -> None:
    file = bench.source.serve(File(random_bytes(2_500_000), faults={0: Fault("reset", 1_500_000)}))

    result = bench.copy()

    assert bench.files() == {KEY: file.data}
    assert (result.counts.restarts, len(file.requests)) == (0, 2)
    assert file.requests[1]["if-match"] == '"v1"'
    assert int(file.requests[1]["range"].removeprefix("bytes=").removesuffix("-")) > 0


def test_expired_location_is_fetched_again(bench: Bench) -> None:
    file = bench.source.serve(File(random_bytes(2_500_000), uses=1, faults={0: Fault("reset", 1_500_000)}))

    result = bench.copy()

    assert bench.files() == {KEY: file.data}
    assert (file.locations, file.expired, result.counts.refreshes) == (2, 1, 1)


def test_changed_file_is_copied_from_its_beginning(bench: Bench) -> None:
    second = random_bytes(1_000_000, seed=2)
    faults = {0: Fault("reset", 1_500_000)}
    bench.source.serve(File(random_bytes(2_500_000), faults=faults, changes={1: (second, '"v2"')}))

    result = bench.copy()

    assert bench.files() == {KEY: second}
    assert result.counts.restarts == 1


def test_file_that_always_changes_is_an_error(bench: Bench) -> None:
    size = 2_500_000
    changes: dict[int, tuple[bytes, str | None]] = {
        number: (random_bytes(size, number), f'"v{number + 1}"') for number in range(1, 20)
    }
    faults = {number: Fault("reset", 1_500_000) for number in range(20)}
    bench.source.serve(File(random_bytes(size), faults=faults, changes=changes))

    with pytest.raises(SourceChangedError, match=r"^the copy was restarted 3 times, last because the location has"):
        bench.copy()

    assert bench.files() == {}


def test_redirect_is_not_followed(bench: Bench) -> None:
    bench.source.serve(File(b"data", faults={0: Fault("status", status=302)}))

    with pytest.raises(LocationRefusedError, match=r"redirects \(302\)"):
        bench.copy()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"<html>no</html>", WrongFormatError),
        (gzip.compress(b'{"a": 1}\n', mtime=0)[:-4], CorruptFileError),
        (gzip.compress(b"<html>no</html>\n", mtime=0), WrongFormatError),
    ],
    ids=["HTML", "truncated", "HTML in gzip"],
)
def test_invalid_file_is_not_published(bench: Bench, data: bytes, error: type[Exception]) -> None:
    bench.source.serve(File(data))

    with pytest.raises(error):
        bench.copy(NDJSON)

    assert bench.files() == {}


def test_rows_and_columns_are_counted(bench: Bench) -> None:
    bench.source.serve(File(gzip.compress(b'{"a": 1, "b": 2}\n{"a": 3}\n')))

    result = bench.copy(NDJSON)

    assert (result.rows, result.columns, result.gzip, result.expanded_bytes) == (2, ("a", "b"), True, 26)
    assert replace(bench.copier.read_back(KEY, NDJSON), counts=result.counts, already_there=False) == result


def test_stream_is_copied(bench: Bench) -> None:
    chunks = [random_bytes(300_000, number) for number in range(10)]

    result = bench.copier.copy(StreamSource(chunks), KEY, Content())

    assert bench.files() == {KEY: b"".join(chunks)}
    assert result.bytes == 3_000_000


def test_error_of_a_stream_is_raised_unchanged(bench: Bench) -> None:
    def chunks() -> Iterator[bytes]:
        yield random_bytes(2_000_000)
        raise JobGoneError("gone")

    with pytest.raises(JobGoneError, match="gone"):
        bench.copier.copy(StreamSource(chunks()), KEY, Content())

    assert bench.files() == {}


def test_copy_ends_when_no_time_is_left(bench: Bench) -> None:
    bench.copier = replace(bench.copier, time_left=lambda: 0.0)

    with pytest.raises(OutOfTimeError):
        bench.copier.copy(StreamSource([b"data"]), KEY, Content())

    assert bench.files() == {}


def test_existing_file_is_never_replaced(bench: Bench) -> None:
    bench.copier.copy(StreamSource([b"first"]), KEY, Content())

    again = bench.copier.copy(StreamSource([b"first"]), KEY, Content())
    with pytest.raises(ArchiveConflictError, match=f"^{KEY} already contains another file, which was not changed$"):
        bench.copier.copy(StreamSource([b"second"]), KEY, Content())

    assert again.already_there is True
    assert bench.files() == {KEY: b"first"}


def test_file_is_readable_by_its_owner_only(bench: Bench) -> None:
    bench.copier.copy(StreamSource([b"data"]), KEY, Content())

    assert stat.S_IMODE((bench.folder / KEY).stat().st_mode) == 0o600
