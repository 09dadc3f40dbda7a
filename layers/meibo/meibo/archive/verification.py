"""Verify archived exports: what is stored against what the manifests say, and the manifests against each other.

The run manifest repeats key, bytes, rows, SHA-256 and verdict of each export's manifest, so that a change of either
shows. Who changes the object and both manifests alike is not found by reading; see docs/reading.md.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, cast

from meibo.archive.catalog import ArchivedExport, ExportFolder, Run, find_run, run_ids
from meibo.archive.copy.content import Facts, Inspection
from meibo.archive.copy.model import Content, Format
from meibo.archive.keys import reports_folder, run_folder, run_moment
from meibo.archive.reader import ArchiveReader, Listed, Stat, is_archive_key, read_document
from meibo.errors import CorruptFileError, FileTooLargeError, MeiboError, OutOfTimeError, WrongFormatError

Damage = Literal[
    "missing object",
    "missing manifest",
    "missing run manifest",
    "altered manifest",
    "altered run manifest",
    "truncated",
    "longer",
    "other version",
    "other checksum",
    "other digest",
    "broken content",
    "other rows",
    "unexpected extra",
]

MANIFEST_NAME: Final = "_manifest.json"
_MAY_STILL_GO = timedelta(days=1)
"""A run this young without a manifest may still be under way: Auth0 keeps a job for a day."""


@dataclass(frozen=True)
class Finding:
    """One damage: what kind, where, and what is the matter. Never a row's content."""

    damage: Damage
    key: str
    detail: str


@dataclass(frozen=True)
class VerificationTask:
    """One export's folder of one run to verify: what is listed in it, and the run manifest's entry if it has one."""

    folder: ExportFolder
    listed: tuple[Listed, ...]
    entry: ArchivedExport | None
    run_ended: bool = True

    @property
    def bytes(self) -> int:
        """How much there is to read."""
        return sum(one.bytes for one in self.listed if not one.key.endswith(MANIFEST_NAME))


@dataclass(frozen=True)
class VerificationPlan:
    """What is to be verified, and what was found while it was put together."""

    tasks: tuple[VerificationTask, ...]
    findings: tuple[Finding, ...]
    runs: int
    under_way: tuple[str, ...] = ()


@dataclass
class _Damages:
    found: list[Finding] = field(default_factory=list)

    def add(self, damage: Damage, key: str, detail: str) -> None:
        self.found.append(Finding(damage, key, detail))


def plan_runs(
    archive: ArchiveReader,
    ids: Iterable[str],
    *,
    wanted: Callable[[ExportFolder], bool] = lambda _: True,
    now: datetime | None = None,
) -> VerificationPlan:
    """Plan the verification of some runs, in the given order, by what their manifests list.

    Each export's folder is listed.
    """
    damages = _Damages()
    tasks: list[VerificationTask] = []
    chosen = list(dict.fromkeys(ids))
    under_way = []
    for run_id in chosen:
        run = find_run(archive, run_id)
        if run is None and _may_still_go(archive, run_id, now):
            under_way.append(run_id)
            continue
        entries = _entries(archive, run_id, run, damages)
        for folder in sorted({*entries, *_planned(archive, run_id)}, key=lambda one: one.key):
            if wanted(folder):
                listed = tuple(archive.list(folder.key))
                if listed or folder in entries:
                    tasks.append(VerificationTask(folder, listed, entries.get(folder), run is not None))
    return VerificationPlan(tuple(tasks), tuple(damages.found), len(chosen), tuple(under_way))


def plan_everything(
    archive: ArchiveReader,
    *,
    prefixes: Iterable[str] = ("archive/",),
    wanted: Callable[[ExportFolder], bool] = lambda _: True,
    now: datetime | None = None,
) -> VerificationPlan:
    """Plan the verification of all that lies below the prefixes, so that what belongs to no run is found too."""
    damages = _Damages()
    folders: dict[ExportFolder, list[Listed]] = defaultdict(list)
    for prefix in prefixes:
        for one in archive.list(prefix):
            folder = ExportFolder.of(one.key)
            if folder is not None:
                folders[folder].append(one)
            else:
                damages.add("unexpected extra", one.key, "lies in no folder of an export")
    entries: dict[ExportFolder, ArchivedExport] = {}
    ended: set[str] = set()
    under_way: set[str] = set()
    ids = {*run_ids(archive), *(folder.run_id for folder in folders)}
    for run_id in sorted(ids):
        run = find_run(archive, run_id)
        if run is not None:
            ended.add(run_id)
        elif _may_still_go(archive, run_id, now):
            under_way.add(run_id)
            continue
        entries |= _entries(archive, run_id, run, damages)
    tasks = [
        VerificationTask(folder, tuple(folders.get(folder, ())), entries.get(folder), folder.run_id in ended)
        for folder in sorted({*folders, *entries}, key=lambda one: one.key)
        if wanted(folder) and folder.run_id not in under_way
    ]
    return VerificationPlan(tuple(tasks), tuple(damages.found), len(ids), tuple(sorted(under_way)))


