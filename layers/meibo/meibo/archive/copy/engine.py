"""One copy from its first byte to its proof."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING

from meibo.archive.copy.connection import trust
from meibo.archive.copy.content import Inspection
from meibo.archive.copy.digest import FileDigest, best_checksum
from meibo.archive.copy.lanes import Lanes, Piece
from meibo.archive.copy.model import Content, CopyOptions, CopyResult, Counts
from meibo.archive.copy.order import InOrder
from meibo.archive.copy.source import ChangedError, LocationOrigin, LocationSource, StreamOrigin, StreamSource
from meibo.archive.copy.stop import Stop, StoppedError
from meibo.archive.copy.target import Object, PartSender, Written
from meibo.errors import CopyBrokenError, SourceChangedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from meibo.archive.copy.content import Facts
    from meibo.archive.copy.lanes import Origin
    from meibo.archive.copy.model import Target

    Source = LocationSource | StreamSource

LOOK_BYTES = 256 * 1024
"""How much of a part is decoded between two looks at the clock: a bomb makes a quarter of a GiB of it."""

CLOSE_SECONDS = 3.0
"""How long a lane that sits in the caller's code is waited for, well inside the reserve."""


def copy(
    source: Source,
    target: Target,
    *,
    content: Content | None = None,
    options: CopyOptions | None = None,
    deadline: Callable[[], float] | None = None,
) -> CopyResult:
    """Copy a file into S3, prove it and look at what is in it, in one pass.

    ``deadline`` returns the seconds that are left of the invocation. Nothing is visible in S3 unless the
    whole file arrived and was checked. Raises the copy's errors of ``meibo.errors`` and whatever the
    source's callables raise.
    """
    content, options, counts = content or Content(), options or CopyOptions(), Counts()
    while True:
        stop = Stop(options, deadline)
        origin: Origin
        if isinstance(source, LocationSource):
            # A file that changes again and again is read in one go: fewer requests that can disagree.
            origin = LocationOrigin(source, options, stop, counts, ranges=counts.restarts < 2)
        else:
            origin = StreamOrigin(source)
        changed = None
        try:
            return Attempt(origin, target, content, options=options, stop=stop, counts=counts).run()
        except ChangedError as error:
            changed = str(error)
        gc.collect()  # the buffers of what was tried hang in the error's traceback
        counts.restarts += 1
        if counts.restarts > options.restarts:
            raise SourceChangedError(f"the copy started over {options.restarts} times, and again: {changed}")


class Attempt:
    """One try to copy the whole file, from nothing to an object or to nothing."""

    def __init__(
        self,
        origin: Origin,
        target: Target,
        content: Content,
        *,
        options: CopyOptions,
        stop: Stop,
        counts: Counts,
    ) -> None:
        checksum = best_checksum()
        self._checksum = checksum
        self._stop = stop
        self._counts = counts
        self._digest = FileDigest(checksum)
        self._inspection = Inspection(content)
        self._object = target_object = Object(target, checksum)
        self._followers = [InOrder("digest", self._add, stop), InOrder("decode", self._look, stop)]
        tls = options.target_tls or trust()
        self._lanes = Lanes(
            origin,
            lambda: PartSender(target_object, options, stop, counts, tls),
            self._followers,
            checksum=checksum,
            options=options,
            stop=stop,
            counts=counts,
        )

    def run(self) -> CopyResult:
        """Copy; what fails leaves no upload behind."""
        try:
            count = self._lanes.run()
            for follower in self._followers:
                follower.finish(count)
            self._stop.raise_reason()
            facts = self._inspection.finish()
            self._stop.check_time()
            self._stop.raise_reason()
            written = self._write()
        except BaseException as error:
            self._stop.set(error)
            self._lanes.close(CLOSE_SECONDS)
            self._object.abort()
            raise
        self._lanes.close(CLOSE_SECONDS)
        return self._result(facts, written)

    def _add(self, piece: Piece) -> None:
        self._digest.add(piece.view, piece.crc)

    def _look(self, piece: Piece) -> None:
        for at in range(0, len(piece.view), LOOK_BYTES):
            self._stop.check()
            self._inspection.feed(piece.view[at : at + LOOK_BYTES])

    def _write(self) -> Written:
        """Make the object visible."""
        if self._lanes.size not in {None, self._digest.bytes}:
            raise CopyBrokenError(f"{self._digest.bytes} bytes arrived of {self._lanes.size}")
        only = self._lanes.only
        if only is None:
            parts = self._lanes.parts
            return self._object.complete([parts[index] for index in range(len(parts))], self._digest)
        self._counts.puts += 1
        self._counts.parts += 1
        self._lanes.only = None  # its buffer goes with it
        return self._object.put(only.view, self._digest, self._wait)

    def _wait(self, seconds: float) -> None:
        """Sleep; raise what ended the copy meanwhile."""
        with suppress(StoppedError):
            self._stop.wait(seconds)
        self._stop.raise_reason()

    def _result(self, facts: Facts, written: Written) -> CopyResult:
        return CopyResult(
            bytes=self._digest.bytes,
            sha256=self._digest.sha256,
            checksum=self._digest.checksum,
            checksum_algorithm=self._checksum.name,
            checksum_type="FULL_OBJECT",
            etag=written.etag,
            version_id=written.version_id,
            gzip=facts.gzip,
            rows=facts.rows,
            columns=facts.columns,
            expanded_bytes=facts.expanded_bytes,
            already_there=written.already_there,
            counts=self._counts,
        )
