"""Compare the rows of an export with earlier exports, so that a partial file is reported as suspect."""

from __future__ import annotations

from datetime import timedelta

from meibo.archive.keys import MANIFEST_NAME, ExportAddress, run_moment
from meibo.archive.manifest import ExportManifest, Sanity
from meibo.archive.storage import ArchiveReader

# The previous manifest is searched here first, so that years of archives are not listed in every run.
_RECENT = timedelta(days=40)

_MAX_BASELINE_AGE = timedelta(days=30)
"""The last export that was not suspect is the baseline for this long, so that a lasting loss stays visible."""


def previous_manifest(
    archive: ArchiveReader, address: ExportAddress, run_id: str, *, accept_from: str | None = None
) -> ExportManifest | None:
    """Return the newest manifest of this export before the run, or None if no such manifest exists.

    If the run is not older than ``accept_from`` (a date such as ``2026-11-21``, UTC), archives before that date are
    ignored.
    """
    accepted = address.day_prefix(accept_from) if accept_from and is_accepted(run_id, accept_from) else ""
    recent = address.day_prefix(f"{run_moment(run_id) - _RECENT:%Y-%m-%d}")
    for after in (max(recent, accepted), accepted):
        earlier = [
            key
            for key in archive.keys(address.prefix, after=after)
            if key.endswith(f"/{MANIFEST_NAME}") and key < address.manifest_key(run_id)
        ]
        if earlier:
            return ExportManifest.read(archive, earlier[-1])
    return None


def is_accepted(run_id: str, accept_from: str | None) -> bool:
    """Return whether exports before ``accept_from`` are ignored; a date after the date of the run has no effect yet."""
    return accept_from is not None and accept_from <= f"{run_moment(run_id):%Y-%m-%d}"


def assess_sanity(
    rows: int | None,
    previous: ExportManifest | None,
    *,
    run_id: str,
    suspect_share: float,
    accept_from: str | None = None,
    may_be_empty: bool = False,
    noun: str = "rows",
) -> Sanity:
    """Return the verdict on an export with this number of rows, the exports it was compared with, and the reason.

    An export without rows is suspect unless it ``may_be_empty``. An export is also suspect if it has less than
    ``suspect_share`` of the rows of the previous export, or of the baseline: the last export that was not suspect, for
    30 days. Rows that were not counted are not compared.
    """
    previous_rows = previous.content.rows if previous else None
    baseline_run_id, baseline_rows = _baseline(previous, run_id, accept_from)
    compared = [("the last export", previous_rows)]
    if previous and baseline_run_id != previous.run_id:
        compared.append((f"run {baseline_run_id} (the last export that was not suspect)", baseline_rows))
    reason = None
    if rows == 0 and not may_be_empty:
        earlier = next((f"; {name} had {count:,}" for name, count in compared if count), "")
        reason = f"no {noun}{earlier}"
    elif rows is not None:
        for name, count in compared:
            if count is not None and rows < count * suspect_share:
                percent = 100 * (count - rows) // count
                reason = f"{percent} % fewer {noun} than in {name}: {count:,} → {rows:,}"
                break
    return Sanity(
        verdict="suspect" if reason else "ok",
        previous_run_id=previous.run_id if previous else None,
        previous_rows=previous_rows,
        baseline_run_id=baseline_run_id,
        baseline_rows=baseline_rows,
        accept_from=accept_from if is_accepted(run_id, accept_from) else None,
        reason=reason,
    )


def _baseline(previous: ExportManifest | None, run_id: str, accept_from: str | None) -> tuple[str | None, int | None]:
    """Return the run id and rows of the last export that was not suspect; the manifest of a suspect export names it."""
    if previous is None:
        return None, None
    if previous.sanity.verdict == "ok":
        return previous.run_id, previous.content.rows
    run = previous.sanity.baseline_run_id
    if run is None or run_moment(run_id) - run_moment(run) > _MAX_BASELINE_AGE:
        return None, None
    if is_accepted(run_id, accept_from) and not is_accepted(run, accept_from):
        return None, None
    return run, previous.sanity.baseline_rows
