"""Collect an export in parts, over several invocations.

A part has a record, which is a JSON document that contains the position from which the next invocation resumes. Its
rows are an object in the bucket that contains one gzip member. The record is written last, and a part without a record
is ignored. If two invocations collect the same part, the first record is used, and the other invocation continues after
that part.

If the provider is busy, the rows that were read are written as a part, and the workflow resumes the export later. The
export fails only if no part is finished for 24 hours.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from meibo.archive.keys import part_key, part_record_key, parts_folder
from meibo.archive.storage import ArchiveReader, ArchiveStorage, StoredDocument
from meibo.clock import TimeLeft
from meibo.documents import Key, PositiveInt
from meibo.errors import ArchiveConflictError, CorruptFileError, ProviderBusyError
from meibo.exports.events import CheckpointProgress, ExportEvent
from meibo.observability import logger
from meibo.providers.base import ItemCount, PageResult, Pages

# The compressed size at which a part is written. A part that is being collected is stored in memory.
PART_BYTES: Final = 16 * 1024 * 1024
# Reserved at the end of an invocation for writing the part that is being collected.
RESERVE_SECONDS: Final = 30.0
# Minimum time for combining the parts. If less time remains, the next invocation combines the parts.
MIN_COMBINE_SECONDS: Final = 120.0
# Minimum wait after an invocation that finished no part. Step Functions does not charge for waiting.
IDLE_WAIT_SECONDS: Final = 60
# Maximum wait before an export is resumed. A longer wait in a response header is reduced to this value.
MAX_RESUME_WAIT_SECONDS: Final = 3600

# Exports that are read page by page are smaller than the files of export jobs, so zlib's default level is sufficient.
_GZIP_LEVEL = 6
_GZIP_WINDOW_BITS = 31


def _gzip_compressor() -> zlib._Compress:
    # Unlike GzipFile, zlib does not write a timestamp, so the same rows always produce the same bytes.
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW_BITS)


def gzip_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks as one gzip member."""
    compressor = _gzip_compressor()
    for chunk in chunks:
        if compressed := compressor.compress(chunk):
            yield compressed
    yield compressor.flush()


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The counts of all parts up to and including a part. ``Pages`` explains the term item."""

    rows: int = 0
    items: ItemCount = 0
    skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class CheckpointPart(StoredDocument):
    """The record of a finished part.

    ``key`` is None if the part has no rows. ``position`` is the position after its last row. ``skipped`` contains the
    ids of items that were deleted before they were read.
    """

    number: PositiveInt
    key: str | None
    bytes: int
    sha256: str | None
    skipped: Annotated[tuple[str, ...], Key("gone")]
    totals: Totals
    position: Mapping[str, Any]
    last: bool


def part_chunks(part: CheckpointPart, archive: ArchiveReader) -> Iterator[bytes]:
    """Yield the bytes of a part.

    Raises ArchiveConflictError if the part is missing, and CorruptFileError if its SHA-256 differs from the record.
    """
    if part.key is None:
        return
    digest = hashlib.sha256()
    try:
        for chunk in archive.chunks(part.key):
            digest.update(chunk)
            yield chunk
    except ArchiveConflictError as error:
        raise ArchiveConflictError(f"{error}; repair the run") from error
    if digest.hexdigest() != part.sha256:
        raise CorruptFileError(
            f"{part.key}: expected the SHA-256 in the part's record, found a different SHA-256; the part was changed"
            " after it was written; repair the run"
        )


class PartBuilder:
    """A part that is being collected. Rows are compressed when they are added."""

    def __init__(self, before: CheckpointPart | None) -> None:
        self.number = before.number + 1 if before else 1
        self.position: Mapping[str, Any] | None = before.position if before else None
        self.moved = False
        self._before = before.totals if before else Totals()
        self._compressor = _gzip_compressor()
        self._body = bytearray()
        self._rows = 0
        self._items = 0
        self._skipped: list[str] = []

    @property
    def size(self) -> int:
        """The compressed size of the part in bytes, without the data in the compressor's buffer."""
        return len(self._body)

    def add(self, result: PageResult) -> None:
        """Add the result of one request."""
        self._body += self._compressor.compress(b"".join(result.lines))
        self._rows += len(result.lines)
        self._items += result.finished is not None
        if result.skipped:
            self._skipped.append(result.skipped)
        self.position = result.position
        self.moved = True

    def finish(self, folder: str, *, last: bool) -> tuple[CheckpointPart, bytes]:
        """Return the record of the finished part, and the bytes of the part."""
        body = bytes(self._body + self._compressor.flush()) if self._rows else b""
        digest = hashlib.sha256(body).hexdigest() if body else None
        part = CheckpointPart(
            number=self.number,
            # The key contains the digest, so that two invocations with different rows write two objects.
            key=part_key(folder, self.number, digest) if digest else None,
            bytes=len(body),
            sha256=digest,
            skipped=tuple(self._skipped),
            totals=Totals(
                rows=self._before.rows + self._rows,
                items=self._before.items + self._items,
                skipped=self._before.skipped + len(self._skipped),
            ),
            position=self.position or {},
            last=last,
        )
        return part, body


