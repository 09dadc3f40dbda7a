"""Manifests: the JSON documents, written last, that make an archived object or a run count."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Self, TypeVar

from meibo.archive.keys import ExportAddress, ExportFolder
from meibo.archive.storage import ArchiveReader
from meibo.documents import Fields
from meibo.errors import ArchiveConflictError

_Entry = TypeVar("_Entry")

MANIFEST_VERSION: Final = 1

Verdict = Literal["ok", "suspect"]
_VERDICTS: Final[dict[str, Verdict]] = {"ok": "ok", "suspect": "suspect"}
_CONTENT: Final = frozenset({"gzip", "rows", "uncompressed_bytes", "columns"})


@dataclass(frozen=True, kw_only=True)
class ManifestJob:
    """The provider's job that produced a file."""

    id: str
    created_at: str


@dataclass(frozen=True, kw_only=True)
class ObjectChecksum:
    """The checksum of a whole object as S3 has it; ``value`` is base64."""

    algorithm: str
    type: str
    value: str


@dataclass(frozen=True, kw_only=True)
class ArchivedObject:
    """An archived file as it is stored; ``version_id`` is None in a bucket without versions."""

    bucket: str
    key: str
    version_id: str | None
    bytes: int
    sha256: str
    checksum: ObjectChecksum


@dataclass(frozen=True, kw_only=True)
class ArchivedContent:
    """The content of an archived file. ``rows``, ``uncompressed_bytes`` and ``columns`` are None if not known.

    ``columns`` is an integer for a CSV file without a header row. ``notes`` are counts and ids that only some providers
    report, such as the number of organizations.
    """

    gzip: bool
    rows: int | None
    uncompressed_bytes: int | None
    columns: tuple[str, ...] | int | None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, with the notes beside the fields."""
        return {
            "gzip": self.gzip,
            "rows": self.rows,
            "uncompressed_bytes": self.uncompressed_bytes,
            "columns": list(self.columns) if isinstance(self.columns, tuple) else self.columns,
            **self.notes,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        """Read the JSON form."""
        columns = fields.document.get("columns")
        return cls(
            gzip=fields.boolean("gzip"),
            rows=fields.optional_integer("rows"),
            uncompressed_bytes=fields.optional_integer("uncompressed_bytes"),
            columns=tuple(map(str, columns)) if isinstance(columns, list) else fields.optional_integer("columns"),
            notes={name: value for name, value in fields.document.items() if name not in _CONTENT},
        )


@dataclass(frozen=True, kw_only=True)
class Sanity:
    """The comparison of an export's rows with earlier exports.

    ``baseline_run_id`` and ``baseline_rows`` are of the last export that was not suspect. ``reason`` states why the
    export is suspect; ``accept_from`` is the date from which the number of rows was accepted.
    """

    verdict: Verdict
    previous_run_id: str | None = None
    previous_rows: int | None = None
    baseline_run_id: str | None = None
    baseline_rows: int | None = None
    accept_from: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, without ``accept_from`` and ``reason`` if they have no value."""
        optional = ("accept_from", "reason")
        return {name: value for name, value in asdict(self).items() if value is not None or name not in optional}

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        """Read the JSON form. A manifest without a baseline is of an early version: its previous export replaces it."""
        baseline = "baseline" if "baseline_run_id" in fields.document else "previous"
        return cls(
            verdict=fields.choice("verdict", _VERDICTS),
            previous_run_id=fields.optional_string("previous_run_id"),
            previous_rows=fields.optional_integer("previous_rows"),
            baseline_run_id=fields.optional_string(f"{baseline}_run_id"),
            baseline_rows=fields.optional_integer(f"{baseline}_rows"),
            accept_from=fields.optional_string("accept_from"),
            reason=fields.optional_string("reason"),
        )


