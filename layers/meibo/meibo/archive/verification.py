"""Verify the newest runs and a rotating sample of the old ones in one invocation. The work of ``verify_archive``."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

import meibo
from meibo import aws
from meibo.archive.catalog import run_ids
from meibo.archive.manifest import timestamp
from meibo.archive.reading import ArchiveReader, S3Reader
from meibo.archive.store import ArchiveStore, S3ArchiveStore
from meibo.archive.verify import Finding, Task, Verifier, plan_runs
from meibo.errors import MeiboError
from meibo.observability import MetricUnit, logger, metrics
from meibo.settings import VerifyArchiveSettings

RECORD_VERSION = 1
# What the end of an invocation is left for: the record, the metrics.
_RESERVE_SECONDS = 60.0
# So many damages are in a record and a log; the counts are of all.
_MOST_NAMED = 100


def record_key(now: datetime) -> str:
    """Key of the record of a verification."""
    return f"verifications/dt={now:%Y-%m-%d}/{now:%Y%m%dT%H%M%SZ}.json"


def sample(ids: list[str], *, newest: int, rotation_days: int, day: int) -> list[str]:
    """Return the newest runs (``ids`` are latest first) and those of the old whose turn it is.

    Every old run has its turn once in so many days, whenever runs are added or expire.
    """
    old = [one for one in ids[newest:] if zlib.crc32(one.encode()) % rotation_days == day % rotation_days]
    return ids[:newest] + old


@dataclass(frozen=True, kw_only=True)
class Verification:
    """One scheduled verification."""

    archive: ArchiveReader
    store: ArchiveStore
    newest: int
    rotation_days: int
    time_left: Callable[[], float]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self) -> dict[str, Any]:
        """Verify, write the record, count the metrics; return the counts."""
        now = self.now()
        ids = list(run_ids(self.archive))
        chosen = sample(ids, newest=self.newest, rotation_days=self.rotation_days, day=now.toordinal())
        plan = plan_runs(self.archive, chosen, now=now)
        with ThreadPoolExecutor(max(os.cpu_count() or 1, 2)) as pool:
            results = list(pool.map(self._verify, plan.tasks))
        damage = [*plan.findings, *(one for found, _ in results for one in found)]
        unchecked = [
            {"key": task.folder.key, "reason": reason}
            for task, (_, reason) in zip(plan.tasks, results, strict=True)
            if reason is not None
        ]
        counts = {
            "runs": plan.runs,
            "exports": len(plan.tasks),
            "damaged": len({one.key for one in damage}),
            "unchecked": len(unchecked),
        }
        record = {
            "record_version": RECORD_VERSION,
            "at": timestamp(now),
            "meibo_version": meibo.__version__,
            "quick": False,
            **counts,
            "damage": [vars(one) for one in damage[:_MOST_NAMED]],
            "could_not_check": unchecked[:_MOST_NAMED],
        }
        self.store.put_json(record_key(now), record)
        for one in damage[:_MOST_NAMED]:
            logger.error("damage in the archive", extra={"damage": one.damage, "key": one.key, "detail": one.detail})
        metrics.add_metric("VerifiedExports", MetricUnit.Count, len(plan.tasks) - len(unchecked))
        metrics.add_metric("DamagedObjects", MetricUnit.Count, counts["damaged"])
        metrics.add_metric("UncheckedExports", MetricUnit.Count, len(unchecked))
        logger.info("archive verified", extra=counts)
        return counts

    def _verify(self, task: Task) -> tuple[list[Finding], str | None]:
        if self.time_left() < _RESERVE_SECONDS:
            return [], "the invocation's time was used up; its turn comes again"
        try:
            return Verifier(self.archive, deadline=lambda: self.time_left() - _RESERVE_SECONDS / 2).verify(task), None
        except ClientError as error:
            return [], f"S3 answered {error.response['Error']['Code']}"
        except (MeiboError, BotoCoreError) as error:
            return [], type(error).__name__


def verification(settings: VerifyArchiveSettings, time_left: Callable[[], float]) -> Verification:
    """Return the verification that the settings describe, of the real bucket."""
    return Verification(
        archive=S3Reader(aws.s3(), settings.bucket),
        store=S3ArchiveStore(aws.s3(), settings.bucket),
        newest=settings.newest_runs,
        rotation_days=settings.rotation_days,
        time_left=time_left,
    )
