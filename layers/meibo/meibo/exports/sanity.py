"""Compare the number of rows of an export with earlier exports, so that a partial file is reported as suspect."""

from __future__ import annotations

from datetime import timedelta

from meibo.archive.keys import MANIFEST_NAME, ExportAddress, run_day, run_id_of, run_moment
from meibo.archive.manifest import ExportManifest, Sanity
from meibo.archive.storage import ArchiveReader
from meibo.exports.plan import PlannedExport
from meibo.providers import provider

# The previous manifest is searched for in this period first, because listing all runs of an export is slow.
_RECENT = timedelta(days=40)
# A permanent loss of rows is reported for this period. Afterwards, the remaining rows become the baseline.
_MAX_BASELINE_AGE = timedelta(days=30)


def assess_sanity(archive: ArchiveReader, export: PlannedExport, run_id: str, rows: int | None) -> Sanity:
    """Check the number of rows of an export, and return the verdict, its reason and the earlier exports that were used.

    An export without rows is suspect unless its dataset may be empty. An export is also suspect if it has less than
    ``suspect_share`` of the rows of the previous export or of the baseline, which is the last export of the previous 30
    days that was not suspect. If the rows were not counted, the export is not compared. On and after the date
    ``accept_from``, exports before this date are ignored.
    """
    dataset = provider(export.provider).dataset(export.dataset)
    accept_from = export.accept_from or ""
    if accept_from > run_day(run_id):
        accept_from = ""
    previous = _previous_manifest(archive, export.address, run_id, accept_from)
    previous_rows = previous.content.rows if previous else None
    baseline_run_id, baseline_rows = _baseline(previous, run_id, accept_from)
    compared = [("the last export", previous_rows)]
    if previous and baseline_run_id != previous.run_id:
        compared.append((f"run {baseline_run_id} (the last export that was not suspect)", baseline_rows))
    reason = None
    if rows == 0 and not dataset.may_be_empty:
        earlier = next((f"; {name} had {count:,}" for name, count in compared if count), "")
        reason = f"no {dataset.row_noun}{earlier}"
    elif rows is not None:
        for name, count in compared:
            if count is not None and rows < count * export.suspect_share:
                percent = 100 * (count - rows) // count
                reason = f"{percent} % fewer {dataset.row_noun} than in {name}: {count:,} → {rows:,}"
                break
    return Sanity(
        verdict="suspect" if reason else "ok",
        previous_run_id=previous.run_id if previous else None,
        previous_rows=previous_rows,
        baseline_run_id=baseline_run_id,
        baseline_rows=baseline_rows,
        accept_from=accept_from or None,
        reason=reason,
    )


def _previous_manifest(
    archive: ArchiveReader, address: ExportAddress, run_id: str, accept_from: str
) -> ExportManifest | None:
    recent = run_day(run_id_of(run_moment(run_id) - _RECENT))
    for day in (max(recent, accept_from), accept_from):
        earlier = [
            key
            for key in archive.keys(address.prefix, after=address.day_prefix(day) if day else "")
            if key.endswith(f"/{MANIFEST_NAME}") and key < address.manifest_key(run_id)
        ]
        if earlier:
            return ExportManifest.read(archive, earlier[-1])
    return None


def _baseline(previous: ExportManifest | None, run_id: str, accept_from: str) -> tuple[str | None, int | None]:
    """Return the run id and the number of rows of the baseline, or None for both.

    The baseline is the previous export or, if it was suspect, the baseline in its manifest, unless that baseline is
    older than 30 days or before ``accept_from``.
    """
    if previous is None:
        return None, None
    if previous.sanity.verdict == "ok":
        return previous.run_id, previous.content.rows
    run = previous.sanity.baseline_run_id
    if run is None or run_moment(run_id) - run_moment(run) > _MAX_BASELINE_AGE or run_day(run) < accept_from:
        return None, None
    return run, previous.sanity.baseline_rows
