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


def previous_manifest(store: ArchiveStore, address: ExportAddress, run_id: str) -> Mapping[str, Any] | None:
    """Return the manifest of this export's newest archive before the run, or None where there is none."""
    recent = f"{address.prefix}dt={(run_moment(run_id) - _RECENT):%Y-%m-%d}"
    for after in (recent, ""):
        before = [
            key
            for key in store.keys(address.prefix, after=after)
            if key.endswith("/_manifest.json") and key < address.manifest_key(run_id)
        ]
        if before:
            found: Mapping[str, Any] | None = store.get_json(before[-1])
            return found
    return None


def assess_sanity(
    rows: int | None,
    previous: Mapping[str, Any] | None,
    *,
    suspect_share: float,
    may_be_empty: bool = False,
    noun: str = "rows",
) -> dict[str, Any]:
    """Return the sanity verdict of an export with so many rows, beside the last one's, and why it is suspect.

    No rows are suspect unless they ``may_be_empty``; so are fewer than ``suspect_share`` of the last export's. Where
    rows were not counted, on this or the last export, there is nothing to compare.
    """
    previous_rows = previous["content"]["rows"] if previous else None
    reason = None
    if rows == 0 and not may_be_empty:
        reason = f"no {noun}" + (f"; the last export had {previous_rows:,}" if previous_rows else "")
    elif rows is not None and previous_rows is not None and rows < previous_rows * suspect_share:
        fewer = 100 * (previous_rows - rows) // previous_rows
        reason = f"{fewer} % fewer {noun} than in the last export: {previous_rows:,} → {rows:,}"
    verdict: Verdict = "suspect" if reason else "ok"
    sanity: dict[str, Any] = {
        "verdict": verdict,
        "previous_run_id": previous["run_id"] if previous else None,
        "previous_rows": previous_rows,
    }
    return {**sanity, "reason": reason} if reason else sanity


def timestamp(moment: datetime) -> str:
    """Return an aware moment as manifests spell it: UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
