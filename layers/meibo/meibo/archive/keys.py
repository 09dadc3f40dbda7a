"""Build and parse the keys of the archive bucket.

The keys contain Hive-style partitions (``name=value``), so that Athena, DuckDB and Spark can query the archived files.
Athena and Spark ignore objects whose names start with an underscore.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, Self

from meibo.errors import EventError

ARCHIVE: Final = "archive/"
"""Prefix of all archived files and their manifests."""
RUNS: Final = "runs/"
"""Prefix of the documents of all runs: plans, lists of exports, records of failures, and run manifests."""
PARTS: Final = "parts/"
"""Prefix of the temporary parts of exports that take several invocations."""
REPORTS: Final = "reports/"
"""Prefix of the reports."""
VERIFICATIONS: Final = "verifications/"
"""Prefix of the records of all verifications."""
OUTCOMES: Final = "changes/"
"""Prefix of the outcome records of all membership changes."""

MANIFEST_NAME: Final = "_manifest.json"

RunDocument = Literal["plan", "attempt", "manifest"]

_RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_RUN_DOCUMENT = re.compile(r"_(?:plan|attempt|manifest)(?:-([0-9]+))?\.json")
_EXPORT_FOLDER = re.compile(
    rf"{ARCHIVE}provider=(?P<provider>[^/]+)/source=(?P<source>[^/]+)/dataset=(?P<dataset>[^/]+)"
    r"/format=(?P<format>[^/]+)/scope=(?P<scope>[^/]+)/dt=[0-9-]{10}/run=(?P<run_id>[0-9]{8}T[0-9]{6}Z)/"
)


def provider_prefix(provider: str) -> str:
    """Return the prefix of all archives of a provider, ending with a slash."""
    return f"{ARCHIVE}provider={provider}/"


def source_prefix(provider_folder: str, source: str) -> str:
    """Return the prefix of all archives of a source below the prefix ``provider_folder``, ending with a slash."""
    return f"{provider_folder}source={source}/"


def dataset_prefix(source_folder: str, dataset: str, format_name: str) -> str:
    """Return the prefix of all archives of a dataset below the prefix ``source_folder``, ending with a slash."""
    return f"{source_folder}dataset={dataset}/format={format_name}/"


def dataset_pattern(provider: str, dataset: str, format_name: str) -> str:
    """Return a glob pattern that matches the archived files of a dataset in all sources and runs."""
    folder = dataset_prefix(source_prefix(provider_prefix(provider), "*"), dataset, format_name)
    return f"{folder}scope=*/dt=*/run=*/{dataset}.{format_name}*"


def partition(key: str, name: str) -> str:
    """Return the value of a partition such as ``dt`` in a key or a prefix, or an empty string if there is none."""
    return next((part.removeprefix(f"{name}=") for part in key.split("/") if part.startswith(f"{name}=")), "")


def is_archive_key(key: str) -> bool:
    """Return whether a key is valid.

    A key in an altered manifest may be invalid. In a folder, an absolute key, or a key with an empty, ``.`` or ``..``
    segment, could be a path outside the archive.
    """
    return "\0" not in key and not {"", ".", ".."} & set(key.split("/"))


def run_id_of(moment: datetime) -> str:
    """Return the id of the run that is scheduled for a time, for example ``20261121T180000Z``."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


