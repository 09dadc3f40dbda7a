"""Manifests: the JSON documents that are written last, beside an archived object or for a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from meibo.archive.keys import ExportAddress, ExportFolder
from meibo.archive.storage import StoredDocument
from meibo.documents import FLATTEN, SKIP_INVALID, Document, InvalidFieldError, PositiveInt

Verdict = Literal["ok", "suspect"]


@dataclass(frozen=True, kw_only=True)
class Manifest(StoredDocument):
    """Base class of the manifests."""

    version_key: ClassVar[str | None] = "manifest_version"


@dataclass(frozen=True, kw_only=True)
class ManifestJob:
    """The provider's job that created a file."""

    id: str
    created_at: str


@dataclass(frozen=True, kw_only=True)
class ObjectChecksum:
    """The checksum of a complete object as S3 stores it. ``value`` is encoded in base64."""

    algorithm: str
    type: str
    value: str


@dataclass(frozen=True, kw_only=True)
class ArchivedObject:
    """An archived file as it is stored. ``version_id`` is None in a folder and in a bucket without versioning."""

    bucket: str
    key: str
    version_id: str | None
    bytes: int
    sha256: str
    checksum: ObjectChecksum


@dataclass(frozen=True, kw_only=True)
class ArchivedContent:
    """The content of an archived file. ``rows``, ``uncompressed_bytes`` and ``columns`` are None if they are unknown.

    ``columns`` contains the names in the header row of a CSV file, or the keys of the first NDJSON rows. If a CSV file
    has no header row, it is the number of columns. ``notes`` contains counts and ids that only some datasets have, such
    as the number of organizations.
    """

    gzip: bool
    rows: int | None
    uncompressed_bytes: int | None
    columns: tuple[str, ...] | int | None
    notes: Annotated[Mapping[str, Any], FLATTEN] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sanity(Document):
    """The comparison of the number of rows with earlier runs of the same export.

    ``baseline_run_id`` and ``baseline_rows`` describe the last run in which the export was not suspect. ``reason``
    states why the export is suspect. Runs before the date ``accept_from`` are not compared.
    """

    verdict: Verdict
    previous_run_id: str | None
    previous_rows: int | None
    baseline_run_id: str | None
    baseline_rows: int | None
    accept_from: str | None = None
    reason: str | None = None

    @classmethod
    def upgraded(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the document with a baseline. Early versions did not write a baseline, so the previous run is used."""
        if "baseline_run_id" in document:
            return document
        previous = {f"baseline_{name}": document.get(f"previous_{name}") for name in ("run_id", "rows")}
        return {**document, **previous}


@dataclass(frozen=True, kw_only=True)
class ArchivingDetails:
    """The time at which the export was archived, and the version of Meibo. Times are UTC in ISO 8601.

    ``read_back`` is true if the digests were computed from the stored object and not during the copy.
    """

    started_at: str
    finished_at: str
    meibo_version: str
    read_back: bool


@dataclass(frozen=True, kw_only=True)
class ExportManifest(Manifest):
    """The manifest of one export in one run, stored beside its object.

    ``job`` is None if the export has no job, or if an earlier invocation completed the object.
    """

    run_id: str
    export_id: str
    address: Annotated[ExportAddress, FLATTEN]
    request: Mapping[str, Any]
    job: ManifestJob | None
    object: ArchivedObject
    content: ArchivedContent
    sanity: Sanity
    archived: ArchivingDetails

    def __post_init__(self) -> None:
        if self.export_id != self.address.export_id:
            raise InvalidFieldError("export_id", f"expected {self.address.export_id}, found a different id")

    @property
    def folder(self) -> ExportFolder:
        """The folder of the export in the run."""
        return ExportFolder(self.address, self.run_id)


@dataclass(frozen=True, kw_only=True)
class ArchivedExport(Document):
    """The entry of the run manifest for an archived export. Its values are copied from the export's manifest."""

    derived: ClassVar[tuple[str, ...]] = ("export_id",)

    manifest_key: str
    key: str
    bytes: int
    sha256: str
    rows: int | None
    verdict: Verdict

    def __post_init__(self) -> None:
        _ = self.folder

    @cached_property
    def folder(self) -> ExportFolder:
        """The export's folder in the run."""
        folder = ExportFolder.of(self.manifest_key)
        if folder is None or folder.manifest_key != self.manifest_key:
            raise InvalidFieldError("manifest_key", "expected the key of an export's manifest")
        return folder

    @property
    def export_id(self) -> str:
        """The id of the export in its run."""
        return self.folder.address.export_id

    @classmethod
    def of(cls, manifest: ExportManifest) -> Self:
        """Return the entry for an export's manifest."""
        return cls(
            manifest_key=manifest.folder.manifest_key,
            key=manifest.object.key,
            bytes=manifest.object.bytes,
            sha256=manifest.object.sha256,
            rows=manifest.content.rows,
            verdict=manifest.sanity.verdict,
        )


@dataclass(frozen=True, kw_only=True)
class MissingExport:
    """The entry of the run manifest for an export that was not archived: the name of the error, and the reason."""

    export_id: str
    error: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunCounts:
    """The counts of a run. ``archived`` includes the suspect exports."""

    planned: int
    archived: int
    missing: int
    suspect: int
    bytes: int
    rows: int

    @classmethod
    def of(cls, exports: Iterable[ArchivedExport], missing: Iterable[MissingExport]) -> Self:
        """Return the counts of these exports."""
        exports, missing = list(exports), list(missing)
        return cls(
            planned=len(exports) + len(missing),
            archived=len(exports),
            missing=len(missing),
            suspect=sum(export.verdict == "suspect" for export in exports),
            bytes=sum(export.bytes for export in exports),
            rows=sum(export.rows or 0 for export in exports),
        )


@dataclass(frozen=True, kw_only=True)
class RunManifest(Manifest):
    """The manifest of a run, written at the end of an attempt. Times are UTC in ISO 8601.

    Invalid entries of ``exports`` and ``missing`` are skipped when the manifest is read. ``counts`` includes them, so
    ``meibo verify`` reports the difference.
    """

    run_id: str
    attempt: PositiveInt
    scheduled_time: str
    finished_at: str
    meibo_version: str
    complete: bool
    counts: RunCounts
    exports: Annotated[tuple[ArchivedExport, ...], SKIP_INVALID]
    missing: Annotated[tuple[MissingExport, ...], SKIP_INVALID]

    @property
    def suspects(self) -> tuple[ArchivedExport, ...]:
        """The suspect exports."""
        return tuple(export for export in self.exports if export.verdict == "suspect")


def timestamp(moment: datetime) -> str:
    """Return a UTC time in the format of the manifests, without fractions of a second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
