"""Collect an export over several invocations: finished parts, and the position from which to resume.

A part is an object in the bucket that contains one gzip member. Its record is a JSON object that describes the part.
The record is written last; a part without a record is ignored. If two invocations collect the same part, the first
record is used, and the other invocation continues after that part.

Waiting for a busy provider is not a failure: the rows read so far are written as a part, and the workflow resumes
later.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from meibo.archive.keys import part_key, part_record_key, parts_folder
from meibo.archive.storage import ArchiveStorage
from meibo.documents import Document, Key, PositiveInt
from meibo.errors import ArchiveConflictError, CorruptFileError, ProviderBusyError
from meibo.exports.events import CheckpointProgress, ExportEvent
from meibo.http.ratelimit import TimeLeft
from meibo.observability import logger
from meibo.providers.base import PageResult, Pages

# Compressed size at which a part is written. Until then, the part is held in memory.
PART_BYTES: Final = 16 * 1024 * 1024
# Reserved at the end of an invocation for writing the part that is being collected.
RESERVE_SECONDS: Final = 30.0
# Minimum time for combining the parts. If less time remains, the next invocation combines them.
MIN_COMBINE_SECONDS: Final = 120.0
# Minimum wait after an invocation that read no rows. Step Functions does not charge for the duration of a wait.
IDLE_WAIT_SECONDS: Final = 60
# Maximum wait that is accepted from a response header. Then one request checks if the limit still applies.
MAX_RESUME_WAIT_SECONDS: Final = 3600
# Auth0 accepts a cursor for 24 hours (https://auth0.com/docs/api/management/v2/introduction, checkpoint pagination),
# so after 24 hours without a response the cursor has expired.
MAX_STANDSTILL: Final = timedelta(hours=24)

# Checkpoint exports are small compared with users exports, so zlib's default level is fast enough.
_GZIP_LEVEL = 6
_GZIP_WINDOW_BITS = 31


def gzip_compressor() -> zlib._Compress:
    """Return a compressor for one gzip member.

    Its header contains no timestamp, so the same rows produce the same bytes.
    """
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW_BITS)


def gzip_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks as one gzip member."""
    compressor = gzip_compressor()
    for chunk in chunks:
        if compressed := compressor.compress(chunk):
            yield compressed
    yield compressor.flush()


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Cumulative counts of all parts up to and including a part."""

    rows: int = 0
    organizations: int = 0
    skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class Part(Document):
    """One finished part.

    ``key`` is None if the part has no rows. ``position`` is the position after its last row. ``skipped`` contains the
    ids of organizations that were deleted before they were read. The name of this field in the record is ``gone``.
    """

    number: PositiveInt
    key: str | None
    bytes: int
    sha256: str | None
    skipped: Annotated[tuple[str, ...], Key("gone")]
    totals: Totals
    position: Mapping[str, Any]
    last: bool


class PartBuilder:
    """A part that is being collected. Rows are compressed when they are added."""

    def __init__(self, before: Part | None) -> None:
        self.number = before.number + 1 if before else 1
        self.position: Mapping[str, Any] | None = before.position if before else None
        self.moved = False
        self._before = before.totals if before else Totals()
        self._compressor = gzip_compressor()
        self._body = bytearray()
        self._rows = 0
        self._organizations = 0
        self._skipped: list[str] = []

    @property
    def size(self) -> int:
        """The compressed size of the part so far, in bytes. Excludes data in the compressor's buffer."""
        return len(self._body)

    def add(self, result: PageResult) -> None:
        """Add the result of one request."""
        self._body += self._compressor.compress(b"".join(result.lines))
        self._rows += len(result.lines)
        self._organizations += result.finished is not None
        if result.skipped:
            self._skipped.append(result.skipped)
        self.position = result.position
        self.moved = True

    def finish(self, folder: str, *, last: bool) -> tuple[Part, bytes]:
        """Return the finished part and its bytes."""
        body = bytes(self._body + self._compressor.flush()) if self._rows else b""
        digest = hashlib.sha256(body).hexdigest() if body else None
        part = Part(
            number=self.number,
            # The key contains the digest, so that two invocations with different rows write two objects.
            key=part_key(folder, self.number, digest) if digest else None,
            bytes=len(body),
            sha256=digest,
            skipped=tuple(self._skipped),
            totals=Totals(
                rows=self._before.rows + self._rows,
                organizations=self._before.organizations + self._organizations,
                skipped=self._before.skipped + len(self._skipped),
            ),
            position=self.position or {},
            last=last,
        )
        return part, body