def _may_still_go(archive: ArchiveReader, run_id: str, now: datetime | None) -> bool:
    young = (now or datetime.now(UTC)) - run_moment(run_id) < _MAY_STILL_GO
    # A manifest that cannot be read, and the page that is written after it, show that the run did end.
    ended = (f"{run_folder(run_id)}{MANIFEST_NAME}", reports_folder(run_id))
    return young and all(next(archive.list(prefix), None) is None for prefix in ended)


def _planned(archive: ArchiveReader, run_id: str) -> Iterator[ExportFolder]:
    # A repair adds a plan of its own, which may hold exports that the first one could not resolve.
    plans = [read_document(archive, listed.key) or {} for listed in archive.list(f"{run_folder(run_id)}_plan")]
    for export in (export for plan in plans for export in plan.get("exports", ())):
        names = ("provider", "source", "dataset", "format", "scope")
        if isinstance(export, dict) and all(isinstance(export.get(name), str) for name in names):
            address = "/".join(f"{name}={export[name]}" for name in names)
            day = f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}"
            folder = ExportFolder.of(f"archive/{address}/dt={day}/run={run_id}/")
            if folder is not None:
                yield folder


def _entries(
    archive: ArchiveReader, run_id: str, run: Run | None, damages: _Damages
) -> dict[ExportFolder, ArchivedExport]:
    if run is None:
        spoiled = [one.key for one in archive.list(f"{run_folder(run_id)}{MANIFEST_NAME}")]
        if spoiled:
            damages.add("altered run manifest", spoiled[0], "holds no JSON object")
        else:
            damages.add(
                "missing run manifest",
                f"{run_folder(run_id)}{MANIFEST_NAME}",
                "the run never ended, or its manifest is gone",
            )
        return {}
    exports = run.exports
    counts = run.document.get("counts")
    told = counts if isinstance(counts, dict) else {}
    real = {
        "archived": len(exports),
        "missing": len(run.missing),
        "bytes": sum(one.bytes for one in exports),
        "rows": sum(one.rows or 0 for one in exports),
        "suspect": sum(one.verdict == "suspect" for one in exports),
    }
    for name, value in real.items():
        if told.get(name) != value:
            damages.add("altered run manifest", run.manifest_key, f"counts {told.get(name)} {name}, lists {value}")
    if run.document.get("run_id") != run_id:
        damages.add("altered run manifest", run.manifest_key, "names another run than the folder it lies in")
    return {export.folder: export for export in exports if export.folder.run_id == run_id}


class Verifier:
    """Verify one folder at a time; safe to share between threads.

    ``reads`` decides, from what the storage knows of an object, whether the object is read from end to end. If it is
    not, its size, version and checksum are compared with its manifest (a quick verification).
    """

    def __init__(
        self,
        archive: ArchiveReader,
        *,
        reads: Callable[[Stat], bool] = lambda _: True,
        advance: Callable[[int], None] = lambda _: None,
        deadline: Callable[[], float] | None = None,
    ) -> None:
        self._archive = archive
        self._reads = reads
        self._advance = advance
        self._deadline = deadline

    def verify(self, task: VerificationTask) -> list[Finding]:
        """Return the damage of one archived export."""
        damages = _Damages()
        manifest_key = task.folder.address.manifest_key(task.folder.run_id)
        manifest = _Manifest.read(self._archive, manifest_key, damages)
        keys = {one.key for one in task.listed}
        key = manifest.key if manifest else (task.entry.key if task.entry else None)
        if manifest is None and self._archive.stat(manifest_key) is None:
            damages.add("missing manifest", manifest_key, "an object counts only with its manifest")
        if manifest:
            _compare(task, manifest, manifest_key, damages)
        for extra in sorted(keys - {manifest_key, key}):
            if manifest or task.entry or task.run_ended:
                damages.add("unexpected extra", extra, "no manifest names it")
        if manifest and _lies_in(task.folder, manifest.key):
            self._object(manifest, damages)
        elif key is not None and key not in keys:
            damages.add("missing object", key, "the run manifest names it")
        return damages.found

    def _object(self, manifest: _Manifest, damages: _Damages) -> None:
        key = manifest.key
        stat = self._archive.stat(key)
        if stat is None:
            damages.add("missing object", key, "its manifest is there")
            return
        self._stat(key, stat, manifest, damages)
        if not self._reads(stat):
            return
        version = manifest.version_id if stat.version_id is not None else None
        if version is not None and version != stat.version_id and self._archive.stat(key, version) is None:
            damages.add("missing object", key, "the version that its manifest names is gone")
            return
        self._content(key, version, manifest, damages)

    def _stat(self, key: str, stat: Stat, manifest: _Manifest, damages: _Damages) -> None:
        if stat.bytes != manifest.bytes:
            damage: Damage = "truncated" if stat.bytes < manifest.bytes else "longer"
            damages.add(damage, key, f"has {stat.bytes:,} bytes, its manifest says {manifest.bytes:,}")
        if stat.version_id and manifest.version_id and stat.version_id != manifest.version_id:
            damages.add("other version", key, "the current version is not the one that its manifest names")
        comparable = stat.checksum_type in (None, manifest.checksum_type)
        if stat.checksum_algorithm == manifest.checksum_algorithm and comparable and stat.checksum != manifest.checksum:
            damages.add("other checksum", key, f"S3 knows another {stat.checksum_algorithm} than its manifest")

    def _content(self, key: str, version: str | None, manifest: _Manifest, damages: _Damages) -> None:
        digest, count = hashlib.sha256(), 0
        inspection: Inspection | None = Inspection(manifest.content)
        facts: Facts | None = None
        broken: str | None = None
        for chunk in self._archive.chunks(key, version):
            digest.update(chunk)
            count += len(chunk)
            if inspection is not None:
                try:
                    inspection.feed(memoryview(chunk))
                except (CorruptFileError, WrongFormatError, FileTooLargeError) as error:
                    inspection, broken = None, str(error)
            self._advance(len(chunk))
            if self._deadline is not None and self._deadline() < 0:
                raise OutOfTimeError("the invocation's time ends before the object is read")
        if inspection is not None:
            try:
                facts = inspection.finish()
            except MeiboError as error:
                broken = str(error)
        known = any(one.damage in ("truncated", "longer") for one in damages.found)
        if count != manifest.bytes and not known:
            damage: Damage = "truncated" if count < manifest.bytes else "longer"
            damages.add(damage, key, f"ended after {count:,} bytes of {manifest.bytes:,}")
        if digest.hexdigest() != manifest.sha256:
            damages.add("other digest", key, "does not have the SHA-256 of its manifest")
        if broken is not None:
            damages.add("broken content", key, broken)
        if facts is None:
            return
        if manifest.gzip is not None and facts.gzip != manifest.gzip:
            damages.add(
                "broken content", key, f"is {'' if facts.gzip else 'not '}gzip data, its manifest says otherwise"
            )
        if manifest.rows is not None and facts.rows != manifest.rows:
            damages.add("other rows", key, f"has {facts.rows:,} rows, its manifest says {manifest.rows:,}")


