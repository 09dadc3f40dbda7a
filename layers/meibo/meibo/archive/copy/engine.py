"""One copy from its first byte to its proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meibo.archive.copy.connection import trust
from meibo.archive.copy.content import Inspection
from meibo.archive.copy.digest import FileDigest, best_checksum
from meibo.archive.copy.model import MAX_PARTS, Content, CopyOptions, CopyResult, Counts
from meibo.archive.copy.source import ChangedError, Download, Location, LocationSource, StreamSource
from meibo.archive.copy.stop import Stop
from meibo.archive.copy.target import Object, Sender
from meibo.errors import FileTooLargeError, SourceChangedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from meibo.archive.copy.model import Target
    from meibo.archive.copy.target import Part

    Source = LocationSource | StreamSource


class Reader(Protocol):
    """Fills a view with the file's bytes from an offset; fewer only at the file's end."""

    def fill(self, view: memoryview, offset: int) -> int: ...


class StreamReader:
    """Reads the caller's iterator in order."""

    def __init__(self, source: StreamSource) -> None:
        self._source = source

    def fill(self, view: memoryview, offset: int) -> int:  # noqa: ARG002  (an iterator has one place)
        filled = 0
        while filled < len(view) and (count := self._source.readinto(view[filled:])):
            filled += count
        return filled


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
    stop = Stop(options, deadline)
    while True:
        try:
            return _attempt(source, target, content, options, counts, stop)
        except ChangedError:
            counts.restarts += 1
            if counts.restarts > options.restarts:
                raise SourceChangedError(
                    f"the file changed {counts.restarts} times during the copy"
                ) from None


def _attempt(  # noqa: PLR0917  (rewritten with the lanes)
    source: Source, target: Target, content: Content, options: CopyOptions, counts: Counts, stop: Stop
) -> CopyResult:
    checksum = best_checksum()
    digest, inspection = FileDigest(checksum), Inspection(content)
    target_object = Object(target, checksum)
    reader: Reader
    if isinstance(source, LocationSource):
        download = Download(
            Location(source, options, counts), options, stop, counts, options.source_tls or trust()
        )
        version = download.begin(options.part_bytes)
        size, reader = version.size, download
    else:
        size, reader = None, StreamReader(source)
    buffer, spare = memoryview(bytearray(options.part_bytes)), memoryview(bytearray(options.part_bytes))
    parts: list[Part] = []
    try:
        count = reader.fill(buffer[: len(buffer) if size is None else min(len(buffer), size)], 0)
        offset, single, sender = count, False, None
        while True:
            following = 0
            if size is None or offset < size:
                want = len(spare) if size is None else min(len(spare), size - offset)
                following = reader.fill(spare[:want], offset)
            crc = checksum.update(buffer[:count])
            digest.add(buffer[:count], crc)
            inspection.feed(buffer[:count])
            single = not following and not parts
            if single:
                break
            if sender is None:
                target_object.begin()
                sender = Sender(target_object, options, stop, counts, options.target_tls or trust())
            parts.append(sender.send(len(parts) + 1, buffer[:count], checksum.encode(crc)))
            if not following:
                break
            check_parts(len(parts), options)
            buffer, spare, count = spare, buffer, following
            offset += following
        facts = inspection.finish()
        stop.check()
        if single:
            counts.puts += 1
            counts.parts += 1
            written = target_object.put(buffer[:count], digest)
        else:
            written = target_object.complete(parts, digest)
    except BaseException:
        target_object.abort()
        raise
    return CopyResult(
        bytes=digest.bytes,
        sha256=digest.sha256,
        checksum=digest.checksum,
        checksum_algorithm=checksum.name,
        checksum_type="FULL_OBJECT",
        etag=written.etag,
        version_id=written.version_id,
        gzip=facts.gzip,
        rows=facts.rows,
        columns=facts.columns,
        expanded_bytes=facts.expanded_bytes,
        already_there=written.already_there,
        counts=counts,
    )


def check_parts(count: int, options: CopyOptions) -> None:
    """Raise if an upload would need one part more than S3 takes."""
    if count == MAX_PARTS:
        raise FileTooLargeError(f"the file has more than {MAX_PARTS} parts of {options.part_bytes} bytes")
