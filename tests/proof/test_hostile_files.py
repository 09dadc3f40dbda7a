"""Files that no honest provider serves: the run ends in its time, says why, and leaves nothing behind."""

from __future__ import annotations

import gzip
import itertools
import resource
import zlib
from collections.abc import Callable, Iterator

import pytest

from local.simulators import FIRST_CONNECTION
from local.simulators import faults as broken

from .world import World, world

pytestmark = pytest.mark.timeout(600)

# The copy keeps ten seconds of an invocation for ending in order; the rest is what a hostile file may take.
TIMEOUT_SECONDS = 12
# What a run may take of memory beyond what the process has; every one of these files is larger, or endless.
MOST_MEMORY = 256 << 20


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


def _file(text: bytes) -> broken.Action:
    return broken.stream(lambda: [gzip.compress(text)])


Serve = Callable[[World], broken.Action]
# What is served, and the error that the run's manifest must name.
REFUSED: dict[str, tuple[Serve, set[str]]] = {
    "zeros without end": (lambda _: broken.endless(), {"CorruptFileError", "WrongFormatError"}),
    "rows without end": (lambda _: broken.stream(_members), {"OutOfTimeError"}),
    "a bomb": (lambda _: broken.stream(_bomb), {"FileTooLargeError", "WrongFormatError"}),
    "a bomb of rows": (lambda _: broken.stream(_bomb_of_rows), {"FileTooLargeError"}),
    "a byte a second": (lambda w: broken.drip(1, stop=w.tenant.stopping), {"OutOfTimeError"}),
    "a header of a megabyte": (lambda _: broken.headers({"X-Large": "a" * 1_000_000}), {"CopyBrokenError"}),
    "the metadata address": (
        lambda _: broken.redirect("http://169.254.169.254/latest/meta-data/"),
        {"LocationRefusedError"},
    ),
    "another scheme": (lambda _: broken.redirect("http://localhost/"), {"LocationRefusedError"}),
    "a list instead of rows": (lambda _: _file(b"[1, 2]\n"), {"WrongFormatError"}),
}
# What is strange and still NDJSON is archived as it is: byte for byte is the promise.
STRANGE = {
    "invalid UTF-8": b'{"name":"\xff\xfe\x80"}\n',
    "NUL bytes": b'{"name":"\x00\x00"}\n',
    "nested 10,000 deep": b'{"name":' + b"[" * 10_000 + b"]" * 10_000 + b"}\n",
    "names like paths": b'{"../../runs/x":"/etc/passwd","_manifest.json":"..\\\\"}\n',
}


@pytest.fixture(scope="module")
def stack() -> Iterator[World]:
    with world(users=60, organizations=1, cybozu_users=1, MaxExpandedGiB="1") as running:
        yield running


@pytest.fixture
def everything(stack: World) -> World:
    stack.empty()
    stack.configure([{"dataset": "users", "connection_id": FIRST_CONNECTION}], [])
    stack.service.timeout_seconds = TIMEOUT_SECONDS
    stack.service.seconds_left.clear()
    return stack


@pytest.mark.parametrize("what", REFUSED)
def test_a_hostile_file_ends_the_export_in_time_and_in_bounded_memory(everything: World, what: str) -> None:
    # given
    serve, errors = REFUSED[what]
    everything.tenant.faults.add("GET /job_*", serve(everything), times=None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    # when
    run_id = everything.run()

    # then: it says why, nothing is there, no invocation reached its time-out
    (missing,) = everything.run_manifest(run_id)["missing"]
    assert missing["error"] in errors, missing
    assert missing["reason"]
    assert everything.aws.keys("archive/") == []
    assert everything.aws.unfinished_uploads() == 0
    assert min(everything.service.seconds_left) > 0
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_MEMORY


@pytest.mark.parametrize("what", STRANGE)
def test_a_strange_file_is_archived_as_it_is(everything: World, what: str) -> None:
    everything.tenant.faults.add("GET /job_*", _file(STRANGE[what]), times=None)

    run_id = everything.run()

    assert everything.run_manifest(run_id)["complete"] is True, everything.run_manifest(run_id)["missing"]
    (archived,) = everything.archived().values()
    assert gzip.decompress(archived.body) == STRANGE[what]
    assert archived.content["rows"] == 1