@dataclass(frozen=True)
class _Manifest:
    document: Mapping[str, Any]
    key: str
    version_id: str | None
    bytes: int
    sha256: str
    checksum_algorithm: str | None
    checksum_type: str | None
    checksum: str | None
    gzip: bool | None
    rows: int | None
    content: Content

    @classmethod
    def read(cls, archive: ArchiveReader, key: str, damages: _Damages) -> _Manifest | None:
        document = read_document(archive, key)
        if document is None:
            if archive.stat(key) is not None:
                damages.add("altered manifest", key, "holds no JSON object")
            return None
        try:
            told, content = document["object"], document["content"]
            checksum = told.get("checksum") or {}
            columns = content["columns"]
            return cls(
                document=document,
                key=str(told["key"]),
                version_id=told["version_id"],
                bytes=int(told["bytes"]),
                sha256=str(told["sha256"]),
                checksum_algorithm=checksum.get("algorithm"),
                checksum_type=checksum.get("type"),
                checksum=checksum.get("value"),
                gzip=content["gzip"],
                rows=content["rows"],
                content=Content(
                    format=cast("Format", document["format"] if document["format"] in ("csv", "ndjson") else "opaque"),
                    # Names of columns are known where the first record is a header.
                    header=document["format"] == "csv" and isinstance(columns, list),
                    decode=content["uncompressed_bytes"] is not None,
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            damages.add("altered manifest", key, "lacks what every manifest has")
            return None


def _lies_in(folder: ExportFolder, key: str) -> bool:
    return is_archive_key(key) and key.startswith(folder.key)


def _compare(task: VerificationTask, manifest: _Manifest, manifest_key: str, damages: _Damages) -> None:
    folder = task.folder
    address = folder.address
    for name, value in (
        ("run_id", folder.run_id),
        ("export_id", address.export_id),
        *((name, getattr(address, name)) for name in ("provider", "source", "dataset", "format", "scope")),
    ):
        if manifest.document.get(name) != value:
            damages.add("altered manifest", manifest_key, f"its {name} is not the one of the folder it lies in")
    if not _lies_in(folder, manifest.key):
        damages.add("altered manifest", manifest_key, "names an object outside its folder")
    if task.entry is None:
        if task.run_ended:
            damages.add("unexpected extra", manifest_key, "the run manifest does not list this export")
        return
    sanity = manifest.document.get("sanity")
    said = {
        "key": manifest.key,
        "bytes": manifest.bytes,
        "sha256": manifest.sha256,
        "rows": manifest.rows,
        "verdict": sanity.get("verdict") if isinstance(sanity, dict) else None,
    }
    for name, value in said.items():
        if value != getattr(task.entry, name):
            damages.add("altered manifest", manifest_key, f"differs from the run manifest in {name}")
