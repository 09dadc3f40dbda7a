"""The state that the report shows, read from run manifests, outcome records and verification records."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from meibo.archive.keys import OUTCOMES, VERIFICATIONS, ExportAddress, outcomes_folder, outcomes_source, run_moment
from meibo.archive.manifest import ArchivedExport, RunCounts
from meibo.archive.outcomes import parse_records
from meibo.archive.runs import Run, find_run, run_ids, suspect_reason
from meibo.archive.scheduled_verification import VerificationRecord
from meibo.archive.storage import ArchiveReader
from meibo.errors import ArchiveConflictError

# Three months of daily runs. More would make the charts unreadable and slow down the report.
RUNS_SHOWN: Final = 90
CHANGE_DAYS: Final = 7
# Outcome records that are read, one per message. The report states if there are more.
MAX_RECORDS: Final = 1000
_PARALLEL_READS: Final = 16


@dataclass(frozen=True)
class ExportHistory:
    """An export: its newest archive, and the rows (if they were counted) and bytes of its archives, oldest first."""

    address: ExportAddress
    latest: ArchivedExport
    rows: tuple[int, ...]
    bytes: tuple[int, ...]


@dataclass(frozen=True)
class RunSummary:
    """The counts of a run. ``seconds`` is the time from its scheduled time until its newest attempt ended."""

    run_id: str
    seconds: int
    counts: RunCounts


@dataclass(frozen=True)
class ChangeSummary:
    """Outcomes of membership changes by source, of the last days and of the latest run.

    ``of_run`` are the outcomes since ``run_since``, the scheduled time of the previous run. Without a previous run,
    they are those of the last days. ``more`` is true if not all outcomes are counted.
    """

    days: int
    outcomes: Mapping[str, Counter[str]]
    of_run: Mapping[str, Counter[str]] = field(default_factory=dict)
    run_since: datetime | None = None
    more: bool = False


@dataclass(frozen=True)
class ReportState:
    """The state of an archive.

    ``runs`` are latest first, ``latest`` is the first of them with its exports. ``suspect_reasons`` are the reasons of
    the latest run's suspect exports, by export id.
    """

    written_at: datetime
    latest: Run | None
    runs: tuple[RunSummary, ...]
    histories: tuple[ExportHistory, ...]
    changes: ChangeSummary
    verification: VerificationRecord | None
    suspect_reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _HistoryBuilder:
    latest: ArchivedExport
    rows: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)

    def add(self, export: ArchivedExport) -> None:
        if export.rows is not None:
            self.rows.append(export.rows)
        self.bytes.append(export.bytes)


def gather(archive: ArchiveReader, now: datetime) -> ReportState:
    """Return the state of an archive."""
    latest: Run | None = None
    summaries: list[RunSummary] = []
    builders: dict[ExportAddress, _HistoryBuilder] = {}
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        ids = list(islice(run_ids(archive), RUNS_SHOWN))
        # Only some run manifests are in memory at a time: a manifest of 10,000 exports takes about 10 MB.
        for first in range(0, len(ids), _PARALLEL_READS):
            batch = ids[first : first + _PARALLEL_READS]
            for run in pool.map(lambda run_id: find_run(archive, run_id), batch):
                if run is None:
                    continue
                latest = latest or run
                summaries.append(RunSummary(run.run_id, _seconds(run), RunCounts.of(run.exports, run.missing)))
                for export in run.exports:
                    builders.setdefault(export.folder.address, _HistoryBuilder(export)).add(export)
        previous = run_moment(summaries[1].run_id) if len(summaries) > 1 else None
        changes = _changes(archive, now, previous, pool)
        suspects = latest.manifest.suspects if latest else ()
        reasons = list(pool.map(lambda export: suspect_reason(archive, export), suspects))
    histories = [
        ExportHistory(address, builder.latest, tuple(reversed(builder.rows)), tuple(reversed(builder.bytes)))
        for address, builder in builders.items()
    ]
    return ReportState(
        written_at=now,
        latest=latest,
        runs=tuple(summaries),
        histories=tuple(sorted(histories, key=lambda history: history.address.export_id)),
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
        source = outcomes_source(key)
        outcomes[source].update(record.outcome.kind for record in records)
        recent = [record.outcome.kind for record in records if since is None or record.outcome.at >= since]
        if recent:
            of_run[source].update(recent)
    return ChangeSummary(CHANGE_DAYS, outcomes, of_run, since, more=len(keys) > MAX_RECORDS)


def _records(archive: ArchiveReader, now: datetime) -> Iterator[str]:
    for source in archive.folders(OUTCOMES):
        for back in range(CHANGE_DAYS):
            day = f"{now - timedelta(days=back):%Y-%m-%d}"
            yield from archive.keys(outcomes_folder(outcomes_source(source), day))


def _newest_verification(archive: ArchiveReader) -> VerificationRecord | None:
    for day in sorted(archive.folders(VERIFICATIONS), reverse=True):
        for key in sorted(archive.keys(day), reverse=True):
            try:
                return VerificationRecord.from_json(archive.read_json(key), key)
            except ArchiveConflictError:
                continue
    return None
