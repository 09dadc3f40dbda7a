"""Copy a file from a short-lived location, or from an iterator, into an archive in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from meibo.archive.copy import Content, CopyOptions, CopyResult, Counts, LocationSource, StreamSource
from meibo.archive.copy.cancellation import CancelledError, CancelToken
from meibo.archive.copy.source import ChangedError, LocationReader, StreamReader
from meibo.archive.existing_object import ContentReader
from meibo.archive.storage import CHUNK_BYTES, FolderStorage
from meibo.errors import ArchiveConflictError, CopyBrokenError, SourceChangedError


@dataclass(frozen=True, kw_only=True)
class FolderCopier:
    """Copies files into a folder: one request, whose bytes are read once into one buffer.

    ``time_left`` returns the seconds in which the copy must end. ``received`` is called with the key and the number of
    each received bytes.
    """

    storage: FolderStorage
    options: CopyOptions = field(default_factory=CopyOptions)
    time_left: Callable[[], float] | None = None
    received: Callable[[str, int], None] = lambda _key, _bytes: None

    def copy(self, source: LocationSource | StreamSource, key: str, content: Content) -> CopyResult:
        """Copy and validate a whole file, or raise an error and write nothing.

        A broken connection is resumed at the first missing byte, with a new location if the location has expired. If
        the file has changed, the copy starts again. Raises the errors of a copy of ``meibo.errors``, and the errors of
        the source's callables unchanged.
        """
        counts = Counts(workers=1)
        while True:
            token = CancelToken(self.options, self.time_left)
            reader: LocationReader | StreamReader
            if isinstance(source, StreamSource):
                reader = StreamReader(source, token)
            else:
                reader = LocationReader(source, self.options, token, counts, ranges=False)
            try:
                return self._copy(reader, key, content, token, counts)
            except ChangedError as error:
                change = str(error)
            except CancelledError:
                token.raise_reason()
            finally:
                reader.close()
            counts.restarts += 1
            if counts.restarts > self.options.max_restarts:
                raise SourceChangedError(
                    f"the copy was restarted {self.options.max_restarts} times, last because {change}"
                )

    def read_back(self, key: str, content: Content) -> CopyResult:
        """Return the result of a copy that an earlier process completed, from the file itself."""
        read = ContentReader(content)
        for chunk in self.storage.chunks(key):
            read.add(memoryview(chunk))
        return read.finish(already_there=True)

    def _copy(
        self, reader: LocationReader | StreamReader, key: str, content: Content, token: CancelToken, counts: Counts
    ) -> CopyResult:
        read, buffer = ContentReader(content), memoryview(bytearray(CHUNK_BYTES))
        reader.open(CHUNK_BYTES)
        with self.storage.temporary_file() as file:
            while count := reader.read(buffer, read.bytes):
                token.check()
                file.write(buffer[:count])
                read.add(buffer[:count])
                self.received(key, count)
                if count < CHUNK_BYTES:
                    break
            if reader.size not in {None, read.bytes}:
                raise CopyBrokenError(f"received {read.bytes} of {reader.size} bytes")
            result = read.finish(already_there=False, counts=counts)
            if self.storage.publish(file, key):
                return result
        # Another process wrote the file. It counts if it is the same one.
        existing = self.read_back(key, content)
        if existing.sha256 != result.sha256:
            raise ArchiveConflictError(f"{key} already contains another file")
        return existing
