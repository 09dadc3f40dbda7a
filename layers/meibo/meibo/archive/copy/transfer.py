"""Copy one file: workers download and upload its parts; consumers hash and validate the parts in the file's order."""

from __future__ import annotations

import itertools
import math
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from meibo.archive.content import Content, FileDigest, Inspection, best_checksum
from meibo.archive.copy.cancellation import CancelledError
from meibo.archive.copy.model import CopyOptions, CopyResult, Counts
from meibo.archive.copy.source import copy_with_restarts
from meibo.archive.copy.target import ObjectWriter, PartUploader
from meibo.errors import CopyBrokenError, FileTooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from meibo.archive.copy.cancellation import CancelToken
    from meibo.archive.copy.model import Target
    from meibo.archive.copy.source import Reader, Source
    from meibo.archive.copy.target import UploadedPart, Written

MAX_PARTS = 10_000
"""Maximum number of parts of a multipart upload. https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""

INSPECT_BYTES = 256 * 1024
"""Bytes that are decoded between two checks for cancellation. Decompression may expand them by a factor of 1,000."""

CLOSE_SECONDS = 3.0
"""Maximum wait for the threads of a finished copy to end. A thread that runs code of the caller may take longer."""


def copy(
    source: Source,
    target: Target,
    *,
    content: Content | None = None,
    options: CopyOptions | None = None,
    time_left: Callable[[], float] | None = None,
) -> CopyResult:
    """Copy a file to S3 and validate its content, in one pass.

    ``time_left`` returns the seconds that the invocation has left. If the copy fails, the upload is aborted. If the
    abort also fails, the bucket's lifecycle rule removes the upload.
    Raises OutOfTimeError, CopyBrokenError, LocationRefusedError, ArchiveConflictError if the key has another file,
    BadFileError if the content is invalid, AwsBusyError or ConfigurationError. Errors of the source's callables are
    raised unchanged.
    """
    content, options, counts = content or Content(), options or CopyOptions(), Counts()
    return copy_with_restarts(
        source,
        lambda reader, token: Transfer(reader, target, content, options=options, token=token, counts=counts).run(),
        options=options,
        time_left=time_left,
        counts=counts,
    )


@dataclass(frozen=True)
class Layout:
    """The positions of the parts, and the number of workers. ``size`` and ``count`` are None if they are not known.

    The last part may be smaller than ``part_bytes``. If a file is too large for MAX_PARTS parts of the configured size,
    ``part_bytes`` is larger, and the number of workers is reduced to limit the memory. The first part always has the
    configured size, because it is requested before the size of the file is known.
    """

    size: int | None
    count: int | None
    first_bytes: int
    part_bytes: int
    workers: int

    @classmethod
    def of(cls, size: int | None, options: CopyOptions) -> Layout:
        """Return the layout of a file."""
        first = part = options.part_bytes
        if size is None:
            return cls(None, None, first, part, options.workers)
        rest = max(0, size - first)
        part = max(part, math.ceil(rest / (MAX_PARTS - 1)))
        count = 1 + math.ceil(rest / part)
        return cls(size, count, first, part, min(count, max(1, options.workers * first // part)))

    def offset(self, index: int) -> int:
        """Return the position of a part in the file."""
        return self.first_bytes + (index - 1) * self.part_bytes if index else 0

    def length(self, index: int) -> int:
        """Return the size of a part, or its maximum if the size of the file is not known."""
        length = self.part_bytes if index else self.first_bytes
        return length if self.size is None else min(length, self.size - self.offset(index))


@dataclass
class ReceivedPart:
    """A part in the buffer of its worker.

    ``pending`` is the number of consumers that have not read the part. When it is 0, the buffer can be reused.
    """

    data: memoryview
    crc: int
    pending: int

    def is_consumed(self) -> bool:
        """Return whether all consumers have read the part."""
        return self.pending == 0


class Transfer:
    """One attempt to copy the whole file.

    Each worker owns a buffer: it receives a part, uploads it, waits until the consumers have read it, and continues
    with the next part. The number of workers therefore limits the memory. Parts are assigned in the order of the file
    to prevent a deadlock: if all buffers are full, one of them contains the next part of the slowest consumer.
    """

    def __init__(
        self,
        reader: Reader,
        target: Target,
        content: Content,
        *,
        options: CopyOptions,
        token: CancelToken,
        counts: Counts,
    ) -> None:
        self._reader = reader
        self._options = options
        self._token = token
        self._counts = counts
        self._digest = FileDigest(best_checksum())
        self._inspection = Inspection(content)
        self._writer = ObjectWriter(target, self._digest.algorithm)
        self._resources = ExitStack()
        self._consumers = (self._hash, self._inspect)
        self._lookahead = b""  # the byte after the newest part, if the size is not known
        # State that the threads share, guarded by token.changed:
        self._threads = 0
        self._part_count: int | None = None  # None until it is known
        self._next_index = 0
        self._readers = 0  # number of workers that receive a part
        self._received: dict[int, ReceivedPart] = {}  # parts that at least one consumer has not read
        self._uploaded: dict[int, UploadedPart] = {}
        self._only_part: ReceivedPart | None = None  # the part of a file that is written without a multipart upload

    def run(self) -> CopyResult:
        """Copy the file. If an error is raised, the upload is aborted."""
        result = None
        try:
            result = self._run()
        except CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001  (raised below, after waiting for the threads)
            self._token.cancel(error)
        with self._token.changed:
            self._token.changed.wait_for(lambda: self._threads == 0, CLOSE_SECONDS)
        self._resources.close()
        if result is None:
            self._received.clear()
            self._writer.abort()
            self._token.raise_reason()
        return result

    def _run(self) -> CopyResult:
        for consume in self._consumers:
            self._start("consumer", partial(self._consume, consume))
        self._start("worker", self._open)
        self._token.wait_for(lambda: self._threads == 0)
        facts = self._inspection.finish()
        self._token.check()
        written = self._write()
        return CopyResult.of(self._digest, facts, counts=self._counts, **written._asdict())

    def _write(self) -> Written:
        if self._reader.size not in {None, self._digest.bytes}:
            raise CopyBrokenError(f"expected {self._reader.size} bytes, received {self._digest.bytes}")
        if self._only_part is None:
            return self._writer.complete_upload([part for _, part in sorted(self._uploaded.items())], self._digest)
        self._counts.puts += 1
        self._counts.parts += 1
        return self._writer.put(self._only_part.data, self._digest, self._token.sleep)

    # -- Threads

    def _start(self, name: str, target: Callable[[], None]) -> None:
        with self._token.changed:
            self._threads += 1
        # An executor is not used: at exit, the interpreter waits for the threads of an executor, and a thread may run
        # code of the caller that does not return.
        threading.Thread(target=self._thread, args=(target,), name=f"copy-{name}", daemon=True).start()

    def _thread(self, target: Callable[[], None]) -> None:
        try:
            target()
        except CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001  (raised by the thread that called copy)
            self._token.cancel(error)
        finally:
            with self._token.changed:
                self._threads -= 1
                self._token.changed.notify_all()

    # -- Workers

    def _open(self) -> None:
        """Send the first request, derive the layout from its response, start the other workers, and transfer parts."""
        self._resources.callback(self._reader.close)
        self._reader.open(self._options.part_bytes)
        layout = Layout.of(self._reader.size, self._options)
        self._part_count, self._counts.workers = layout.count, layout.workers
        index = self._assign()  # before the other workers, because this reader has the response with the first part
        for _ in range(1, layout.workers):
            self._start("worker", lambda: self._work(self._reader.for_worker(), layout, self._assign()))
        if layout.count not in {None, 1}:
            # A worker that has received its part waits for this request.
            self._start("create", self._writer.create_upload)
        self._work(self._reader, layout, index)

    def _work(self, reader: Reader, layout: Layout, index: int | None) -> None:
        """Transfer the assigned part, then further parts until all parts are assigned."""
        uploader = PartUploader(self._writer, self._options, self._token, self._counts)
        self._resources.callback(reader.close)
        self._resources.callback(uploader.connection.close)
        buffer: memoryview | None = None
        while index is not None:
            length = layout.length(index) + (layout.size is None)
            if buffer is None or len(buffer) < length:
                buffer = memoryview(bytearray(length))
            part = self._receive(reader, layout, index, buffer[:length])
            if part is not self._only_part:
                uploaded = uploader.upload(index + 1, part.data, self._digest.algorithm.encode(part.crc))
                with self._token.changed:
                    self._uploaded[index] = uploaded
            self._token.wait_for(part.is_consumed)
            index = self._assign()

    def _assign(self) -> int | None:
        """Return the index of the next part, or None if all parts are assigned.

        If the file is read without range requests, one worker reads at a time.
        """
        max_readers = self._options.workers if self._reader.is_ranged else 1
        with self._token.changed:
            self._token.wait_for(lambda: self._next_index == self._part_count or self._readers < max_readers)
            index = self._next_index
            if index == self._part_count:
                return None
            if index == MAX_PARTS:
                raise FileTooLargeError(
                    f"expected at most {MAX_PARTS} parts, found more; increase CopyOptions.part_bytes"
                )
            self._next_index += 1
            self._readers += 1
            return index

    def _receive(self, reader: Reader, layout: Layout, index: int, buffer: memoryview) -> ReceivedPart:
        """Receive a part and pass it to the consumers."""
        start = len(self._lookahead)
        buffer[:start] = self._lookahead
        filled = start + reader.read(buffer[start:], layout.offset(index) + start)
        is_last = index + 1 == self._part_count
        if layout.size is None:
            # One byte more than the size of the part was requested. If it was not received, this part is the last.
            is_last = filled < len(buffer)
            self._lookahead = b"" if is_last else bytes(buffer[-1:])
            filled -= len(self._lookahead)
        data = buffer[:filled]
        part = ReceivedPart(data, self._digest.algorithm.update(data), pending=len(self._consumers))
        with self._token.changed:
            self._readers -= 1
            if is_last:
                self._part_count = index + 1
                self._only_part = part if index == 0 else None
            self._received[index] = part
            self._token.changed.notify_all()
        return part

    # -- Consumers

    def _consume(self, consume: Callable[[ReceivedPart], None]) -> None:
        """Pass all parts to a consumer, in the order of the file."""
        for index in itertools.count():
            part = self._wait_for_part(index)
            if part is None:
                return
            consume(part)
            with self._token.changed:
                part.pending -= 1
                if part.pending == 0:
                    del self._received[index]
                    self._token.changed.notify_all()

    def _wait_for_part(self, index: int) -> ReceivedPart | None:
        self._token.wait_for(lambda: index in self._received or index == self._part_count)
        return self._received.get(index)

    def _hash(self, part: ReceivedPart) -> None:
        self._digest.add(part.data, part.crc)

    def _inspect(self, part: ReceivedPart) -> None:
        for start in range(0, len(part.data), INSPECT_BYTES):
            self._token.check()
            self._inspection.feed(part.data[start : start + INSPECT_BYTES])
