"""Serve hostile files: the run ends in time, records the reason, and archives nothing."""

from __future__ import annotations

import gc
import gzip
import itertools
import re
import resource
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meibo.settings import GIB
from meibo_simulators import FIRST_CONNECTION
from meibo_simulators import faults as broken
from tests.fault_injection.system import WholeSystem, start_system

pytestmark = pytest.mark.timeout(600)

# The copy reserves ten seconds of an invocation for its end. An endless file may use the remaining time.
TIMEOUT_SECONDS = 12
# Large files are read until their limit, which takes longer on a busy machine.
TIMEOUT_SECONDS_OF_LARGE_FILES = 60
# The additional memory that a run may use. Every hostile file is endless or larger than this.
MAX_MEMORY = 256 << 20
# moto stores the uploaded bytes in the same process.
HUGE = {"a row of 100 MB", "a value of 100 MB"}
LARGE = {*HUGE, "a decompression bomb", "a decompression bomb of rows"}
UPLOADED = 100_000_000


def _members() -> Iterator[bytes]:
    """An endless valid file: gzip members of rows."""
    return itertools.repeat(gzip.compress(b"".join(b'{"user_id":"auth0|%08d"}\n' % n for n in range(2000))))


def _bomb() -> Iterator[bytes]:
    """A GiB of zeros, compressed to about a thousandth, without a line break."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    for _ in range(1024):
        yield compressor.compress(bytes(1 << 20))
    yield compressor.flush()


def _bomb_of_rows() -> Iterator[bytes]:
    """A decompression bomb of valid rows, which can be detected only by its size."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    rows = b'{"user_id":"auth0|0"}\n' * 50_000
    for _ in range(1024):
        yield compressor.compress(rows)
    yield compressor.flush()


def _huge_row() -> Iterator[bytes]:
    """A row of 100 MB that is stored without compression, so that it cannot be detected by its compression ratio."""
    compressor = zlib.compressobj(0, zlib.DEFLATED, 31)
    yield compressor.compress(b'{"user_id":"')
    for _ in range(100):
        yield compressor.compress(b"a" * 1_000_000)
    yield compressor.compress(b'"}\n')
    yield compressor.flush()


def _huge_record() -> Iterator[bytes]:
    """A CSV file with a value of 100 MB in its first record, from which the columns are read."""
    yield b'"1","'
    yield from itertools.repeat(b"a" * 1_000_000, 100)
    yield b'"\r\n'