@dataclass(frozen=True)
class Checkpoint:
    """The finished parts of one export in one attempt of a run, below a folder of the bucket."""

    storage: ArchiveStorage = field(repr=False)
    folder: str

    def part(self, number: int) -> CheckpointPart | None:
        """Return the part with this number, or None if it is not finished. The first part has the number 1."""
        try:
            return CheckpointPart.read(self.storage, part_record_key(self.folder, number))
        except ArchiveConflictError as error:
            raise ArchiveConflictError(
                f"{part_record_key(self.folder, number)}: expected the record of a part, found other content or a"
                " record of another version of Meibo; repair the run to restart this export"
            ) from error

    def last_part(self, known: int) -> CheckpointPart | None:
        """Return the last finished part, or None. The first ``known`` parts must be finished."""
        part = self.part(known) if known else None
        while following := self.part((part.number if part else 0) + 1):
            part = following
        return part

    def add(self, draft: PartBuilder, *, last: bool) -> CheckpointPart:
        """Write a part and its record, and return the stored part, which another invocation may have written."""
        part, body = draft.finish(self.folder, last=last)
        if part.key:
            self.storage.put_bytes(part.key, body, content_type="application/gzip")
        return part.write(self.storage, part_record_key(self.folder, part.number))

    def parts(self, count: int) -> tuple[CheckpointPart, ...]:
        """Return the first ``count`` parts, raising ArchiveConflictError if a part is missing."""
        parts: list[CheckpointPart] = []
        for number in range(1, count + 1):
            part = self.part(number)
            if part is None:
                raise ArchiveConflictError(f"{self.folder}: part {number} of {count} is missing; repair the run")
            parts.append(part)
        return tuple(parts)

    def complete_parts(self) -> tuple[CheckpointPart, ...]:
        """Return all parts, or no parts if the export is incomplete or a part is missing or damaged."""
        try:
            last = self.last_part(0)
            if last is None or not last.last:
                return ()
            parts = self.parts(last.number)
            for part in parts:
                for _ in part_chunks(part, self.storage):
                    pass
        except (ArchiveConflictError, CorruptFileError) as error:
            logger.warning("parts are not reused", extra={"folder": self.folder, "reason": str(error)})
            return ()
        return parts


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """The result of an invocation that did not collect all parts or has too little time to combine them.

    The workflow waits ``wait_seconds`` and invokes the function again with ``progress``.
    """

    progress: CheckpointProgress
    wait_seconds: int


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The result of an invocation that has all parts of an export and enough time to combine them."""

    storage: ArchiveStorage
    parts: tuple[CheckpointPart, ...]
    pages: Pages

    def chunks(self) -> Iterator[bytes]:
        """Yield the content of the parts as one gzip file. Raises the errors of ``part_chunks``."""
        if not any(part.key for part in self.parts):
            yield from gzip_chunks(())
        for part in self.parts:
            yield from part_chunks(part, self.storage)

    def notes(self) -> Mapping[str, Any]:
        """Return the numbers of parts and items, the ids of skipped items, and the result of ``Pages.notes``."""
        last = self.parts[-1]
        skipped = [item_id for part in self.parts for item_id in part.skipped]
        return {
            "parts": len(self.parts),
            self.pages.item_noun: last.totals.items,
            f"skipped_{self.pages.item_noun}": {"count": len(skipped), "ids": skipped},
            **self.pages.notes(last.position),
        }


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Collects an export in parts."""

    storage: ArchiveStorage
    time_left: TimeLeft
    part_bytes: int = PART_BYTES
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def reading_time_left(self) -> float:
        """Return the seconds that remain for reading. The end of the invocation is reserved for writing a part."""
        return self.time_left() - RESERVE_SECONDS

    def collect(self, event: ExportEvent, pages: Pages) -> Collected | Unfinished:
        """Collect the remaining parts, and return either all parts or the progress.

        The collection continues after the last part of this attempt, even if the event contains no progress, because an
        invocation that was terminated may have written parts. If this attempt has no parts and an earlier attempt
        collected the complete export, the parts of the earlier attempt are reused unless a part is missing or damaged.
        """
        checkpoint = self._checkpoint(event, event.attempt)
        last = checkpoint.last_part(event.progress.part if event.progress else 0)
        if last is None:
            for attempt in range(event.attempt - 1, 0, -1):
                if parts := self._checkpoint(event, attempt).complete_parts():
                    return Collected(storage=self.storage, parts=parts, pages=pages)
        if last is None or not last.last:
            last, busy = self._read(pages, checkpoint, last)
            if last is None or busy is not None or self.time_left() < MIN_COMBINE_SECONDS:
                return self._unfinished(event, pages, last, busy)
        return Collected(storage=self.storage, parts=checkpoint.parts(last.number), pages=pages)

    def _checkpoint(self, event: ExportEvent, attempt: int) -> Checkpoint:
        return Checkpoint(self.storage, parts_folder(event.run_id, attempt, event.export.export_id))

    def _read(
        self, pages: Pages, checkpoint: Checkpoint, last: CheckpointPart | None
    ) -> tuple[CheckpointPart | None, ProviderBusyError | None]:
        """Read until all rows are read, no time remains, or the provider requires a wait that is too long."""
        while last is None or not last.last:
            draft = PartBuilder(last)
            try:
                for result in pages.results(draft.position):
                    draft.add(result)
                    if draft.size >= self.part_bytes:
                        last = checkpoint.add(draft, last=False)
                        if last.position != draft.position:
                            # Another invocation wrote this part with a different last row. Continue after that row.
                            break
                        draft = PartBuilder(last)
                else:
                    last = checkpoint.add(draft, last=True)
            except ProviderBusyError as busy:
                return (checkpoint.add(draft, last=False) if draft.moved else last), busy
        return last, None

    def _unfinished(
        self, event: ExportEvent, pages: Pages, last: CheckpointPart | None, busy: ProviderBusyError | None
    ) -> Unfinished:
        before, now = event.progress, self.now()
        moved = (last.number if last else 0) > (before.part if before else 0)
        moved_at = now if moved or before is None else before.moved_at
        if busy is not None and now - moved_at >= pages.position_lifetime:
            hours = pages.position_lifetime.total_seconds() / 3600
            raise ProviderBusyError(f"{busy}; no progress for {hours:.0f} hours; repair the run") from None
        wait = min(math.ceil(busy.retry_after or 0), MAX_RESUME_WAIT_SECONDS) if busy else 0
        wait = wait if moved else max(wait, IDLE_WAIT_SECONDS)
        totals = last.totals if last else Totals()
        progress = CheckpointProgress(part=last.number if last else 0, **asdict(totals), moved_at=moved_at)
        logger.info(
            "export paused; the workflow resumes it later",
            extra={"export_id": event.export.export_id, **progress.to_json(), "wait_seconds": wait},
        )
        return Unfinished(progress=progress, wait_seconds=wait)
