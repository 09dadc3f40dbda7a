"""Collect an export that is read call by call, part by part, over as many invocations as the provider's limits ask for.

A provider that makes us wait is not a failure: what is there is written as a part, and the workflow comes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from meibo.archive.store import ArchiveStore
from meibo.auth0.members import ROLES_SCOPE
from meibo.errors import ProviderBusyError
from meibo.exports.events import OneExport, Progress
from meibo.exports.parts import Draft, Part, Parts, Totals, put_together
from meibo.exports.plan import PlannedExport
from meibo.exports.walks import Tenant, walk
from meibo.observability import logger
from meibo.pacing import Deadline

# A part is held in memory until it is written.
PART_BYTES: Final = 16 * 1024 * 1024
# What is left of an invocation for writing the part that is being collected.
RESERVE_SECONDS: Final = 30.0
# Less than this is not enough to put the parts together; the next invocation has all its time for it.
FINISH_SECONDS: Final = 120.0
# In an invocation that the provider gave nothing, waiting goes on in the workflow, where it costs nothing.
IDLE_WAIT_SECONDS: Final = 60
# The longest wait that a header is believed; one call then finds out.
LONGEST_WAIT_SECONDS: Final = 3600
# Auth0 keeps a cursor for 24 hours (https://auth0.com/docs/api/management/v2/introduction, checkpoint pagination),
# so after a day without any answer there is nothing to go on from.
LONGEST_STANDSTILL: Final = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Some parts are there; the workflow waits for so many seconds and comes back with the progress."""

    progress: Progress
    wait_seconds: int


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Everything is there, in parts."""

    store: ArchiveStore
    parts: tuple[Part, ...]
    dataset: str

    def chunks(self) -> Iterator[bytes]:
        """Yield the parts as one file."""
        return put_together(self.store, self.parts)

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
    tenant: Callable[[PlannedExport, Deadline], Tenant]
    time_left: Deadline
    part_bytes: int = PART_BYTES
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def collect(self, asked: OneExport) -> Collected | Unfinished:
        """Go on collecting, and return whether everything is there.

        Without progress it goes on after the parts that this attempt has, which an invocation that was killed may
        have left. What an earlier attempt collected to its end is taken over.
        """
        parts = Parts.of(self.store, asked.run_id, asked.attempt, asked.export.export_id)
        last = parts.after(asked.progress.part if asked.progress else 0)
        if last is None:
            for attempt in range(asked.attempt - 1, 0, -1):
                earlier = Parts.of(self.store, asked.run_id, attempt, asked.export.export_id)
                if (found := earlier.after(0)) is not None and found.last:
                    return self._collected(asked, earlier, found)
        if last is None or not last.last:
            last, busy = self._go_on(asked, parts, last)
            if busy is not None or last is None:
                return self._unfinished(asked, last, busy)
            if self.time_left() < FINISH_SECONDS:
                return self._unfinished(asked, last, None)
        return self._collected(asked, parts, last)

    def _go_on(self, asked: OneExport, parts: Parts, last: Part | None) -> tuple[Part | None, ProviderBusyError | None]:
        tenant = self.tenant(asked.export, lambda: self.time_left() - RESERVE_SECONDS)
        busy = None
        while busy is None and (last is None or not last.last):
            last, busy = self._walk(asked.export.dataset, tenant, parts, last)
        return last, busy

    def _walk(
        self, dataset: str, tenant: Tenant, parts: Parts, last: Part | None
    ) -> tuple[Part | None, ProviderBusyError | None]:
        """Collect up to the end, or up to a part of another invocation that ends elsewhere than ours."""
        draft = Draft(last)
        try:
            for step in walk(dataset, tenant, draft.position):
                draft.add(step)
                if draft.size >= self.part_bytes:
                    last = parts.add(draft, last=False)
                    if last.position != draft.position:
                        return last, None
                    draft = Draft(last)
        except ProviderBusyError as busy:
            return (parts.add(draft, last=False) if draft.moved else last), busy
        return parts.add(draft, last=True), None

    def _unfinished(self, asked: OneExport, last: Part | None, busy: ProviderBusyError | None) -> Unfinished:
        before, now = asked.progress, self.now()
        moved = (last.number if last else 0) > (before.part if before else 0)
        moved_at = now if moved or before is None else before.moved_at
        if busy is not None and now - moved_at >= LONGEST_STANDSTILL:
            raise ProviderBusyError(
                f"{busy}; nothing came for {LONGEST_STANDSTILL.total_seconds() / 3600:.0f} hours, so this is given up"
            ) from None
        wait = min(math.ceil(busy.retry_after or 0), LONGEST_WAIT_SECONDS) if busy else 0
        totals = last.totals if last else Totals()
        progress = Progress(part=last.number if last else 0, **asdict(totals), moved_at=moved_at)
        wait = wait if moved else max(wait, IDLE_WAIT_SECONDS)
        logger.info(
            "goes on later", extra={"export_id": asked.export.export_id, **progress.to_json(), "wait_seconds": wait}
        )
        return Unfinished(progress=progress, wait_seconds=wait)

    def _collected(self, asked: OneExport, parts: Parts, last: Part) -> Collected:
        return Collected(store=self.store, parts=tuple(parts.all(last.number)), dataset=asked.export.dataset)
