"""What the page says, gathered from run manifests, outcome records and verification records."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from meibo.archive.catalog import ArchivedExport, Run, find_run, run_ids, suspicion
from meibo.archive.keys import OUTCOMES, VERIFICATIONS, ExportAddress
from meibo.archive.reader import ArchiveReader, read_document

# A quarter of daily runs; more would make the small charts unreadable and the page slow to write.
RUNS_SHOWN: Final = 90
CHANGE_DAYS: Final = 7
# One object a message: so many are read, and the page says when there are more.
MAX_RECORDS: Final = 1000
_PARALLEL_READS: Final = 16
_OUTCOMES: Final = ("applied", "rejected", "dry_run")


@dataclass(frozen=True)
class ExportHistory:
    """One export over the runs, oldest first."""

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
    """All that the page says. ``runs`` are the newest first; ``suspicions`` are the latest run's, by export id."""

    written_at: datetime
    runs: tuple[Run, ...]
    series: tuple[ExportHistory, ...]
    changes: ChangeSummary
    verification: Mapping[str, Any] | None
    suspicions: Mapping[str, str] = field(default_factory=dict)


def gather(archive: ArchiveReader, now: datetime) -> ReportState:
    """Read what the page says."""
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        ids = list(islice(run_ids(archive), RUNS_SHOWN))
        found = [run for run in pool.map(lambda run_id: find_run(archive, run_id), ids) if run is not None]
        changes = _changes(archive, now, pool)
        suspects = [export for export in (found[0].exports if found else ()) if export.verdict == "suspect"]
        reasons = list(pool.map(lambda export: suspicion(archive, export), suspects))
    points: dict[ExportAddress, list[ArchivedExport]] = defaultdict(list)
    for run in reversed(found):
        for export in run.exports:
            points[export.folder.address].append(export)
    series = [ExportHistory(address, tuple(archived)) for address, archived in points.items()]
    return ReportState(
        written_at=now,
        runs=tuple(found),
        series=tuple(sorted(series, key=lambda one: one.address.export_id)),
        changes=changes,
        verification=_newest_verification(archive),
        suspicions={export.export_id: reason for export, reason in zip(suspects, reasons, strict=True)},
    )


def _changes(archive: ArchiveReader, now: datetime, pool: ThreadPoolExecutor) -> ChangeSummary:
    keys = list(islice(_records(archive, now), MAX_RECORDS + 1))
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for key, body in zip(keys[:MAX_RECORDS], pool.map(archive.read, keys[:MAX_RECORDS]), strict=True):
        source = key.split("/")[1].removeprefix("source=")
        for line in (body or b"").split(b"\n"):
            outcome = _outcome(line)
            if outcome is not None:
                outcomes[source][outcome] += 1
    return ChangeSummary(CHANGE_DAYS, outcomes, more=len(keys) > MAX_RECORDS)


def _records(archive: ArchiveReader, now: datetime) -> Iterator[str]:
    for source in archive.folders(OUTCOMES):
        for back in range(CHANGE_DAYS):
            day = now - timedelta(days=back)
            yield from (one.key for one in archive.list(f"{source}dt={day:%Y-%m-%d}/"))


def _outcome(line: bytes) -> str | None:
    try:
        outcome = json.loads(line)["outcome"]
    except (ValueError, TypeError, KeyError):
        return None
    return outcome if outcome in _OUTCOMES else None


def _newest_verification(archive: ArchiveReader) -> Mapping[str, Any] | None:
    for day in sorted(archive.folders(VERIFICATIONS), reverse=True):
        for one in sorted(archive.list(day), key=lambda listed: listed.key, reverse=True):
            document = read_document(archive, one.key)
            if document is not None:
                return document
    return None
