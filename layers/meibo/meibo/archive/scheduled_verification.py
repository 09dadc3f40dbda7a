"""Verify the newest runs and a rotating sample of the older runs.

The Lambda function ``verify_archive`` runs this code.

Amazon S3 charges a retrieval fee for objects in most colder storage classes, so these objects are read in a longer
rotation. Objects that must be restored first are never read. If an object is not read, only its properties (HEAD) are
verified.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final

from botocore.exceptions import BotoCoreError, ClientError

import meibo
from meibo import aws
from meibo.archive.keys import run_folder, run_moment, verification_key
from meibo.archive.manifest import timestamp
from meibo.archive.runs import run_ids
from meibo.archive.storage import ArchiveStorage, ObjectStat, S3Storage, StoredDocument
from meibo.archive.verification import Finding, VerificationTask, Verifier, plan_runs
from meibo.clock import TimeLeft
from meibo.documents import parse_moment
from meibo.errors import MeiboError
from meibo.observability import MetricUnit, logger, metrics
from meibo.settings import VerifyArchiveSettings

# Every verification includes the last run, and the run before it, which may have been repaired.
NEWEST_RUNS = 2
# If less time is left, no other export is verified, so that the record and the metrics can be written.
_MIN_EXPORT_SECONDS = 60.0
# If less time is left, no other run is planned, and no more bytes of objects are read.
_MIN_READ_SECONDS = _MIN_EXPORT_SECONDS / 2
# Maximum number of entries in each list of a record, and in the log. The counts include all entries.
_MAX_ENTRIES = 100
# Objects in these storage classes and tiers can only be read after a restore request:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html
_NEEDS_RESTORE: Final = frozenset({"GLACIER", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"})
_OUT_OF_TIME: Final = "the invocation ran out of time; a later verification includes it"


@dataclass(frozen=True, kw_only=True)
class UncheckedExport:
    """The folder of an export or a run that could not be verified, and the reason."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class VerificationRecord(StoredDocument):
    """The result of a scheduled verification.

    ``quick`` is the number of exports whose objects were not read. ``damaged`` is the number of damaged objects. The
    lists contain at most 100 entries. ``at`` is a UTC time in ISO 8601.
    """

    version_key: ClassVar[str | None] = "record_version"

    at: str
    meibo_version: str
    runs: int
    exports: int
    quick: int
    damaged: int
    unchecked: int
    damage: tuple[Finding, ...]
    could_not_check: tuple[UncheckedExport, ...]

    def __post_init__(self) -> None:
        parse_moment(self.at, "at")  # the report shows this time

    @property
    def counts(self) -> dict[str, int]:
        """The counts by name."""
        return {name: getattr(self, name) for name in ("runs", "exports", "quick", "damaged", "unchecked")}


def has_turn(run_id: str, *, rotation_days: int, day: int) -> bool:
    """Return whether a run is verified on a day. Each run is verified once per rotation.

    ``day`` is the number that ``date.toordinal`` returns for the day.
    """
    return zlib.crc32(run_id.encode()) % rotation_days == day % rotation_days


