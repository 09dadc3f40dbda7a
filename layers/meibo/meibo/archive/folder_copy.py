"""Copy a file from a short-lived location, or from an iterator, into an archive in a folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

from meibo.archive.content import Content, FileDigest, Inspection, best_checksum
from meibo.archive.copy import CopyOptions, CopyResult, Counts
from meibo.archive.copy.cancellation import CancelledError, CancelToken
from meibo.archive.copy.source import Reader, Source, copy_with_restarts
from meibo.archive.existing_object import read_existing_object
from meibo.archive.storage import CHUNK_BYTES, FolderStorage
from meibo.errors import ArchiveConflictError, CopyBrokenError


@dataclass(frozen=True, kw_only=True)
class FolderCopier:
    """Copies files into a folder. The file is read with one request, into one buffer.

    ``time_left`` returns the seconds in which the copy must end. ``received`` is called with the key and the number of
    each received bytes.
    """

    storage: FolderStorage
    options: CopyOptions = field(default_factory=CopyOptions)
    time_left: Callable[[], float] | None = None
    received: Callable[[str, int], None] = lambda _key, _bytes: None

    def copy(self, source: Source, key: str, content: Content) -> CopyResult:
        """Copy and validate a whole file, or raise an error and write nothing.

        A broken connection is resumed at the first missing byte, with a new location if the location has expired. If
        the file has changed, the copy starts again. Raises the errors of a copy of ``meibo.errors``, and the errors of
        the source's callables unchanged.
        """
        counts = Counts(workers=1)
        return copy_with_restarts(
            source,
            partial(self._copy, key, content, counts),
            options=replace(self.options, ranged_attempts=0),
            time_left=self.time_left,
            counts=counts,
        )

    def read_back(self, key: str, content: Content) -> CopyResult:
        """Return the result of a copy that an earlier process completed, from the file itself."""
        return read_existing_object(self.storage, key, content)

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
        # Another process wrote the file. It counts if it is the same file.
        existing = self.read_back(key, content)
        if existing.sha256 != result.sha256:
            raise ArchiveConflictError(f"{key} already contains another file, which was not changed")
        return existing
