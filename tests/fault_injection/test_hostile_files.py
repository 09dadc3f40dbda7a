"""Files that no honest provider serves: the run ends in its time, says why, and leaves nothing behind."""

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
from tests.fault_injection.system import WholeSystem, world

pytestmark = pytest.mark.timeout(600)

# The copy keeps ten seconds of an invocation for ending in order; the rest is what a hostile file may take.
TIMEOUT_SECONDS = 12
# What a run may take of memory beyond what the process has; every one of these files is larger, or endless.
MAX_MEMORY = 256 << 20
# S3's stand-in keeps in the same memory what is uploaded.
HUGE = {"a row of 100 MB", "a value of 100 MB"}
UPLOADED = 100_000_000


def _members() -> Iterator[bytes]:
    """An endless file that is in order all the way: gzip members of rows."""
    return itertools.repeat(gzip.compress(b"".join(b'{"user_id":"auth0|%08d"}\n' % n for n in range(2000))))


def _bomb() -> Iterator[bytes]:
    """A gibibyte of zeros in one of a thousandth, each row of it endless."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    for _ in range(1024):
        yield compressor.compress(bytes(1 << 20))
    yield compressor.flush()


def _bomb_of_rows() -> Iterator[bytes]:
    """A bomb whose rows are in order, so that nothing but its size gives it away."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    rows = b'{"user_id":"auth0|0"}\n' * 50_000
    for _ in range(1024):
        yield compressor.compress(rows)
    yield compressor.flush()


def _huge_row() -> Iterator[bytes]:
    """A row of 100 MB, stored and not compressed, so that its ratio does not give it away."""
    compressor = zlib.compressobj(0, zlib.DEFLATED, 31)
    yield compressor.compress(b'{"user_id":"')
    for _ in range(100):
        yield compressor.compress(b"a" * 1_000_000)
    yield compressor.compress(b'"}\n')
    yield compressor.flush()


def _huge_record() -> Iterator[bytes]:
    """The same as CSV: a value of 100 MB, in the record that tells the columns."""
    yield b'"1","'
    yield from itertools.repeat(b"a" * 1_000_000, 100)
    yield b'"\r\n'


