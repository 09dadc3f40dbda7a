"""Keys in the archive bucket: Hive-style, so that Athena, DuckDB and Spark read it as it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from meibo.errors import EventError

_RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_OF_ATTEMPT = re.compile(r"_(?:plan|attempt|manifest)(?:-([0-9]+))?\.json")


def run_id_of(moment: datetime) -> str:
    """Return the id of the run that was scheduled for ``moment`` (aware), for example ``20261121T180000Z``."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def run_moment(run_id: str) -> datetime:
    """Return the moment that a run was scheduled for, raising EventError where the id has another form."""
    try:
        if not _RUN_ID.fullmatch(run_id):
            raise ValueError  # noqa: TRY301  (a wrong form and a wrong date are told with one message)
        return datetime.strptime(run_id, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise EventError("run_id must be a UTC time of the form 20261121T180000Z") from None


def _dt(run_id: str) -> str:
    return run_moment(run_id).strftime("%Y-%m-%d")


@dataclass(frozen=True, kw_only=True)
class ExportAddress:
    """Where all archives of one export live; each run adds one folder below."""

    provider: str
    source: str
    dataset: str
    format: str
    scope: str

    @property
    def export_id(self) -> str:
        """The export's name within a run, for people and for failure records."""
        return f"{self.source}/{self.dataset}/{self.format}/{self.scope}"

    @property
    def prefix(self) -> str:
        """Prefix of every archive of this export, ending with a slash."""
        return (
            f"archive/provider={self.provider}/source={self.source}/dataset={self.dataset}"
            f"/format={self.format}/scope={self.scope}/"
        )

    def folder(self, run_id: str) -> str:
        """Prefix of this export's archive in one run, ending with a slash."""
        return f"{self.prefix}dt={_dt(run_id)}/run={run_id}/"

    def object_key(self, run_id: str, *, gzip: bool) -> str:
        """Key of the archived file."""
        return f"{self.folder(run_id)}{self.dataset}.{self.format}{'.gz' if gzip else ''}"

    def manifest_key(self, run_id: str) -> str:
        """Key of the manifest beside the archived file."""
        return f"{self.folder(run_id)}_manifest.json"


def run_folder(run_id: str) -> str:
    """Prefix of everything that belongs to a run as a whole, ending with a slash."""
    return f"runs/dt={_dt(run_id)}/run={run_id}/"


def reports_folder(run_id: str) -> str:
    """Prefix of the pages that a run's attempts leave when they have ended, ending with a slash."""
    return f"reports/dt={_dt(run_id)}/run={run_id}/"


def plan_key(run_id: str, attempt: int = 1) -> str:
    """Key of the run's plan; a repair adds its own, because nothing is ever overwritten."""
    return f"{run_folder(run_id)}_plan.json" if attempt == 1 else f"{run_folder(run_id)}_plan-{attempt}.json"


def attempt_of(key: str) -> int | None:
    """Return the attempt that a plan, a list of exports or a run manifest belongs to, or None for every other key."""
    match = _OF_ATTEMPT.fullmatch(key.rpartition("/")[2])
    return int(match[1] or 1) if match else None


def attempt_key(run_id: str, attempt: int) -> str:
    """Key of the list of exports that one attempt of a run works through."""
    return f"{run_folder(run_id)}_attempt-{attempt}.json"


def run_manifest_key(run_id: str, attempt: int) -> str:
    """Key of the run's manifest; a repair adds its own, because nothing is ever overwritten."""
    return f"{run_folder(run_id)}_manifest.json" if attempt == 1 else f"{run_folder(run_id)}_manifest-{attempt}.json"


def failure_key(run_id: str, attempt: int, export_id: str) -> str:
    """Key of the record that says why one export failed in one attempt."""
    return f"{run_folder(run_id)}_failures/attempt={attempt}/{export_id}.json"


def parts_folder(run_id: str, attempt: int, export_id: str) -> str:
    """Prefix of what one attempt has collected of an export that outlasts an invocation, ending with a slash.

    A prefix of its own, so that a lifecycle rule can expire it: once the export is archived nothing reads it.
    """
    return f"parts/dt={_dt(run_id)}/run={run_id}/{export_id}/attempt={attempt}/"


def part_key(folder: str, number: int, digest: str) -> str:
    """Return the key of a part below its parts folder; the digest keeps the parts of two invocations apart."""
    return f"{folder}{number:05d}-{digest[:16]}.ndjson.gz"


def part_record_key(folder: str, number: int) -> str:
    """Return the key of the record that makes a part count."""
    return f"{folder}{number:05d}.json"


def report_key(run_id: str, attempt: int) -> str:
    """Return the key of the page that an attempt writes; each attempt adds its own, as nothing is overwritten."""
    return f"{reports_folder(run_id)}index{'' if attempt == 1 else f'-{attempt}'}.html"


VERIFICATIONS: Final = "verifications/"
"""Prefix of the records of all verifications, ending with a slash."""


def verification_key(moment: datetime) -> str:
    """Return the key of the record of the verification that started at an aware UTC moment."""
    return f"{VERIFICATIONS}dt={moment:%Y-%m-%d}/{moment:%Y%m%dT%H%M%SZ}.json"


OUTCOMES: Final = "changes/"
"""Prefix of the outcome records of all membership changes, ending with a slash."""


def outcome_key(source: str, day: str, name: str) -> str:
    """Return the key of an outcome record; ``day`` has the form ``2026-11-21``."""
    return f"{OUTCOMES}source={source}/dt={day}/{name}.ndjson"