@dataclass(frozen=True)
class PartStorage:
    """The parts of one export in one attempt of a run."""

    storage: ArchiveStorage = field(repr=False)
    folder: str

    @classmethod
    def of(cls, storage: ArchiveStorage, run_id: str, attempt: int, export_id: str) -> PartStorage:
        """Return the PartStorage of one export in one attempt."""
        return cls(storage, parts_folder(run_id, attempt, export_id))

    def get(self, number: int) -> Part | None:
        """Return a part by its number, counted from 1, or None if it is not finished."""
        record = self.storage.read_json(part_record_key(self.folder, number))
        if record is None:
            return None
        try:
            return Part.from_json(record, "part")
        except ArchiveConflictError as error:
            raise ArchiveConflictError(
                "part record: expected the fields of this version of Meibo, found others; repair the run to start this"
                " export again"
            ) from error

    def after(self, number: int) -> Part | None:
        """Return the last finished part, or None if no part is finished.

        The search starts at part ``number``, because the parts up to this number are known to exist.
        """
        part = self.get(number) if number else None
        while following := self.get((part.number if part else 0) + 1):
            part = following
        return part

    def add(self, draft: PartBuilder, *, last: bool) -> Part:
        """Write a part and its record; return the stored part, which another invocation may have written first."""
        part, body = draft.finish(self.folder, last=last)
        if part.key:
            self.storage.put_bytes(part.key, body, content_type="application/gzip")
        if self.storage.put_json(part_record_key(self.folder, part.number), part.to_json()):
            return part
        return self.get(part.number) or part

    def all(self, count: int) -> list[Part]:
        """Return the first ``count`` parts. Raises ArchiveConflictError if a part is missing."""
        parts = [self.get(number) for number in range(1, count + 1)]
        if missing := [number for number, part in enumerate(parts, 1) if part is None]:
            raise ArchiveConflictError(f"{self.folder}: part {missing[0]} of {count} is missing; repair the run")
        return [part for part in parts if part is not None]