def _encoded_bomb() -> Iterator[bytes]:
    """A page whose one value is a gibibyte, as a client sees that undoes the transport's encoding."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield compressor.compress(b'{"users":[{"id":"')
    for _ in range(1024):
        yield compressor.compress(b"1" * (1 << 20))
    yield compressor.compress(b'"}]}')
    yield compressor.flush()


def _page(text: bytes | str) -> broken.Action:
    return broken.respond(200, text, JSON)


def _csv(text: bytes) -> broken.Action:
    return broken.respond(200, text, CSV)


def _file(text: bytes) -> broken.Action:
    return broken.stream(lambda: [gzip.compress(text)])


JSON, CSV = {"Content-Type": "application/json"}, {"Content-Type": "text/csv"}
DEEP = "[" * 10_000 + "]" * 10_000
METADATA = "http://169.254.169.254/latest/meta-data/"
Serve = Callable[[WholeSystem], broken.Action]
# What is served, and the error that the run's manifest must name.
REFUSED: dict[str, tuple[Serve, set[str]]] = {
    "zeros without end": (lambda _: broken.endless(), {"CorruptFileError", "WrongFormatError"}),
    "rows without end": (lambda _: broken.stream(_members), {"OutOfTimeError"}),
    "a bomb": (lambda _: broken.stream(_bomb), {"FileTooLargeError", "WrongFormatError"}),
    "a bomb of rows": (lambda _: broken.stream(_bomb_of_rows), {"FileTooLargeError"}),
    "a byte a second": (lambda w: broken.drip(1, stop=w.tenant.stopping), {"OutOfTimeError"}),
    "a header of a megabyte": (lambda _: broken.headers({"X-Large": "a" * 1_000_000}), {"CopyBrokenError"}),
    "the metadata address": (
        lambda _: broken.redirect(METADATA),
        {"LocationRefusedError"},
    ),
    "another scheme": (lambda _: broken.redirect("http://localhost/"), {"LocationRefusedError"}),
    "a row of 100 MB": (lambda _: broken.stream(_huge_row), {"FileTooLargeError"}),
    "a list instead of rows": (lambda _: _file(b"[1, 2]\n"), {"WrongFormatError"}),
}
BUSY = {"OutOfTimeError", "ProviderBusyError"}
# The same of a domain, for the file and for the pages.
REFUSED_OF_A_DOMAIN: dict[tuple[str, str], tuple[Serve, set[str]]] = {
    ("csv", "the metadata address"): (lambda _: broken.redirect(METADATA), {"RequestRefusedError"}),
    ("csv", "another scheme"): (lambda _: broken.redirect("http://localhost/"), {"RequestRefusedError"}),
    ("csv", "rows without end"): (lambda _: broken.endless(b'"1","a"\r\n' * 8192, "text/csv"), {"OutOfTimeError"}),
    ("csv", "a value of 100 MB"): (lambda _: broken.stream(_huge_record, CSV), {"FileTooLargeError"}),
    ("csv", "a byte a second"): (lambda w: broken.drip(1, stop=w.domain.stopping), BUSY),
    ("csv", "a header of a megabyte"): (lambda _: broken.headers({"X-Large": "a" * 1_000_000}), BUSY),
    ("ndjson", "the metadata address"): (lambda _: broken.redirect(METADATA), {"RequestRefusedError"}),
    ("ndjson", "a page without end"): (
        lambda _: broken.endless(b"1" * 65536, "application/json"),
        {"WrongFormatError"},
    ),
    ("ndjson", "a bomb"): (
        lambda _: broken.stream(_encoded_bomb, {**JSON, "Content-Encoding": "gzip"}),
        {"WrongFormatError"},
    ),
    ("ndjson", "a byte a second"): (lambda w: broken.drip(1, stop=w.domain.stopping), BUSY),
    ("ndjson", "a header of a megabyte"): (lambda _: broken.headers({"X-Large": "a" * 1_000_000}), BUSY),
    ("ndjson", "nested 10,000 deep"): (
        lambda _: _page('{"users":[{"id":"1","x":' + DEEP + "}]}"),
        {"WrongFormatError"},
    ),
    ("ndjson", "invalid UTF-8"): (lambda _: _page(b'{"users":[{"id":"1","name":"\xff"}]}'), {"WrongFormatError"}),
    ("ndjson", "NUL bytes"): (lambda _: _page(b'{"users":[{"id":"1\x00"}]}'), {"WrongFormatError"}),
}
STRANGE_OF_A_DOMAIN = {
    "invalid UTF-8": b'"1","\xff\xfe\x80"\r\n',
    "NUL bytes": b'"1","\x00\x00"\r\n',
    "names like paths": b'"../../runs/x","_manifest.json"\r\n',
}
# What is strange and still NDJSON is archived as it is: byte for byte is the promise.
STRANGE = {
    "invalid UTF-8": b'{"name":"\xff\xfe\x80"}\n',
    "NUL bytes": b'{"name":"\x00\x00"}\n',
    "nested 10,000 deep": b'{"name":' + b"[" * 10_000 + b"]" * 10_000 + b"}\n",
    "names like paths": b'{"../../runs/x":"/etc/passwd","_manifest.json":"..\\\\"}\n',
}


def _memory(*, forget_the_peak: bool = False) -> int:
    """Return the most bytes of memory that this process had, since the peak was last forgotten."""
    forget = Path("/proc/self/clear_refs")
    if not forget.exists():
        # Not Linux: the peak since the process began.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if forget_the_peak:
        forget.write_text("5")
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(peak) * 1024


@pytest.fixture(scope="module")
def stack() -> Iterator[WholeSystem]:
    with world(users=60, organizations=1, cybozu_users=1, max_expanded_bytes=GIB) as running:
        yield running


@pytest.fixture
def everything(stack: WholeSystem) -> WholeSystem:
    stack.empty()
    stack.configure([{"dataset": "users", "connection_id": FIRST_CONNECTION}], [])
    stack.service.timeout_seconds = TIMEOUT_SECONDS
    stack.service.seconds_left.clear()
    return stack


def _ends_in_time_and_in_bounded_memory(everything: WholeSystem, what: str, errors: set[str]) -> None:
    most = MAX_MEMORY + UPLOADED if what in HUGE else MAX_MEMORY
    gc.collect()
    before = _memory(forget_the_peak=True)

    # when
    run_id = everything.run()

    # then: it says why, nothing is there, no invocation reached its time-out
    (missing,) = everything.run_manifest(run_id)["missing"]
    assert missing["error"] in errors, missing
    assert missing["reason"]
    assert everything.aws.keys("archive/") == []
    assert everything.aws.unfinished_uploads() == 0
    assert min(everything.service.seconds_left) > 0
    assert _memory() - before < most


def _with_parts_for(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Parts as small as elsewhere in the proofs would take all of the time.
    if what in HUGE:
        monkeypatch.setattr(sys.modules[WholeSystem.__module__], "PART_BYTES", 8 << 20)


@pytest.mark.parametrize("what", REFUSED)
def test_a_hostile_file_ends_the_export_in_time_and_in_bounded_memory(
    everything: WholeSystem, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve, errors = REFUSED[what]
    everything.tenant.faults.add("GET /job_*", serve(everything), times=None)
    _with_parts_for(what, monkeypatch)

    _ends_in_time_and_in_bounded_memory(everything, what, errors)


@pytest.mark.parametrize(("form", "what"), REFUSED_OF_A_DOMAIN)
def test_a_hostile_domain_ends_the_export_in_time_and_in_bounded_memory(
    everything: WholeSystem, form: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve, errors = REFUSED_OF_A_DOMAIN[form, what]
    everything.configure([], [{"dataset": "users", "format": form}])
    everything.domain.faults.add("GET /v1/*", serve(everything), times=None)
    _with_parts_for(what, monkeypatch)

    _ends_in_time_and_in_bounded_memory(everything, what, errors)


@pytest.mark.parametrize("what", STRANGE_OF_A_DOMAIN)
def test_a_strange_file_of_a_domain_is_archived_as_it_is(everything: WholeSystem, what: str) -> None:
    everything.configure([], [{"dataset": "users", "format": "csv"}])
    everything.domain.faults.add("GET /v1/*", _csv(STRANGE_OF_A_DOMAIN[what]), times=None)

    run_id = everything.run()

    assert everything.run_manifest(run_id)["complete"] is True, everything.run_manifest(run_id)["missing"]
    (archived,) = everything.archived().values()
    assert archived.body == STRANGE_OF_A_DOMAIN[what]


@pytest.mark.parametrize("what", STRANGE)
def test_a_strange_file_is_archived_as_it_is(everything: WholeSystem, what: str) -> None:
    everything.tenant.faults.add("GET /job_*", _file(STRANGE[what]), times=None)

    run_id = everything.run()

    assert everything.run_manifest(run_id)["complete"] is True, everything.run_manifest(run_id)["missing"]
    (archived,) = everything.archived().values()
    assert gzip.decompress(archived.body) == STRANGE[what]
    assert archived.content["rows"] == 1