def has_cold_turn(run_id: str, *, rotation_days: int, cold_rotation_days: int, day: int) -> bool:
    """Return whether the objects of a run are read on a day if they are in a colder storage class.

    They are read in one of ``cold_rotation_days // rotation_days`` verifications of the run. The checksum of the run's
    id selects this verification, so that the runs are distributed evenly.
    """
    turns = max(cold_rotation_days // rotation_days, 1)
    chosen = zlib.crc32(run_id.encode()) // rotation_days % turns
    return has_turn(run_id, rotation_days=rotation_days, day=day) and day // rotation_days % turns == chosen


def sample(ids: list[str], *, newest: int, rotation_days: int, day: int) -> list[str]:
    """Return the ids of the runs that are verified on a day. ``ids`` and the result are sorted, newest first.

    The ``newest`` runs are always verified. Each older run is verified once every ``rotation_days`` days, even if
    runs are added or expire.
    """
    return ids[:newest] + [run_id for run_id in ids[newest:] if has_turn(run_id, rotation_days=rotation_days, day=day)]


@dataclass(frozen=True)
class _Result:
    """The result of a task. ``unchecked`` is the reason why the export could not be verified."""

    findings: tuple[Finding, ...] = ()
    quick: bool = False
    unchecked: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScheduledVerification:
    """One scheduled verification.

    ``transition_days`` is the age in days at which objects are moved to a colder storage class, or 0 if they are not
    moved.
    """

    archive: ArchiveStorage
    rotation_days: int
    time_left: TimeLeft
    newest: int = NEWEST_RUNS
    transition_days: int = 0
    cold_rotation_days: int = 365
    threads: int = max(os.cpu_count() or 1, 2)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self) -> dict[str, int]:
        """Verify the runs, write the record and the metrics, and return the counts."""
        now = self.now()
        ids = list(run_ids(self.archive))
        chosen = sample(ids, newest=self.newest, rotation_days=self.rotation_days, day=now.toordinal())
        damage: list[Finding] = []
        submitted: list[tuple[VerificationTask, Future[_Result]]] = []
        unplanned: list[UncheckedExport] = []
        with ThreadPoolExecutor(self.threads) as pool:
            # Newer runs are verified while older runs are planned, so the oldest runs are skipped if the time is too
            # short.
            for run_id in chosen:
                if self.time_left() < _MIN_READ_SECONDS:
                    unplanned.append(UncheckedExport(key=run_folder(run_id), reason=_OUT_OF_TIME))
                    continue
                plan = plan_runs(self.archive, [run_id], now=now)
                damage += plan.findings
                submitted += [(task, pool.submit(self._verify, task, now)) for task in plan.tasks]
        results = [(task, future.result()) for task, future in submitted]
        damage += [finding for _, result in results for finding in result.findings]
        unchecked = [
            UncheckedExport(key=task.folder.key, reason=result.unchecked)
            for task, result in results
            if result.unchecked
        ]
        unchecked += unplanned
        record = VerificationRecord(
            at=timestamp(now),
            meibo_version=meibo.__version__,
            runs=len(chosen),
            exports=len(results),
            quick=sum(result.quick for _, result in results),
            damaged=len({finding.key for finding in damage}),
            unchecked=len(unchecked),
            damage=tuple(damage[:_MAX_ENTRIES]),
            could_not_check=tuple(unchecked[:_MAX_ENTRIES]),
        )
        record.write(self.archive, verification_key(now))
        for finding in record.damage:
            logger.error("damage in the archive", extra=asdict(finding))
        metrics.add_metric("VerifiedExports", MetricUnit.Count, sum(result.unchecked is None for _, result in results))
        metrics.add_metric("DamagedObjects", MetricUnit.Count, record.damaged)
        metrics.add_metric("UncheckedExports", MetricUnit.Count, record.unchecked)
        logger.info("archive verified", extra=record.counts)
        return record.counts

    def _verify(self, task: VerificationTask, now: datetime) -> _Result:
        if self.time_left() < _MIN_EXPORT_SECONDS:
            return _Result(unchecked=_OUT_OF_TIME)
        quick = False

        def reads(stat: ObjectStat) -> bool:
            nonlocal quick
            quick = not self._reads_in_full(task.folder.run_id, stat, now)
            return not quick

        verifier = Verifier(self.archive, reads=reads, time_left=lambda: self.time_left() - _MIN_READ_SECONDS)
        try:
            return _Result(findings=tuple(verifier.verify(task)), quick=quick)
        except ClientError as error:
            return _Result(unchecked=f"S3 returned {error.response['Error']['Code']}")
        except (MeiboError, BotoCoreError) as error:
            return _Result(unchecked=type(error).__name__)

    def _reads_in_full(self, run_id: str, stat: ObjectStat, now: datetime) -> bool:
        if stat.storage_class in _NEEDS_RESTORE:
            return False
        age = now - run_moment(run_id)
        past_transition = self.transition_days > 0 and age >= timedelta(days=self.transition_days)
        # If TransitionDays is increased or set to 0, objects that were already moved remain in their storage class.
        if not past_transition and stat.storage_class is None:
            return True
        return has_cold_turn(
            run_id,
            rotation_days=self.rotation_days,
            cold_rotation_days=self.cold_rotation_days,
            day=now.toordinal(),
        )


def scheduled_verification(settings: VerifyArchiveSettings, time_left: TimeLeft) -> ScheduledVerification:
    """Return the verification of the archive bucket in the settings."""
    return ScheduledVerification(
        archive=S3Storage(aws.s3(), settings.bucket),
        rotation_days=settings.rotation_days,
        transition_days=settings.transition_days,
        cold_rotation_days=settings.cold_rotation_days,
        time_left=time_left,
    )