def concatenate_parts(storage: ArchiveStorage, parts: Sequence[Part]) -> Iterator[bytes]:
    """Yield the content of the parts as one gzip file, and compare the SHA-256 of each part with its record."""
    if not any(part.key for part in parts):
        yield from gzip_chunks(())
    for part in parts:
        if part.key is None:
            continue
        digest = hashlib.sha256()
        for chunk in storage.chunks(part.key):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != part.sha256:
            raise CorruptFileError(
                f"{part.key}: expected the SHA-256 in the part's record, found a different SHA-256; another program"
                " wrote to the archive"
            )


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """The result of an invocation that did not collect all parts of an export.

    The workflow waits ``wait_seconds`` and invokes the function again with ``progress``.
    """

    progress: CheckpointProgress
    wait_seconds: int


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The result of an invocation after which all parts of an export are written."""

    storage: ArchiveStorage
    parts: tuple[Part, ...]
    pages: Pages

    def chunks(self) -> Iterator[bytes]:
        """Yield the content of the parts as one gzip file, and compare the SHA-256 of each part with its record."""
        return concatenate_parts(self.storage, self.parts)

    def notes(self) -> Mapping[str, Any]:
        """Return the counts and the ids of skipped organizations or roles for the manifest."""
        last = self.parts[-1]
        skipped = [unit_id for part in self.parts for unit_id in part.skipped]
        return {
            "parts": len(self.parts),
            self.pages.unit: last.totals.organizations,
            # Deleted after they were listed and before they were read.
            f"skipped_{self.pages.unit}": {"count": len(skipped), "ids": skipped},
            **self.pages.notes(last.position),
        }


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Collects an export in parts; ``time_left`` returns the remaining seconds of the invocation."""

    storage: ArchiveStorage
    time_left: TimeLeft
    part_bytes: int = PART_BYTES
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def reading_time_left(self) -> float:
        """Return the remaining seconds for reading: the end of the invocation is reserved for writing a part."""
        return self.time_left() - RESERVE_SECONDS

    def collect(self, event: ExportEvent, pages: Pages) -> Collected | Unfinished:
        """Continue the collection, and return either all parts or the progress.

        If the event contains no progress, the collection continues after the last part of this attempt, because an
        invocation that was terminated may have written parts. If this attempt has no parts and an earlier attempt
        collected the whole export, the parts of the earlier attempt are reused.
        """
        export_id = event.export.export_id
        parts = PartStorage.of(self.storage, event.run_id, event.attempt, export_id)
        last = parts.after(event.progress.part if event.progress else 0)
        if last is None:
            for attempt in range(event.attempt - 1, 0, -1):
                earlier = PartStorage.of(self.storage, event.run_id, attempt, export_id)
                if (complete := earlier.after(0)) is not None and complete.last:
                    return self._collected(pages, earlier, complete)
        if last is None or not last.last:
            last, busy = self._read(pages, parts, last)
            if last is None or busy is not None or self.time_left() < MIN_COMBINE_SECONDS:
                return self._unfinished(event, last, busy)
        return self._collected(pages, parts, last)

    def _read(
        self, pages: Pages, parts: PartStorage, last: Part | None
    ) -> tuple[Part | None, ProviderBusyError | None]:
        """Read until the dataset ends, or until the provider is busy for longer than this invocation can wait."""
        while last is None or not last.last:
            draft = PartBuilder(last)
            try:
                for result in pages.results(draft.position):
                    draft.add(result)
                    if draft.size >= self.part_bytes:
                        last = parts.add(draft, last=False)
                        if last.position != draft.position:
                            # Another invocation wrote this part with a different last row: continue after that row.
                            break
                        draft = PartBuilder(last)
                else:
                    last = parts.add(draft, last=True)
            except ProviderBusyError as busy:
                return (parts.add(draft, last=False) if draft.moved else last), busy
        return last, None

    def _unfinished(self, event: ExportEvent, last: Part | None, busy: ProviderBusyError | None) -> Unfinished:
        before, now = event.progress, self.now()
        moved = (last.number if last else 0) > (before.part if before else 0)
        moved_at = now if moved or before is None else before.moved_at
        if busy is not None and now - moved_at >= MAX_STANDSTILL:
            hours = MAX_STANDSTILL.total_seconds() / 3600
            raise ProviderBusyError(f"{busy}; no rows were received for {hours:.0f} hours; repair the run") from None
        wait = min(math.ceil(busy.retry_after or 0), MAX_RESUME_WAIT_SECONDS) if busy else 0
        wait = wait if moved else max(wait, IDLE_WAIT_SECONDS)
        totals = last.totals if last else Totals()
        progress = CheckpointProgress(part=last.number if last else 0, **asdict(totals), moved_at=moved_at)
        logger.info(
            "will resume later",
            extra={"export_id": event.export.export_id, **progress.to_json(), "wait_seconds": wait},
        )
        return Unfinished(progress=progress, wait_seconds=wait)

    def _collected(self, pages: Pages, parts: PartStorage, last: Part) -> Collected:
        return Collected(storage=self.storage, parts=tuple(parts.all(last.number)), pages=pages)
