"""The state that the report shows, read from run manifests, outcome records and verification records."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from meibo.archive.catalog import Run, find_run, run_ids, suspect_reason
from meibo.archive.keys import OUTCOMES, VERIFICATIONS, ExportAddress, outcomes_folder, outcomes_source
from meibo.archive.manifest import ArchivedExport
from meibo.archive.outcome_record import parse_records
from meibo.archive.scheduled_verification import VerificationRecord
from meibo.archive.storage import ArchiveReader
from meibo.errors import ArchiveConflictError

# Three months of daily runs. More would make the charts unreadable and slow down the report.
RUNS_SHOWN: Final = 90
CHANGE_DAYS: Final = 7
# Outcome records that are read, one per message. The report says if there are more.
MAX_RECORDS: Final = 1000
_PARALLEL_READS: Final = 16


@dataclass(frozen=True)
class ExportHistory:
    """The archives of one export, oldest first."""

    address: ExportAddress
    points: tuple[ArchivedExport, ...]

    @property
    def latest(self) -> ArchivedExport:
        """The newest archive."""
        return self.points[-1]


@dataclass(frozen=True)
class ChangeSummary:
    """Outcomes of membership changes, by source."""

    days: int
    outcomes: Mapping[str, Counter[str]]
    more: bool = False


@dataclass(frozen=True)
class ReportState:
    """The state of an archive.

    ``runs`` are latest first. ``suspect_reasons`` are the reasons of the latest run's suspect exports, by export id.
    """

    written_at: datetime
    runs: tuple[Run, ...]
    series: tuple[ExportHistory, ...]
    changes: ChangeSummary
    verification: VerificationRecord | None
    suspect_reasons: Mapping[str, str] = field(default_factory=dict)


def gather(archive: ArchiveReader, now: datetime) -> ReportState:
    """Return the state of an archive."""
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        ids = list(islice(run_ids(archive), RUNS_SHOWN))
        runs = [run for run in pool.map(lambda run_id: find_run(archive, run_id), ids) if run is not None]
        changes = _changes(archive, now, pool)
        suspects = runs[0].manifest.suspects if runs else ()
        reasons = list(pool.map(lambda export: suspect_reason(archive, export), suspects))
    history: dict[ExportAddress, list[ArchivedExport]] = defaultdict(list)
    for run in reversed(runs):
        for export in run.exports:
            history[export.folder.address].append(export)
    series = [ExportHistory(address, tuple(archived)) for address, archived in history.items()]
    return ReportState(
        written_at=now,
        runs=tuple(runs),
        series=tuple(sorted(series, key=lambda series: series.address.export_id)),
        changes=changes,
        verification=_newest_verification(archive),
        suspect_reasons={export.export_id: reason for export, reason in zip(suspects, reasons, strict=True)},
    )


def _changes(archive: ArchiveReader, now: datetime, pool: ThreadPoolExecutor) -> ChangeSummary:
    keys = list(islice(_records(archive, now), MAX_RECORDS + 1))
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for key, body in zip(keys[:MAX_RECORDS], pool.map(archive.read, keys[:MAX_RECORDS]), strict=True):
        try:
            records = parse_records(body or b"", key)
        except ArchiveConflictError:
            continue
        outcomes[outcomes_source(key)].update(record.outcome.kind for record in records)
    return ChangeSummary(CHANGE_DAYS, outcomes, more=len(keys) > MAX_RECORDS)


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
