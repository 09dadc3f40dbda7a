"""Collect an export that outlasts one invocation: its finished parts, and the cursor to resume from.

A part is a gzip member in the bucket and a record beside it. The record is written last and makes the part count, so
that of two invocations that collect the same part one wins and the other takes over what it finds.

A provider that makes us wait is not a failure: what is there is written as a part, and the workflow comes back.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from meibo.archive.keys import parts_folder
from meibo.archive.storage import ArchiveStore
from meibo.errors import ArchiveConflictError, CorruptFileError, ProviderBusyError
from meibo.exports.events import CheckpointProgress, ExportEvent
from meibo.exports.plan import PlannedExport
from meibo.http.ratelimit import Deadline
from meibo.observability import logger
from meibo.providers.auth0.organization_reader import OrganizationApi, ReadPosition, ReadStep, read_organizations
from meibo.providers.auth0.organizations import ROLES_SCOPE

# Directories are small next to what a copy moves, so the usual level serves.
_LEVEL = 6
_GZIP_WINDOW_BITS = 31


def gzip_compressor() -> zlib._Compress:
    """Return the compressor of one gzip member; its header holds no time, so the same rows give the same bytes."""
    return zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW_BITS)


def gzip_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks as one gzip member."""
    compressor = gzip_compressor()
    for chunk in chunks:
        if out := compressor.compress(chunk):
            yield out
    yield compressor.flush()


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts of all parts up to one."""

    rows: int = 0
    organizations: int = 0
    skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """One finished part.

    ``key`` is None where it holds no row. ``position`` is where the walk goes on, or ended if ``last``.
    """

    number: int
    key: str | None
    bytes: int
    sha256: str | None
    gone: tuple[str, ...]
    totals: Totals
    position: ReadPosition
    last: bool

    def to_json(self) -> dict[str, Any]:
        """Return the record."""
        return {**asdict(self), "position": self.position.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Part:
        """Read a record."""
        try:
            known = {**document, "totals": Totals(**document["totals"]), "gone": tuple(document["gone"])}
            return cls(**{**known, "position": ReadPosition.from_json(document["position"])})
        except (KeyError, TypeError):
            raise ArchiveConflictError("a part is not of this version of Meibo; repair the run to begin anew") from None


class PartBuilder:
    """The part that is being collected, compressed as it grows."""

    def __init__(self, before: Part | None) -> None:
        self.number = before.number + 1 if before else 1
        self.position = before.position if before else ReadPosition()
        self.moved = False
        self._before = before.totals if before else Totals()
        self._compressor = gzip_compressor()
        self._body = bytearray()
        self._rows = 0
        self._organizations = 0
        self._gone: list[str] = []

    @property
    def size(self) -> int:
        """How large the part has become, without what the compressor still holds."""
        return len(self._body)

    def add(self, step: ReadStep) -> None:
        """Take in what one call brought."""
        self._body += self._compressor.compress(b"".join(step.lines))
        self._rows += len(step.lines)
        self._organizations += step.finished is not None
        if step.gone:
            self._gone.append(step.gone)
        self.position = step.position
        self.moved = True

    def finish(self, folder: str, *, last: bool) -> tuple[Part, bytes]:
        """Return the finished part and its bytes."""
        body = bytes(self._body + self._compressor.flush()) if self._rows else b""
        digest = hashlib.sha256(body).hexdigest() if body else None
        part = Part(
            number=self.number,
            # The digest in the name: two invocations that collected something different write two objects.
            key=f"{folder}{self.number:05d}-{digest[:16]}.ndjson.gz" if digest else None,
            bytes=len(body),
            sha256=digest,
            gone=tuple(self._gone),
            totals=Totals(
                rows=self._before.rows + self._rows,
                organizations=self._before.organizations + self._organizations,
                skipped=self._before.skipped + len(self._gone),
            ),
            position=self.position,
            last=last,
        )
        return part, body


@dataclass(frozen=True)
class PartStore:
    """The parts of one export in one attempt of a run."""

    store: ArchiveStore = field(repr=False)
    folder: str

    @classmethod
    def of(cls, store: ArchiveStore, run_id: str, attempt: int, export_id: str) -> PartStore:
        """Return the parts of an attempt."""
        return cls(store, parts_folder(run_id, attempt, export_id))

    def get(self, number: int) -> Part | None:
        """Return a part by its number, from 1, or None where it is not finished."""
        record = self.store.get_json(self._record_key(number))
        return None if record is None else Part.from_json(record)

    def after(self, number: int) -> Part | None:
        """Return the last finished part, of which ``number`` are known to be there; None where there is none."""
        found = self.get(number) if number else None
        while following := self.get((found.number if found else 0) + 1):
            found = following
        return found

    def add(self, draft: PartBuilder, *, last: bool) -> Part:
        """Write a part and its record; return the one that counts, which another invocation may have written."""
        part, body = draft.finish(self.folder, last=last)
        if part.key:
            self.store.put_bytes(part.key, body, content_type="application/gzip")
        if self.store.put_json(self._record_key(part.number), part.to_json()):
            return part
        return self.get(part.number) or part

    def all(self, count: int) -> list[Part]:
        """Return the first ``count`` parts."""
        parts = [self.get(number) for number in range(1, count + 1)]
        if missing := [number for number, part in enumerate(parts, 1) if part is None]:
            raise ArchiveConflictError(
                f"part {missing[0]} of {count} below {self.folder} is not there any more; repair the run"
            )
        return [part for part in parts if part is not None]

    def _record_key(self, number: int) -> str:
        return f"{self.folder}{number:05d}.json"


def concatenate_parts(store: ArchiveStore, parts: Sequence[Part]) -> Iterator[bytes]:
    """Yield the parts as one file of gzip members, each checked against its record."""
    if not any(part.key for part in parts):
        yield from gzip_chunks(())
    for part in parts:
        if part.key is None:
            continue
        digest = hashlib.sha256()
        for chunk in store.chunks(part.key):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != part.sha256:
            raise CorruptFileError(f"{part.key} does not have the SHA-256 of its record")


# A part is held in memory until it is written.
PART_BYTES: Final = 16 * 1024 * 1024
# What is left of an invocation for writing the part that is being collected.
RESERVE_SECONDS: Final = 30.0
# Less than this is not enough to put the parts together; the next invocation has all its time for it.
FINISH_SECONDS: Final = 120.0
# In an invocation that the provider gave nothing, waiting goes on in the workflow, where it costs nothing.
IDLE_WAIT_SECONDS: Final = 60
# The longest wait that a header is believed; one call then finds out.
MAX_WAIT_SECONDS: Final = 3600
# Auth0 keeps a cursor for 24 hours (https://auth0.com/docs/api/management/v2/introduction, checkpoint pagination),
# so after a day without any answer there is nothing to go on from.
MAX_STANDSTILL: Final = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Some parts are there; the workflow waits for so many seconds and comes back with the progress."""

    progress: CheckpointProgress
    wait_seconds: int


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Everything is there, in parts."""

    store: ArchiveStore
    parts: tuple[Part, ...]
    dataset: str

    def chunks(self) -> Iterator[bytes]:
        """Yield the parts as one file."""
        return concatenate_parts(self.store, self.parts)

    def notes(self) -> Mapping[str, Any]:
        """Return what the manifest says of the reading: counts and organizations' ids."""
        last = self.parts[-1]
        gone = [organization_id for part in self.parts for organization_id in part.gone]
        notes: dict[str, Any] = {
            "parts": len(self.parts),
            "organizations": last.totals.organizations,
            # Deleted between the list and the reading of them.
            "skipped_organizations": {"count": len(gone), "ids": gone},
        }
        if self.dataset == "members":
            notes["roles"] = _roles(last)
        return notes


