"""Copy files from a location or an iterator into the archive, which is a bucket or a folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from meibo.archive.content import Content, FileDigest, Inspection, best_checksum
from meibo.archive.copy import CopyOptions, CopyResult, Counts, LocationSource, StreamSource, Target, copy
from meibo.archive.copy.cancellation import CancelledError, CancelToken
from meibo.archive.copy.source import Reader, Source, copy_with_restarts
from meibo.archive.storage import CHUNK_BYTES, ArchiveReader, FolderStorage, S3Reader
from meibo.clock import TimeLeft
from meibo.errors import ArchiveConflictError, CopyBrokenError, CorruptFileError, OutOfTimeError
from meibo.settings import NO_OBJECT_LOCK, ObjectLock

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MIN_READ_SECONDS = 10.0
_CONTENT_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}


class Copier(Protocol):
    """Copies files into the archive."""

    def copy(self, source: LocationSource | StreamSource, key: str, content: Content) -> CopyResult:
        """Copy and validate a complete file. If an error is raised, the archive does not contain the file.

        After a connection error, the copy resumes at the first missing byte, with a new location if the location has
        expired. If the file has changed, the copy starts again. Errors of the source are raised unchanged.
        """
        ...

    def read_back(self, key: str, content: Content) -> CopyResult:
        """Read a file that an earlier invocation copied, and return the result of the copy.

        Raises ArchiveConflictError if the object does not exist, CorruptFileError if it differs from its S3 checksum
        or gzip trailer, WrongFormatError if it does not have the format, and OutOfTimeError if too little time is left.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class S3Copier:
    """Copies files into the archive bucket."""

    client: S3Client
    bucket: str
    options: CopyOptions
    object_lock: ObjectLock = NO_OBJECT_LOCK
    time_left: TimeLeft

    def copy(self, source: LocationSource | StreamSource, key: str, content: Content) -> CopyResult:
        target = Target(
            client=self.client,
            bucket=self.bucket,
            key=key,
            content_type="application/gzip" if content.gzip == "required" else _CONTENT_TYPES[content.format],
            object_lock=self.object_lock,
        )
        return copy(source, target, content=content, options=self.options, time_left=self.time_left)

    def read_back(self, key: str, content: Content) -> CopyResult:
        return _read_back(S3Reader(self.client, self.bucket), key, content, self.time_left)


@dataclass(frozen=True, kw_only=True)
class FolderCopier:
    """Copies files into an archive in a folder. A file is read with one request at a time.

    ``received`` is called with the key and the number of bytes each time bytes are received.
    """

    storage: FolderStorage
    options: CopyOptions = field(default_factory=CopyOptions)
    time_left: TimeLeft | None = None
    received: Callable[[str, int], None] = lambda _key, _bytes: None

    def copy(self, source: Source, key: str, content: Content) -> CopyResult:
        counts = Counts(workers=1)
        return copy_with_restarts(
            source,
            partial(self._copy, key, content, counts),
            options=replace(self.options, ranged_attempts=0),
            time_left=self.time_left,
            counts=counts,
        )

    def read_back(self, key: str, content: Content) -> CopyResult:
        return _read_back(self.storage, key, content)

    def _copy(self, key: str, content: Content, counts: Counts, reader: Reader, token: CancelToken) -> CopyResult:
        digest, inspection = FileDigest(best_checksum()), Inspection(content)
        buffer = memoryview(bytearray(CHUNK_BYTES))
        with closing(reader), self.storage.temporary_file() as file:
            try:
                reader.open(CHUNK_BYTES)
                while count := reader.read(buffer, digest.bytes):
                    token.check()
                    file.write(buffer[:count])
                    digest.add(buffer[:count])
                    inspection.feed(buffer[:count])
                    self.received(key, count)
                    if count < CHUNK_BYTES:
                        break
            except CancelledError:
                token.raise_reason()
            if reader.size not in {None, digest.bytes}:
                raise CopyBrokenError(f"expected {reader.size} bytes, received {digest.bytes}")
            result = CopyResult.of(digest, inspection.finish(), counts=counts)
            if self.storage.publish(file, key):
                return result
        # Another process wrote the file. It is accepted if its content is the same.
        existing = self.read_back(key, content)
        if existing.sha256 != result.sha256:
            raise ArchiveConflictError(f"{key} already contains another file, which was not changed")
        return existing


def _read_back(archive: ArchiveReader, key: str, content: Content, time_left: TimeLeft | None = None) -> CopyResult:
    stat = archive.stat(key)
    if stat is None:
        raise ArchiveConflictError(f"{key} does not exist; repair the run to archive it again")
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
        raise CorruptFileError(f"{key}: expected the {digest.algorithm.name} that S3 stores, found a different value")
    return CopyResult.of(digest, inspection.finish(), version_id=stat.version_id, already_there=True)
