"""What has been collected of an export that outlasts an invocation: its finished parts, and where to go on.

A part is a gzip member in the bucket and a record beside it. The record is written last and makes the part count, so
that of two invocations that collect the same part one wins and the other takes over what it finds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from meibo.archive.keys import parts_folder
from meibo.archive.store import ArchiveStore
from meibo.errors import ArchiveConflictError, CorruptFileError
from meibo.exports.gzipping import gzip_member, gzipped
from meibo.exports.walks import Position, Step


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
    position: Position
    last: bool

    def to_json(self) -> dict[str, Any]:
        """Return the record."""
        return {**asdict(self), "position": self.position.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Part:
        """Read a record."""
        try:
            known = {**document, "totals": Totals(**document["totals"]), "gone": tuple(document["gone"])}
            return cls(**{**known, "position": Position.from_json(document["position"])})
        except (KeyError, TypeError):
            raise ArchiveConflictError("a part is not of this version of Meibo; repair the run to begin anew") from None


class Draft:
    """The part that is being collected, compressed as it grows."""

    def __init__(self, before: Part | None) -> None:
        self.number = before.number + 1 if before else 1
        self.position = before.position if before else Position()
        self.moved = False
        self._before = before.totals if before else Totals()
        self._compressor = gzip_member()
        self._body = bytearray()
        self._rows = 0
        self._organizations = 0
        self._gone: list[str] = []

    @property
    def size(self) -> int:
        """How large the part has become, without what the compressor still holds."""
        return len(self._body)

    def add(self, step: Step) -> None:
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
class Parts:
    """The parts of one export in one attempt of a run."""

    store: ArchiveStore = field(repr=False)
    folder: str

    @classmethod
    def of(cls, store: ArchiveStore, run_id: str, attempt: int, export_id: str) -> Parts:
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

    def add(self, draft: Draft, *, last: bool) -> Part:
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


def put_together(store: ArchiveStore, parts: Sequence[Part]) -> Iterator[bytes]:
    """Yield the parts as one file of gzip members, each checked against its record."""
    if not any(part.key for part in parts):
        yield from gzipped(())
    for part in parts:
        if part.key is None:
            continue
        digest = hashlib.sha256()
        for chunk in store.chunks(part.key):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != part.sha256:
            raise CorruptFileError(f"{part.key} does not have the SHA-256 of its record")
