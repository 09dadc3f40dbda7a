"""Read an archived object, to return the result that its copy would have returned."""

from __future__ import annotations

from collections.abc import Callable

from meibo.archive.content import Content, FileDigest, Inspection, best_checksum
from meibo.archive.copy import CopyResult
from meibo.archive.storage import ArchiveReader, missing_object
from meibo.errors import CorruptFileError, OutOfTimeError

_MIN_READ_SECONDS = 10.0


def read_existing_object(
    archive: ArchiveReader, key: str, content: Content, *, time_left: Callable[[], float] | None = None
) -> CopyResult:
    """Return the result that the copy of this object would have returned, from the object itself.

    Raises CorruptFileError if the object differs from its S3 checksum or gzip trailer, WrongFormatError if it does not
    have the format, and OutOfTimeError if the invocation's time (``time_left``, in seconds) is too short.
    """
    stat = archive.stat(key)
    if stat is None:
        raise missing_object(key)
    digest, inspection = FileDigest(best_checksum()), Inspection(content)
    for chunk in archive.chunks(key):
        if time_left is not None and time_left() < _MIN_READ_SECONDS:
            raise OutOfTimeError("expected to read the whole object, but the invocation ran out of time")
        digest.add(memoryview(chunk))
        inspection.feed(memoryview(chunk))
    if digest.bytes != stat.bytes:
        raise CorruptFileError(f"{key}: expected {stat.bytes} bytes, found {digest.bytes}")
    is_comparable = stat.checksum_algorithm == digest.algorithm.name and stat.checksum_type == "FULL_OBJECT"
    if is_comparable and stat.checksum != digest.checksum:
        raise CorruptFileError(f"{key}: expected the {digest.algorithm.name} that S3 stores, found another")
    return CopyResult.of(digest, inspection.finish(), version_id=stat.version_id, already_there=True)
