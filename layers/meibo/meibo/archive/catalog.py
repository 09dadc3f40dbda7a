"""What an archive holds, as its keys and run manifests tell it: runs, exports, and which attempt of a run counts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from meibo.archive.keys import ExportAddress, attempt_of, run_folder
from meibo.archive.reader import ArchiveReader, read_document

_FOLDER = re.compile(
    r"archive/provider=(?P<provider>[^/]+)/source=(?P<source>[^/]+)/dataset=(?P<dataset>[^/]+)/format=(?P<format>[^/]+)"
    r"/scope=(?P<scope>[^/]+)/dt=(?P<dt>[0-9-]{10})/run=(?P<run_id>[0-9]{8}T[0-9]{6}Z)/"
)


@dataclass(frozen=True)
class ExportFolder:
    """The folder that one export's archive of one run has, taken apart."""

    address: ExportAddress
    run_id: str

    @property
    def key(self) -> str:
        """The folder's prefix, ending with a slash."""
        return self.address.folder(self.run_id)

    @classmethod
    def of(cls, key: str) -> Self | None:
        """Return the folder that a key lies in, or None where it lies in none of ours."""
        match = _FOLDER.match(key)
        if match is None:
            return None
        parts = match.groupdict()
        run_id = parts.pop("run_id")
        dt = parts.pop("dt")
        if dt != f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}":
            return None
        return cls(ExportAddress(**parts), run_id)


@dataclass(frozen=True)
class ArchivedExport:
    """One export of a run, as the run's manifest repeats it."""

    folder: ExportFolder
    key: str
    manifest_key: str
    bytes: int
    rows: int | None
    sha256: str
    verdict: str

    @property
    def export_id(self) -> str:
        """The export's name within its run."""
        return self.folder.address.export_id

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self | None:
        """Read an entry of a run manifest, or return None where it lacks what every entry has."""
        try:
            folder = ExportFolder.of(entry["manifest_key"])
            values = (entry["key"], entry["manifest_key"], int(entry["bytes"]), entry["rows"], entry["sha256"])
            return None if folder is None else cls(folder, *values, verdict=entry["verdict"])
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class Run:
    """A run as its newest manifest tells it."""

    run_id: str
    manifest_key: str
    document: Mapping[str, Any]

    @property
    def exports(self) -> list[ArchivedExport]:
        """What the run archived; entries that cannot be read are left out, and verify tells of them."""
        entries = self.document.get("exports")
        found = [ArchivedExport.from_json(entry) for entry in (entries if isinstance(entries, list) else [])]
        return [export for export in found if export is not None]

    @property
    def missing(self) -> list[Mapping[str, Any]]:
        """The exports that the run could not archive, with error and reason."""
        entries = self.document.get("missing")
        return [entry for entry in (entries if isinstance(entries, list) else []) if isinstance(entry, dict)]


def suspicion(archive: ArchiveReader, export: ArchivedExport) -> str:
    """Return why an export is suspect, as its manifest says: counts and words, nothing of any user."""
    sanity = (read_document(archive, export.manifest_key) or {}).get("sanity")
    reason = sanity.get("reason") if isinstance(sanity, dict) else None
    return reason if isinstance(reason, str) else "its manifest does not say why"


def run_ids(archive: ArchiveReader) -> Iterator[str]:
    """Yield the ids of all runs that have a folder, latest first, a day at a time."""
    for day in sorted(archive.folders("runs/"), reverse=True):
        for folder in sorted(archive.folders(day), reverse=True):
            name = folder.rstrip("/").rpartition("/run=")[2]
            if re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", name):
                yield name


def find_run(archive: ArchiveReader, run_id: str) -> Run | None:
    """Return a run by its newest manifest, or None where it has none that can be read: it never ended."""
    manifests: dict[int, str] = {}
    for listed in archive.list(f"{run_folder(run_id)}_manifest"):
        attempt = attempt_of(listed.key)
        if attempt is not None:
            manifests[attempt] = listed.key
    for _, key in sorted(manifests.items(), reverse=True):
        document = read_document(archive, key)
        if document is not None:
            return Run(run_id, key, document)
    return None


def runs(archive: ArchiveReader) -> Iterator[Run]:
    """Yield the runs that ended, latest first."""
    for run_id in run_ids(archive):
        run = find_run(archive, run_id)
        if run is not None:
            yield run
