"""Read the state of an archive for the report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from meibo.archive.keys import OUTCOMES, VERIFICATIONS, ExportAddress, outcomes_folder, partition, run_moment
from meibo.archive.manifest import ArchivedExport, RunCounts
from meibo.archive.outcomes import parse_records
from meibo.archive.runs import Run, find_run, run_ids, suspect_reason
from meibo.archive.scheduled_verification import VerificationRecord
from meibo.archive.storage import ArchiveReader
from meibo.errors import ArchiveConflictError

# Three months of daily runs. With more runs, the charts would be unreadable and the report would be slow.
RUNS_SHOWN: Final = 90
CHANGE_DAYS: Final = 7
# Maximum number of objects with outcome records that are read. A message usually has one object.
MAX_RECORDS: Final = 1000
_PARALLEL_READS: Final = 16


@dataclass
class ExportHistory:
    """The runs of an export: the newest run, and the rows (if counted) and bytes of all runs, oldest first."""

    address: ExportAddress
    latest: ArchivedExport
    rows: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)

    def add_older(self, export: ArchivedExport) -> None:
        """Add a run that is older than the other runs."""
        if export.rows is not None:
            self.rows.insert(0, export.rows)
        self.bytes.insert(0, export.bytes)


@dataclass(frozen=True)
class RunSummary:
    """The counts of a run. ``seconds`` is the time between the scheduled time and the end of the newest attempt."""

    run_id: str
    seconds: int
    counts: RunCounts


@dataclass(frozen=True)
class ChangeSummary:
    """The numbers of outcomes of membership changes, by source and kind.

    ``outcomes`` contains the numbers for the last ``days``. ``of_run`` contains the numbers since ``run_since``, the
    scheduled time of the previous run; without a previous run, they are equal. ``more`` is true if not all outcomes are
    counted.
    """

    days: int
    outcomes: Mapping[str, Counter[str]]
    of_run: Mapping[str, Counter[str]] = field(default_factory=dict)
    run_since: datetime | None = None
    more: bool = False


@dataclass(frozen=True)
class ReportState:
    """The state of an archive.

    ``runs`` is sorted, newest first. ``latest`` is the newest run with its exports. ``suspect_reasons`` contains the
    reasons for the suspect exports of this run, by export id.
    """

    written_at: datetime
    latest: Run | None
    runs: tuple[RunSummary, ...]
    histories: tuple[ExportHistory, ...]
    changes: ChangeSummary
    verification: VerificationRecord | None
    suspect_reasons: Mapping[str, str] = field(default_factory=dict)


def gather(archive: ArchiveReader, now: datetime) -> ReportState:
    """Return the state of an archive."""
    latest: Run | None = None
    summaries: list[RunSummary] = []
    histories: dict[ExportAddress, ExportHistory] = {}
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        ids = list(islice(run_ids(archive), RUNS_SHOWN))
        # The manifests are read in batches, because a manifest with 10,000 exports requires about 10 MB of memory.
        for first in range(0, len(ids), _PARALLEL_READS):
            batch = ids[first : first + _PARALLEL_READS]
            for run in pool.map(lambda run_id: find_run(archive, run_id), batch):
                if run is None:
                    continue
                latest = latest or run
                summaries.append(RunSummary(run.run_id, _seconds(run), RunCounts.of(run.exports, run.missing)))
                for export in run.exports:
                    address = export.folder.address
                    histories.setdefault(address, ExportHistory(address, export)).add_older(export)
        previous = run_moment(summaries[1].run_id) if len(summaries) > 1 else None
        changes = _changes(archive, now, previous, pool)
        suspects = latest.manifest.suspects if latest else ()
        reasons = list(pool.map(lambda export: suspect_reason(archive, export), suspects))
    return ReportState(
        written_at=now,
        latest=latest,
        runs=tuple(summaries),
        histories=tuple(sorted(histories.values(), key=lambda history: history.address.export_id)),
        changes=changes,
        verification=_newest_verification(archive),
        suspect_reasons={export.export_id: reason for export, reason in zip(suspects, reasons, strict=True)},
    )


def _seconds(run: Run) -> int:
    try:
        finished = datetime.fromisoformat(run.manifest.finished_at)
    except ValueError:
        return 0
    return max(int((finished - run_moment(run.run_id)).total_seconds()), 0)


def _changes(archive: ArchiveReader, now: datetime, since: datetime | None, pool: ThreadPoolExecutor) -> ChangeSummary:
    keys = list(islice(_records(archive, now), MAX_RECORDS + 1))
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    of_run: dict[str, Counter[str]] = defaultdict(Counter)
    for key, body in zip(keys[:MAX_RECORDS], pool.map(archive.read, keys[:MAX_RECORDS]), strict=True):
        try:
            records = parse_records(body or b"", key)
        except ArchiveConflictError:
            continue
        source = partition(key, "source")
        outcomes[source].update(record.outcome.kind for record in records)
        recent = [record.outcome.kind for record in records if since is None or record.outcome.at >= since]
        if recent:
            of_run[source].update(recent)
    return ChangeSummary(CHANGE_DAYS, outcomes, of_run, since, more=len(keys) > MAX_RECORDS)


def _records(archive: ArchiveReader, now: datetime) -> Iterator[str]:
    for source in archive.folders(OUTCOMES):
        for back in range(CHANGE_DAYS):
            day = f"{now - timedelta(days=back):%Y-%m-%d}"
            yield from archive.keys(outcomes_folder(partition(source, "source"), day))


def _newest_verification(archive: ArchiveReader) -> VerificationRecord | None:
    for day in sorted(archive.folders(VERIFICATIONS), reverse=True):
        for key in sorted(archive.keys(day), reverse=True):
            try:
                return VerificationRecord.read(archive, key)
            except ArchiveConflictError:
                continue
    return None