@dataclass(frozen=True, kw_only=True)
class ExportManifest:
    """The manifest of one export of a run, beside its object.

    ``job`` is None if the export has no job, or if the object was completed by an earlier invocation. ``read_back`` is
    true if the digests were computed from the stored object. Times are UTC in ISO 8601.
    """

    run_id: str
    address: ExportAddress
    request: Mapping[str, Any]
    job: ManifestJob | None
    object: ArchivedObject
    content: ArchivedContent
    sanity: Sanity
    started_at: str
    finished_at: str
    meibo_version: str
    read_back: bool

    @property
    def folder(self) -> ExportFolder:
        """The folder that the manifest describes."""
        return ExportFolder(self.address, self.run_id)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "manifest_version": MANIFEST_VERSION,
            "run_id": self.run_id,
            "export_id": self.address.export_id,
            **asdict(self.address),
            "request": dict(self.request),
            "job": asdict(self.job) if self.job else None,
            "object": asdict(self.object),
            "content": self.content.to_json(),
            "sanity": self.sanity.to_json(),
            "archived": {
                "started_at": self.started_at,
                "finished_at": self.finished_at,
                "meibo_version": self.meibo_version,
                "read_back": self.read_back,
            },
        }

    @classmethod
    def from_json(cls, document: Any, key: str) -> Self:
        """Read the JSON form; ``key`` names it in errors.

        Raises ArchiveConflictError if the document is not a manifest, and ConfigurationError if a later version of
        Meibo wrote it.
        """
        fields = Fields(document, key)
        fields.check_version("manifest_version", MANIFEST_VERSION)
        stored, archived = fields.object("object"), fields.object("archived")
        checksum, job = stored.object("checksum"), fields.optional_object("job")
        address = ExportAddress.from_json(fields)
        if fields.string("export_id") != address.export_id:
            detail = f"export_id: expected {address.export_id}, found another export"
            raise ArchiveConflictError(f"{key}.{detail}", detail=detail)
        return cls(
            run_id=fields.string("run_id"),
            address=address,
            request=fields.object("request").document,
            job=ManifestJob(id=job.string("id"), created_at=job.string("created_at")) if job else None,
            object=ArchivedObject(
                bucket=stored.string("bucket"),
                key=stored.string("key"),
                version_id=stored.optional_string("version_id"),
                bytes=stored.integer("bytes"),
                sha256=stored.string("sha256"),
                checksum=ObjectChecksum(**{name: checksum.string(name) for name in ("algorithm", "type", "value")}),
            ),
            content=ArchivedContent.from_json(fields.object("content")),
            sanity=Sanity.from_json(fields.object("sanity")),
            started_at=archived.string("started_at"),
            finished_at=archived.string("finished_at"),
            meibo_version=archived.string("meibo_version"),
            read_back=archived.boolean("read_back"),
        )

    @classmethod
    def read(cls, archive: ArchiveReader, key: str) -> Self | None:
        """Return a manifest of the archive, or None if it does not exist. Errors as in ``from_json``."""
        document = archive.read_json(key)
        return None if document is None else cls.from_json(document, key)


@dataclass(frozen=True, kw_only=True)
class ArchivedExport:
    """An archived export in the manifest of its run, which repeats these values of the export's manifest."""

    folder: ExportFolder
    key: str
    bytes: int
    sha256: str
    rows: int | None
    verdict: Verdict

    @property
    def export_id(self) -> str:
        """The export's name within its run."""
        return self.folder.address.export_id

    @property
    def manifest_key(self) -> str:
        """Key of the export's manifest."""
        return self.folder.manifest_key

    @classmethod
    def of(cls, manifest: ExportManifest) -> Self:
        """Return the entry of an export."""
        return cls(
            folder=manifest.folder,
            key=manifest.object.key,
            bytes=manifest.object.bytes,
            sha256=manifest.object.sha256,
            rows=manifest.content.rows,
            verdict=manifest.sanity.verdict,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "export_id": self.export_id,
            "manifest_key": self.manifest_key,
            **{name: getattr(self, name) for name in ("key", "bytes", "sha256", "rows", "verdict")},
        }

    @classmethod
    def from_json(cls, document: Any, name: str) -> Self:
        """Read the JSON form, raising ArchiveConflictError if it is not an entry."""
        fields = Fields(document, name)
        folder = ExportFolder.of(fields.string("manifest_key"))
        if folder is None or folder.manifest_key != fields.string("manifest_key"):
            raise ArchiveConflictError(f"{name}.manifest_key: expected the key of an export's manifest")
        return cls(
            folder=folder,
            key=fields.string("key"),
            bytes=fields.integer("bytes"),
            sha256=fields.string("sha256"),
            rows=fields.optional_integer("rows"),
            verdict=fields.choice("verdict", _VERDICTS),
        )