def _roles(last: Part) -> dict[str, Any]:
    if last.position.with_roles:
        return {"included": "yes"}
    return {
        "included": "in part" if last.position.had_roles else "no",
        "reason": f"the token lacks the scope {ROLES_SCOPE}",
    }


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Collects exports; ``tenant`` opens what is asked, with a deadline that leaves time to write a part."""

    store: ArchiveStore
    tenant: Callable[[PlannedExport, Deadline], OrganizationApi]
    time_left: Deadline
    part_bytes: int = PART_BYTES
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def collect(self, event: ExportEvent) -> Collected | Unfinished:
        """Go on collecting, and return whether everything is there.

        Without progress it goes on after the parts that this attempt has, which an invocation that was killed may
        have left. What an earlier attempt collected to its end is taken over.
        """
        parts = PartStore.of(self.store, event.run_id, event.attempt, event.export.export_id)
        last = parts.after(event.progress.part if event.progress else 0)
        if last is None:
            for attempt in range(event.attempt - 1, 0, -1):
                earlier = PartStore.of(self.store, event.run_id, attempt, event.export.export_id)
                if (found := earlier.after(0)) is not None and found.last:
                    return self._collected(event, earlier, found)
        if last is None or not last.last:
            last, busy = self._go_on(event, parts, last)
            if busy is not None or last is None:
                return self._unfinished(event, last, busy)
            if self.time_left() < FINISH_SECONDS:
                return self._unfinished(event, last, None)
        return self._collected(event, parts, last)

    def _go_on(
        self, event: ExportEvent, parts: PartStore, last: Part | None
    ) -> tuple[Part | None, ProviderBusyError | None]:
        tenant = self.tenant(event.export, lambda: self.time_left() - RESERVE_SECONDS)
        busy = None
        while busy is None and (last is None or not last.last):
            last, busy = self._walk(event.export.dataset, tenant, parts, last)
        return last, busy

    def _walk(
        self, dataset: str, tenant: OrganizationApi, parts: PartStore, last: Part | None
    ) -> tuple[Part | None, ProviderBusyError | None]:
        """Collect up to the end, or up to a part of another invocation that ends elsewhere than ours."""
        draft = PartBuilder(last)
        try:
            for step in read_organizations(dataset, tenant, draft.position):
                draft.add(step)
                if draft.size >= self.part_bytes:
                    last = parts.add(draft, last=False)
                    if last.position != draft.position:
                        return last, None
                    draft = PartBuilder(last)
        except ProviderBusyError as busy:
            return (parts.add(draft, last=False) if draft.moved else last), busy
        return parts.add(draft, last=True), None

    def _unfinished(self, event: ExportEvent, last: Part | None, busy: ProviderBusyError | None) -> Unfinished:
        before, now = event.progress, self.now()
        moved = (last.number if last else 0) > (before.part if before else 0)
        moved_at = now if moved or before is None else before.moved_at
        if busy is not None and now - moved_at >= MAX_STANDSTILL:
            raise ProviderBusyError(
                f"{busy}; nothing came for {MAX_STANDSTILL.total_seconds() / 3600:.0f} hours, so this is given up"
            ) from None
        wait = min(math.ceil(busy.retry_after or 0), MAX_WAIT_SECONDS) if busy else 0
        totals = last.totals if last else Totals()
        progress = CheckpointProgress(part=last.number if last else 0, **asdict(totals), moved_at=moved_at)
        wait = wait if moved else max(wait, IDLE_WAIT_SECONDS)
        logger.info(
            "goes on later", extra={"export_id": event.export.export_id, **progress.to_json(), "wait_seconds": wait}
        )
        return Unfinished(progress=progress, wait_seconds=wait)

    def _collected(self, event: ExportEvent, parts: PartStore, last: Part) -> Collected:
        return Collected(store=self.store, parts=tuple(parts.all(last.number)), dataset=event.export.dataset)