@lru_cache
def run_moment(run_id: str) -> datetime:
    """Return the scheduled time of a run. Raises EventError if the id is invalid."""
    try:
        if not _RUN_ID.fullmatch(run_id):
            raise ValueError  # noqa: TRY301  (a malformed id and an invalid date have the same message)
        return datetime.strptime(run_id, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise EventError("run_id: expected a UTC time such as 20261121T180000Z") from None


def run_day(run_id: str) -> str:
    """Return the scheduled date (UTC) of a run, for example ``2026-11-21``."""
    return run_moment(run_id).strftime("%Y-%m-%d")


@dataclass(frozen=True, kw_only=True)
class ExportAddress:
    """The address of an export in the archive. It contains one folder for each run of the export."""

    provider: str
    source: str
    dataset: str
    format: str
    scope: str

    @property
    def export_id(self) -> str:
        """The id of the export in its run, such as ``acme/users/ndjson/all``."""
        return f"{self.source}/{self.dataset}/{self.format}/{self.scope}"

    @property
    def prefix(self) -> str:
        """The prefix of all runs of this export, ending with a slash."""
        folder = dataset_prefix(source_prefix(provider_prefix(self.provider), self.source), self.dataset, self.format)
        return f"{folder}scope={self.scope}/"

    def day_prefix(self, day: str) -> str:
        """Return the prefix of this export's runs on a day such as ``2026-11-21``, without a slash at the end."""
        return f"{self.prefix}dt={day}"

    def folder(self, run_id: str) -> str:
        """Return the prefix of this export in one run, ending with a slash."""
        return f"{self.day_prefix(run_day(run_id))}/run={run_id}/"

    def object_key(self, run_id: str, *, gzip: bool) -> str:
        """Return the key of the archived file."""
        return f"{self.folder(run_id)}{self.dataset}.{self.format}{'.gz' if gzip else ''}"

    def manifest_key(self, run_id: str) -> str:
        """Return the key of the manifest beside the archived file."""
        return f"{self.folder(run_id)}{MANIFEST_NAME}"


@dataclass(frozen=True)
class ExportFolder:
    """The folder of one export in one run."""

    address: ExportAddress
    run_id: str

    @property
    def key(self) -> str:
        """The folder's prefix, ending with a slash."""
        return self.address.folder(self.run_id)

    @property
    def manifest_key(self) -> str:
        """The key of the export's manifest."""
        return self.address.manifest_key(self.run_id)

    @classmethod
    def of(cls, key: str) -> Self | None:
        """Return the folder that contains a key, or None if the key is not in the folder of an export."""
        match = _EXPORT_FOLDER.match(key)
        if match is None:
            return None
        fields = match.groupdict()
        try:
            folder = cls(run_id=fields.pop("run_id"), address=ExportAddress(**fields))
            return folder if key.startswith(folder.key) else None
        except EventError:
            return None


def run_folder(run_id: str) -> str:
    """Return the prefix of the documents of a run, ending with a slash."""
    return f"{RUNS}dt={run_day(run_id)}/run={run_id}/"


def run_documents(run_id: str, kind: RunDocument) -> str:
    """Return the prefix of a run's plans, lists of exports (``attempt``) or run manifests."""
    return f"{run_folder(run_id)}_{kind}"


def run_id_of_folder(folder: str) -> str | None:
    """Return the id of the run in a prefix such as ``runs/dt=…/run=…/``, or None for any other prefix."""
    run_id = folder.rstrip("/").rpartition("/run=")[2]
    return run_id if _RUN_ID.fullmatch(run_id) else None


def reports_folder(run_id: str) -> str:
    """Return the prefix of the reports of a run, ending with a slash."""
    return f"{REPORTS}dt={run_day(run_id)}/run={run_id}/"


def plan_key(run_id: str, attempt: int = 1) -> str:
    """Return the key of the plan of an attempt."""
    return f"{run_documents(run_id, 'plan')}{_suffix(attempt)}.json"


def attempt_key(run_id: str, attempt: int) -> str:
    """Return the key of the list of exports of an attempt."""
    return f"{run_documents(run_id, 'attempt')}-{attempt}.json"


def run_manifest_key(run_id: str, attempt: int) -> str:
    """Return the key of the run manifest of an attempt."""
    return f"{run_documents(run_id, 'manifest')}{_suffix(attempt)}.json"


def _suffix(number: int) -> str:
    return "" if number == 1 else f"-{number}"


def attempt_of(key: str) -> int | None:
    """Return the attempt of a plan, a list of exports or a run manifest, or None for any other key."""
    match = _RUN_DOCUMENT.fullmatch(key.rpartition("/")[2])
    return int(match[1] or 1) if match else None


def failure_key(run_id: str, attempt: int, export_id: str) -> str:
    """Return the key of the record of a failed export in an attempt."""
    return f"{run_folder(run_id)}_failures/attempt={attempt}/{export_id}.json"


def parts_folder(run_id: str, attempt: int, export_id: str) -> str:
    """Return the prefix of the parts of an export in an attempt, ending with a slash.

    The parts are not used after the export is archived, and a lifecycle rule expires them.
    """
    return f"{PARTS}dt={run_day(run_id)}/run={run_id}/{export_id}/attempt={attempt}/"


def part_key(folder: str, number: int, digest: str) -> str:
    """Return the key of a part. The digest distinguishes parts with the same number from different invocations."""
    return f"{folder}{number:05d}-{digest[:16]}.ndjson.gz"


def part_record_key(folder: str, number: int) -> str:
    """Return the key of the record of a part."""
    return f"{folder}{number:05d}.json"


def report_key(run_id: str, attempt: int) -> str:
    """Return the key of the report of an attempt."""
    return f"{reports_folder(run_id)}index{_suffix(attempt)}.html"


def verification_key(moment: datetime) -> str:
    """Return the key of the record of the verification that started at ``moment`` (UTC)."""
    return f"{VERIFICATIONS}dt={moment:%Y-%m-%d}/{moment:%Y%m%dT%H%M%SZ}.json"


def outcomes_folder(source: str, day: str) -> str:
    """Return the prefix of the outcome records of a source on a day such as ``2026-11-21``, ending with a slash."""
    return f"{OUTCOMES}source={source}/dt={day}/"


def outcome_key(source: str, day: str, message_id: str, part: int = 1) -> str:
    """Return the key of a part of a message's outcome records. ``day`` is a date such as ``2026-11-21``."""
    return f"{outcomes_folder(source, day)}{message_id}{_suffix(part)}.ndjson"