@dataclass(frozen=True, kw_only=True)
class MissingExport:
    """An export that was not archived: the name of the error, and the reason."""

    export_id: str
    error: str
    reason: str

    @classmethod
    def from_json(cls, document: Any, name: str) -> Self:
        """Read the JSON form, raising ArchiveConflictError if it is not an entry."""
        fields = Fields(document, name)
        return cls(**{name: fields.string(name) for name in ("export_id", "error", "reason")})


@dataclass(frozen=True, kw_only=True)
class RunCounts:
    """The counts of a run; ``suspect`` exports are archived, too."""

    planned: int
    archived: int
    missing: int
    suspect: int
    bytes: int
    rows: int

    @classmethod
    def of(cls, exports: Iterable[ArchivedExport], missing: Iterable[MissingExport]) -> Self:
        """Count the exports of a run."""
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
class RunManifest:
    """The manifest of a run, written when an attempt has ended. Times are UTC in ISO 8601.

    ``counts`` are the counts as they are recorded; entries that cannot be read are in none of the lists, so that
    ``meibo verify`` reports the difference.
    """

    run_id: str
    attempt: int
    scheduled_time: str
    finished_at: str
    meibo_version: str
    complete: bool
    counts: RunCounts
    exports: tuple[ArchivedExport, ...]
    missing: tuple[MissingExport, ...]

    @property
    def suspects(self) -> tuple[ArchivedExport, ...]:
        """The suspect exports."""
        return tuple(export for export in self.exports if export.verdict == "suspect")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "manifest_version": MANIFEST_VERSION,
            **{name: getattr(self, name) for name in ("run_id", "attempt", "scheduled_time", "finished_at")},
            "meibo_version": self.meibo_version,
            "complete": self.complete,
            "counts": asdict(self.counts),
            "exports": [export.to_json() for export in self.exports],
            "missing": [asdict(export) for export in self.missing],
        }

    @classmethod
    def from_json(cls, document: Any, key: str) -> Self:
        """Read the JSON form; ``key`` names it in errors, which are the same as of ``ExportManifest.from_json``."""
        fields = Fields(document, key)
        fields.check_version("manifest_version", MANIFEST_VERSION)
        counts = fields.object("counts")
        return cls(
            run_id=fields.string("run_id"),
            attempt=fields.integer("attempt", minimum=1),
            scheduled_time=fields.string("scheduled_time"),
            finished_at=fields.string("finished_at"),
            meibo_version=fields.string("meibo_version"),
            complete=fields.boolean("complete"),
            counts=RunCounts(**{name: counts.integer(name) for name in RunCounts.__dataclass_fields__}),
            exports=_readable(ArchivedExport.from_json, fields, "exports"),
            missing=_readable(MissingExport.from_json, fields, "missing"),
        )

    @classmethod
    def read(cls, archive: ArchiveReader, key: str) -> Self | None:
        """Return a run manifest of the archive, or None if it does not exist. Errors as in ``from_json``."""
        document = archive.read_json(key)
        return None if document is None else cls.from_json(document, key)


def _readable(from_json: Callable[[Any, str], _Entry], fields: Fields, key: str) -> tuple[_Entry, ...]:
    entries = []
    for number, entry in enumerate(fields.items(key)):
        with contextlib.suppress(ArchiveConflictError):
            entries.append(from_json(entry, f"{fields.name}.{key}[{number}]"))
    return tuple(entries)


def timestamp(moment: datetime) -> str:
    """Return an aware UTC time as manifests contain it, without fractions of a second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
