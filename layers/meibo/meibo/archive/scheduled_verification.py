"""Verify the newest runs and a rotating sample of the old ones in one invocation. The work of ``verify_archive``.

Reading an object in a colder storage class costs a retrieval fee per GB, or is impossible before a restore request.
Such objects are verified by what S3 itself knows (HEAD), and read from end to end only within a longer rotation.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

import meibo
from meibo import aws
from meibo.archive.catalog import run_ids
from meibo.archive.keys import run_folder, run_moment, verification_key
from meibo.archive.manifest import timestamp
from meibo.archive.reader import ArchiveReader, S3Reader, Stat
from meibo.archive.storage import ArchiveStore, S3ArchiveStore
from meibo.archive.verification import Finding, VerificationTask, Verifier, plan_runs
from meibo.errors import MeiboError
from meibo.observability import MetricUnit, logger, metrics
from meibo.settings import VerifyArchiveSettings

RECORD_VERSION = 1
# Runs that every verification reads completely: the last one, and the one before it if that was repaired meanwhile.
NEWEST_RUNS = 2
# Time left for the end of an invocation: the record and the metrics. No export is started after this.
_RESERVE_SECONDS = 60.0
# No run is planned and no object is read further after this.
_HARD_RESERVE_SECONDS = _RESERVE_SECONDS / 2
# Limit of the entries in a record and a log; the counts are of all.
_MAX_NAMED = 100
# Objects in these classes and tiers cannot be read before a restore request:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html
_NEEDS_RESTORE: Final = frozenset({"GLACIER", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"})
_TIME_USED_UP: Final = "the invocation's time was used up; it is verified in its next turn"


def has_turn(run_id: str, *, rotation_days: int, day: int) -> bool:
    """Return whether a day (an ordinal) is the one day of each rotation on which the run is verified."""
    return zlib.crc32(run_id.encode()) % rotation_days == day % rotation_days


def has_cold_turn(run_id: str, *, rotation_days: int, cold_rotation_days: int, day: int) -> bool:
    """Return whether this is the turn in which a run's objects are read although their storage class is a colder one.

    It is one in every ``cold_rotation_days // rotation_days`` turns of the run, and a different one for each run.
    """
    turns = max(cold_rotation_days // rotation_days, 1)
    chosen = zlib.crc32(run_id.encode()) // rotation_days % turns
    return has_turn(run_id, rotation_days=rotation_days, day=day) and day // rotation_days % turns == chosen


def sample(ids: list[str], *, newest: int, rotation_days: int, day: int) -> list[str]:
    """Return the newest runs (``ids`` are latest first) and those of the old runs that have their turn, latest first.

    Every old run has its turn once in so many days, whenever runs are added or expire.
    """
    return ids[:newest] + [one for one in ids[newest:] if has_turn(one, rotation_days=rotation_days, day=day)]


@dataclass(frozen=True)
class _Result:
    """The result of one task. ``quick``: the object was not read. ``unchecked``: why it could not be verified."""

    findings: tuple[Finding, ...] = ()
    quick: bool = False
    unchecked: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScheduledVerification:
    """One scheduled verification.

    ``transition_days`` is the age at which exports move to a colder storage class, 0 if they never do.
    """

    archive: ArchiveReader
    store: ArchiveStore
    rotation_days: int
    time_left: Callable[[], float]
    newest: int = NEWEST_RUNS
    transition_days: int = 0
    cold_rotation_days: int = 365
    threads: int = max(os.cpu_count() or 1, 2)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self) -> dict[str, Any]:
        """Verify, newest runs first, write the record, count the metrics; return the counts."""
        now = self.now()
        ids = list(run_ids(self.archive))
        chosen = sample(ids, newest=self.newest, rotation_days=self.rotation_days, day=now.toordinal())
        damage: list[Finding] = []
        submitted: list[tuple[VerificationTask, Future[_Result]]] = []
        unchecked: list[dict[str, str]] = []
        with ThreadPoolExecutor(self.threads) as pool:
            # Each run is planned while the newer ones are verified, so that a short time is spent on the newest runs.
            for run_id in chosen:
                if self.time_left() < _HARD_RESERVE_SECONDS:
                    unchecked.append({"key": run_folder(run_id), "reason": _TIME_USED_UP})
                    continue
                plan = plan_runs(self.archive, [run_id], now=now)
                damage += plan.findings
                submitted += [(task, pool.submit(self._verify, task, now)) for task in plan.tasks]
        results = [(task, future.result()) for task, future in submitted]
        damage += [finding for _, result in results for finding in result.findings]
        unchecked = [
            *({"key": task.folder.key, "reason": result.unchecked} for task, result in results if result.unchecked),
            *unchecked,
        ]
        counts = {
            "runs": len(chosen),
            "exports": len(results),
            "quick": sum(result.quick for _, result in results),
            "damaged": len({one.key for one in damage}),
            "unchecked": len(unchecked),
        }
        record = {
            "record_version": RECORD_VERSION,
            "at": timestamp(now),
            "meibo_version": meibo.__version__,
            **counts,
            "damage": [vars(one) for one in damage[:_MAX_NAMED]],
            "could_not_check": unchecked[:_MAX_NAMED],
        }
        self.store.put_json(verification_key(now), record)
        for one in damage[:_MAX_NAMED]:
            logger.error("damage in the archive", extra={"damage": one.damage, "key": one.key, "detail": one.detail})
        metrics.add_metric("VerifiedExports", MetricUnit.Count, sum(result.unchecked is None for _, result in results))
        metrics.add_metric("DamagedObjects", MetricUnit.Count, counts["damaged"])
        metrics.add_metric("UncheckedExports", MetricUnit.Count, counts["unchecked"])
        logger.info("archive verified", extra=counts)
        return counts

    def _verify(self, task: VerificationTask, now: datetime) -> _Result:
        if self.time_left() < _RESERVE_SECONDS:
            return _Result(unchecked=_TIME_USED_UP)
        quick = False

        def reads(stat: Stat) -> bool:
            nonlocal quick
            quick = not self._reads_in_full(task.folder.run_id, stat, now)
            return not quick

        verifier = Verifier(self.archive, reads=reads, deadline=lambda: self.time_left() - _HARD_RESERVE_SECONDS)
        try:
            return _Result(findings=tuple(verifier.verify(task)), quick=quick)
        except ClientError as error:
            return _Result(unchecked=f"S3 answered {error.response['Error']['Code']}")
        except (MeiboError, BotoCoreError) as error:
            return _Result(unchecked=type(error).__name__)

    def _reads_in_full(self, run_id: str, stat: Stat, now: datetime) -> bool:
        if stat.storage_class in _NEEDS_RESTORE:
            return False
        age = now - run_moment(run_id)
        past_transition = self.transition_days > 0 and age >= timedelta(days=self.transition_days)
        # The class itself decides as well: after TransitionDays was raised or set to 0, objects stay where they are.
        if not past_transition and stat.storage_class is None:
            return True
        return has_cold_turn(
            run_id,
            rotation_days=self.rotation_days,
            cold_rotation_days=self.cold_rotation_days,
            day=now.toordinal(),
        )


def scheduled_verification(settings: VerifyArchiveSettings, time_left: Callable[[], float]) -> ScheduledVerification:
    """Return the verification that the settings describe, of the real bucket."""
    return ScheduledVerification(
        archive=S3Reader(aws.s3(), settings.bucket),
        store=S3ArchiveStore(aws.s3(), settings.bucket),
        rotation_days=settings.rotation_days,
        transition_days=settings.transition_days,
        cold_rotation_days=settings.cold_rotation_days,
        time_left=time_left,
    )
