"""Manifests: the JSON, written last, that makes an archived object count."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from meibo.archive.keys import ExportAddress, run_moment
from meibo.archive.storage import ArchiveStore

MANIFEST_VERSION = 1

Verdict = Literal["ok", "suspect"]

# Where the newest earlier manifest is looked for first, so that years of archives are not listed on every run.
_RECENT = timedelta(days=40)

_MAX_BASELINE_AGE = timedelta(days=30)
"""An export is compared with the last one that was not suspect for this long, so a lasting loss stays visible."""


def previous_manifest(
    store: ArchiveStore, address: ExportAddress, run_id: str, *, accept_from: str | None = None
) -> Mapping[str, Any] | None:
    """Return the manifest of this export's newest archive before the run, or None if there is none.

    If the run is not older than ``accept_from`` (a date such as ``2026-11-21``, UTC), archives before that date are
    ignored.
    """
    accepted = f"{address.prefix}dt={accept_from}" if is_accepted(run_id, accept_from) else ""
    recent = f"{address.prefix}dt={(run_moment(run_id) - _RECENT):%Y-%m-%d}"
    for after in (max(recent, accepted), accepted):
        before = [
            key
            for key in store.keys(address.prefix, after=after)
            if key.endswith("/_manifest.json") and key < address.manifest_key(run_id)
        ]
        if before:
            found: Mapping[str, Any] | None = store.get_json(before[-1])
            return found
    return None


def is_accepted(run_id: str, accept_from: str | None) -> bool:
    """Return whether exports before ``accept_from`` are ignored; a date after the run's has no effect yet."""
    return accept_from is not None and accept_from <= f"{run_moment(run_id):%Y-%m-%d}"


def assess_sanity(
    rows: int | None,
    previous: Mapping[str, Any] | None,
    *,
    run_id: str,
    suspect_share: float,
    accept_from: str | None = None,
    may_be_empty: bool = False,
    noun: str = "rows",
) -> dict[str, Any]:
    """Return the sanity verdict of an export with so many rows, the exports it was compared with, and the reason.

    No rows are suspect unless they ``may_be_empty``. So are fewer than ``suspect_share`` of the rows of the previous
    export, or of the baseline: the last export that was not suspect, for 30 days. Rows that were not counted are not
    compared.
    """
    previous_rows = previous["content"]["rows"] if previous else None
    baseline_run_id, baseline_rows = _baseline(previous, run_id, accept_from)
    compared = [("the last export", previous_rows)]
    if previous and baseline_run_id != previous["run_id"]:
        compared.append((f"run {baseline_run_id} (the last one that was not suspect)", baseline_rows))
    reason = None
    if rows == 0 and not may_be_empty:
        had = next((f"; {name} had {known:,}" for name, known in compared if known), "")
        reason = f"no {noun}{had}"
    elif rows is not None:
        for name, known in compared:
            if known is not None and rows < known * suspect_share:
                fewer = 100 * (known - rows) // known
                reason = f"{fewer} % fewer {noun} than in {name}: {known:,} → {rows:,}"
                break
    verdict: Verdict = "suspect" if reason else "ok"
    sanity: dict[str, Any] = {
        "verdict": verdict,
        "previous_run_id": previous["run_id"] if previous else None,
        "previous_rows": previous_rows,
        "baseline_run_id": baseline_run_id,
        "baseline_rows": baseline_rows,
    }
    if is_accepted(run_id, accept_from):
        sanity["accept_from"] = accept_from
    return {**sanity, "reason": reason} if reason else sanity


def _baseline(
    previous: Mapping[str, Any] | None, run_id: str, accept_from: str | None
) -> tuple[str | None, int | None]:
    """Return run id and rows of the last export that was not suspect: a suspect export's manifest names its own."""
    if previous is None:
        return None, None
    sanity = previous["sanity"]
    if sanity["verdict"] == "ok":
        return previous["run_id"], previous["content"]["rows"]
    # Manifests of before the baseline was recorded name the previous export only.
    prefix = "baseline" if "baseline_run_id" in sanity else "previous"
    known: str | None = sanity[f"{prefix}_run_id"]
    if known is None or run_moment(run_id) - run_moment(known) > _MAX_BASELINE_AGE:
        return None, None
    if is_accepted(run_id, accept_from) and not is_accepted(known, accept_from):
        return None, None
    return known, sanity[f"{prefix}_rows"]


def timestamp(moment: datetime) -> str:
    """Return an aware moment as manifests spell it: UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