def _encoded_bomb() -> Iterator[bytes]:
    """A page with a value of a GiB, compressed as the transport's content encoding."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield compressor.compress(b'{"users":[{"id":"')
    for _ in range(1024):
        yield compressor.compress(b"1" * (1 << 20))
    yield compressor.compress(b'"}]}')
    yield compressor.flush()


def _page(text: bytes | str) -> broken.Action:
    return broken.respond(200, text, JSON)


def _file(text: bytes) -> broken.Action:
    return broken.stream(lambda: [gzip.compress(text)])


JSON, CSV = {"Content-Type": "application/json"}, {"Content-Type": "text/csv"}
DEEP = "[" * 10_000 + "]" * 10_000
METADATA = "http://169.254.169.254/latest/meta-data/"
LARGE_HEADER = broken.headers({"X-Large": "a" * 1_000_000})
BUSY = {"OutOfTimeError", "ProviderBusyError"}
Serve = Callable[[WholeSystem], broken.Action]
# The response in place of the file of a job, or of the CSV file or a page of a domain, and the errors that the run
# manifest may contain.
HOSTILE_RESPONSES: dict[tuple[str, str], tuple[Serve, set[str]]] = {
    ("job", "endless zeros"): (lambda _: broken.endless(), {"CorruptFileError", "WrongFormatError"}),
    ("job", "endless rows"): (lambda _: broken.stream(_members), {"OutOfTimeError"}),
    ("job", "a decompression bomb"): (lambda _: broken.stream(_bomb), {"FileTooLargeError", "WrongFormatError"}),
    ("job", "a decompression bomb of rows"): (lambda _: broken.stream(_bomb_of_rows), {"FileTooLargeError"}),
    ("job", "one byte per second"): (lambda system: broken.drip(1, stop=system.tenant.stopping), {"OutOfTimeError"}),
    ("job", "a header of 1 MB"): (lambda _: LARGE_HEADER, {"CopyBrokenError"}),
    ("job", "a redirect to the metadata address"): (lambda _: broken.redirect(METADATA), {"LocationRefusedError"}),
    ("job", "a redirect to another scheme"): (lambda _: broken.redirect("http://localhost/"), {"LocationRefusedError"}),
    ("job", "a row of 100 MB"): (lambda _: broken.stream(_huge_row), {"FileTooLargeError"}),
    ("job", "a list instead of rows"): (lambda _: _file(b"[1, 2]\n"), {"WrongFormatError"}),
    ("csv", "a redirect to the metadata address"): (lambda _: broken.redirect(METADATA), {"RequestRefusedError"}),
    ("csv", "a redirect to another scheme"): (lambda _: broken.redirect("http://localhost/"), {"RequestRefusedError"}),
    ("csv", "endless rows"): (lambda _: broken.endless(b'"1","a"\r\n' * 8192, "text/csv"), {"OutOfTimeError"}),
    ("csv", "a value of 100 MB"): (lambda _: broken.stream(_huge_record, CSV), {"FileTooLargeError"}),
    ("csv", "one byte per second"): (lambda system: broken.drip(1, stop=system.domain.stopping), BUSY),
    ("csv", "a header of 1 MB"): (lambda _: LARGE_HEADER, BUSY),
    ("ndjson", "a redirect to the metadata address"): (lambda _: broken.redirect(METADATA), {"RequestRefusedError"}),
    ("ndjson", "an endless page"): (
        lambda _: broken.endless(b"1" * 65536, "application/json"),
        {"WrongFormatError"},
    ),
    ("ndjson", "a decompression bomb"): (
        lambda _: broken.stream(_encoded_bomb, {**JSON, "Content-Encoding": "gzip"}),
        {"WrongFormatError"},
    ),
    ("ndjson", "one byte per second"): (lambda system: broken.drip(1, stop=system.domain.stopping), BUSY),
    ("ndjson", "a header of 1 MB"): (lambda _: LARGE_HEADER, BUSY),
    ("ndjson", "nested 10,000 deep"): (
        lambda _: _page('{"users":[{"id":"1","x":' + DEEP + "}]}"),
        {"WrongFormatError"},
    ),
    ("ndjson", "invalid UTF-8"): (lambda _: _page(b'{"users":[{"id":"1","name":"\xff"}]}'), {"WrongFormatError"}),
    ("ndjson", "NUL bytes"): (lambda _: _page(b'{"users":[{"id":"1\x00"}]}'), {"WrongFormatError"}),
}
# Unusual but valid files are archived byte for byte.
UNUSUAL_FILES = {
    ("csv", "invalid UTF-8"): b'"1","\xff\xfe\x80"\r\n',
    ("csv", "NUL bytes"): b'"1","\x00\x00"\r\n',
    ("csv", "names that look like paths"): b'"../../runs/x","_manifest.json"\r\n',
    ("job", "invalid UTF-8"): b'{"name":"\xff\xfe\x80"}\n',
    ("job", "NUL bytes"): b'{"name":"\x00\x00"}\n',
    ("job", "nested 10,000 deep"): b'{"name":' + b"[" * 10_000 + b"]" * 10_000 + b"}\n",
    ("job", "names that look like paths"): b'{"../../runs/x":"/etc/passwd","_manifest.json":"..\\\\"}\n',
}


def _memory(*, reset_peak: bool = False) -> int:
    """Return the peak memory of this process in bytes, optionally resetting the peak first."""
    clear_refs = Path("/proc/self/clear_refs")
    if not clear_refs.exists():
        # Not Linux: the peak since the process started.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reset_peak:
        clear_refs.write_text("5")
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(peak) * 1024


@pytest.fixture(scope="module")
def stack() -> Iterator[WholeSystem]:
    with start_system(users=60, organizations=1, cybozu_users=1, max_expanded_bytes=GIB) as running:
        yield running


@pytest.fixture
def system(stack: WholeSystem) -> WholeSystem:
    stack.reset()
    stack.configure_exports([{"dataset": "users", "connection_id": FIRST_CONNECTION}], [])
    stack.service.timeout_seconds = TIMEOUT_SECONDS
    stack.service.seconds_left.clear()
    return stack


def _serve(system: WholeSystem, kind: str, action: broken.Action) -> None:
    """Configure an export of a job's file, or of a domain in a format, and serve the action instead of its data."""
    if kind == "job":
        system.tenant.faults.add("GET /job_*", action, times=None)
    else:
        system.configure_exports([], [{"dataset": "users", "format": kind}])
        system.domain.faults.add("GET /v1/*", action, times=None)


@pytest.mark.parametrize(("kind", "case"), HOSTILE_RESPONSES)
def test_hostile_response_fails_the_export_in_time_and_in_bounded_memory(
    system: WholeSystem, kind: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve, errors = HOSTILE_RESPONSES[kind, case]
    _serve(system, kind, serve(system))
    if case in LARGE:
        system.service.timeout_seconds = TIMEOUT_SECONDS_OF_LARGE_FILES
    max_memory = MAX_MEMORY
    if case in HUGE:
        max_memory += UPLOADED
        # With the small parts of the other tests, the upload would exceed the timeout.
        monkeypatch.setattr(sys.modules[WholeSystem.__module__], "PART_BYTES", 8 << 20)
    gc.collect()
    before = _memory(reset_peak=True)

    run_id = system.run()

    # then: the manifest has the reason, nothing is archived, and no invocation reached its timeout
    (missing,) = system.run_manifest(run_id)["missing"]
    assert missing["error"] in errors, missing
    assert missing["reason"]
    assert system.aws.keys("archive/") == []
    assert system.aws.unfinished_uploads() == 0
    assert min(system.service.seconds_left) > 0
    assert _memory() - before < max_memory


@pytest.mark.parametrize(("kind", "case"), UNUSUAL_FILES)
def test_unusual_file_is_archived_unchanged(system: WholeSystem, kind: str, case: str) -> None:
    content = UNUSUAL_FILES[kind, case]
    _serve(system, kind, _file(content) if kind == "job" else broken.respond(200, content, CSV))

    run_id = system.run()

    assert system.run_manifest(run_id)["complete"] is True, system.run_manifest(run_id)["missing"]
    (archived,) = system.archived().values()
    assert (gzip.decompress(archived.body) if kind == "job" else archived.body) == content
    if kind == "job":
        assert archived.content["rows"] == 1
