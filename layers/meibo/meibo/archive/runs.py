"""List the runs of an archive, and read their manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from meibo.archive.keys import RUNS, ExportAddress, attempt_of, run_documents, run_id_of_folder
from meibo.archive.manifest import ArchivedExport, ExportManifest, MissingExport, RunManifest
from meibo.archive.storage import ArchiveReader
from meibo.documents import SKIP_INVALID, Document
from meibo.errors import ArchiveConflictError


@dataclass(frozen=True)
class Run:
    """A run and its newest manifest."""

    run_id: str
    manifest_key: str
    manifest: RunManifest

    @property
    def exports(self) -> tuple[ArchivedExport, ...]:
        """The archived exports."""
        return self.manifest.exports

    @property
    def missing(self) -> tuple[MissingExport, ...]:
        """The exports that were not archived."""
        return self.manifest.missing


def suspect_reason(archive: ArchiveReader, export: ArchivedExport) -> str:
    """Return the reason why an export is suspect, from its manifest. The reason contains no user data."""
    try:
        manifest = ExportManifest.read(archive, export.manifest_key)
    except ArchiveConflictError:
        manifest = None
    return (manifest.sanity.reason if manifest else None) or "its manifest does not contain a reason"


def run_ids(archive: ArchiveReader) -> Iterator[str]:
    """Yield the ids of all runs that have a folder, newest first. The days are listed one at a time."""
    for day in sorted(archive.folders(RUNS), reverse=True):
        for folder in sorted(archive.folders(day), reverse=True):
            run_id = run_id_of_folder(folder)
            if run_id is not None:
                yield run_id


def find_run(archive: ArchiveReader, run_id: str) -> Run | None:
    """Return a run with its newest valid manifest, or None if the run has no valid manifest.

    A run without a manifest is in progress or was terminated.
    """
    manifests = {attempt_of(key): key for key in archive.keys(run_documents(run_id, "manifest"))}
    for attempt in sorted((attempt for attempt in manifests if attempt is not None), reverse=True):
        try:
            manifest = RunManifest.read(archive, manifests[attempt])
        except ArchiveConflictError:
            continue
        if manifest is not None:
            return Run(run_id, manifests[attempt], manifest)
    return None


@dataclass(frozen=True, kw_only=True)
class PlanAddresses(Document):
    """The addresses of the exports in a plan. Invalid exports are skipped.

    Unlike ``meibo.exports.plan.Plan``, this class accepts providers that are unknown to this version of Meibo.
    """

    version_key: ClassVar[str | None] = "plan_version"

    exports: Annotated[tuple[ExportAddress, ...], SKIP_INVALID]


def runs(archive: ArchiveReader) -> Iterator[Run]:
    """Yield the runs that have a valid manifest, newest first."""
    for run_id in run_ids(archive):
        run = find_run(archive, run_id)
        if run is not None:
            yield run
