"""Verify archived exports: objects against their manifests, and the manifests against each other.

The run manifest repeats five values of each export's manifest: the key, the size, the number of rows, the SHA-256, and
the verdict (``ok`` or ``suspect``). A change to one of these values in only one of the two manifests is therefore
detected. A consistent change to the object and both manifests cannot be detected; see docs/reading.md.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, cast

from meibo.archive.content import Content, Facts, Format, Inspection
from meibo.archive.keys import (
    ARCHIVE,
    MANIFEST_NAME,
    ExportFolder,
    is_archive_key,
    reports_folder,
    run_documents,
    run_manifest_key,
    run_moment,
)
from meibo.archive.manifest import ArchivedExport, ExportManifest, RunCounts
from meibo.archive.runs import PlanAddresses, Run, find_run, run_ids
from meibo.archive.storage import ArchiveReader, ObjectStat, StoredObject
from meibo.clock import TimeLeft
from meibo.errors import ArchiveConflictError, BadFileError, OutOfTimeError

Damage = Literal[
    "missing object",
    "missing manifest",
    "missing run manifest",
    "altered manifest",
    "altered run manifest",
    "truncated",
    "longer",
    "different version",
    "different checksum",
    "different SHA-256",
    "invalid content",
    "different number of rows",
    "unexpected object",
]

# A run without a manifest may be in progress for this time after its scheduled time. A job may take up to 23 hours.
_MAX_RUN_DURATION: Final = timedelta(days=1)


@dataclass(frozen=True)
class Finding:
    """Damage to an object: its kind, the key of the object, and details. The details contain no values from rows."""

    # One of the values of ``Damage``, or a kind of damage that only another version of Meibo reports.
    damage: str
    key: str
    detail: str


@dataclass(frozen=True)
class VerificationTask:
    """The folder of one export in one run, its objects, and the export's entry in the run manifest."""

    folder: ExportFolder
    objects: tuple[StoredObject, ...]
    entry: ArchivedExport | None
    run_ended: bool = True

    @property
    def bytes(self) -> int:
        """The number of bytes to read."""
        return sum(stored.bytes for stored in self.objects if not stored.key.endswith(MANIFEST_NAME))


@dataclass(frozen=True)
class VerificationPlan:
    """The tasks of a verification, and the damage that was found during its planning.

    ``runs`` is the number of runs. ``running`` contains the ids of runs in progress, which are skipped.
    """

    tasks: tuple[VerificationTask, ...]
    findings: tuple[Finding, ...]
    runs: int
    running: tuple[str, ...] = ()


@dataclass
class _Findings:
    items: list[Finding] = field(default_factory=list)

    def add(self, damage: Damage, key: str, detail: str) -> None:
        self.items.append(Finding(damage, key, detail))


def plan_runs(
    archive: ArchiveReader,
    ids: Iterable[str],
    *,
    selects: Callable[[ExportFolder], bool] = lambda _: True,
    now: datetime | None = None,
) -> VerificationPlan:
    """Plan the verification of runs, in the given order, from their manifests and plans.

    Only the folders for which ``selects`` returns true are listed.
    """
    findings = _Findings()
    tasks: list[VerificationTask] = []
    unique_ids = list(dict.fromkeys(ids))
    running = []
    for run_id in unique_ids:
        run = find_run(archive, run_id)
        if run is None and _may_be_running(archive, run_id, now):
            running.append(run_id)
            continue
        entries = _entries(archive, run_id, run, findings)
        for folder in sorted({*entries, *_planned(archive, run_id)}, key=lambda folder: folder.key):
            if selects(folder):
                objects = tuple(archive.list(folder.key))
                if objects or folder in entries:
                    tasks.append(VerificationTask(folder, objects, entries.get(folder), run is not None))
    return VerificationPlan(tuple(tasks), tuple(findings.items), len(unique_ids), tuple(running))


def plan_everything(
    archive: ArchiveReader,
    *,
    prefixes: Iterable[str] = (ARCHIVE,),
    selects: Callable[[ExportFolder], bool] = lambda _: True,
    now: datetime | None = None,
) -> VerificationPlan:
    """Plan the verification of all objects below the prefixes, including objects that do not belong to a run."""
    findings = _Findings()
    folders: dict[ExportFolder, list[StoredObject]] = defaultdict(list)
    for prefix in prefixes:
        for stored in archive.list(prefix):
            folder = ExportFolder.of(stored.key)
            if folder is not None:
                folders[folder].append(stored)
            else:
                findings.add("unexpected object", stored.key, "is not in the folder of an export")
    entries: dict[ExportFolder, ArchivedExport] = {}
    ended: set[str] = set()
    running: set[str] = set()
    ids = {*run_ids(archive), *(folder.run_id for folder in folders)}
    for run_id in sorted(ids):
        run = find_run(archive, run_id)
        if run is not None:
            ended.add(run_id)
        elif _may_be_running(archive, run_id, now):
            running.add(run_id)
            continue
        entries |= _entries(archive, run_id, run, findings)
    tasks = [
        VerificationTask(folder, tuple(folders.get(folder, ())), entries.get(folder), folder.run_id in ended)
        for folder in sorted({*folders, *entries}, key=lambda folder: folder.key)
        if selects(folder) and folder.run_id not in running
    ]
    return VerificationPlan(tuple(tasks), tuple(findings.items), len(ids), tuple(sorted(running)))


def _may_be_running(archive: ArchiveReader, run_id: str, now: datetime | None) -> bool:
    is_recent = (now or datetime.now(UTC)) - run_moment(run_id) < _MAX_RUN_DURATION
    # An unreadable run manifest, or a report (written after the manifest), means that the run has ended.
    ended = (run_manifest_key(run_id, 1), reports_folder(run_id))
    return is_recent and all(next(archive.list(prefix), None) is None for prefix in ended)


def _planned(archive: ArchiveReader, run_id: str) -> Iterator[ExportFolder]:
    # Each repair writes a plan, which may contain exports that could not be resolved for the first plan.
    for key in archive.keys(run_documents(run_id, "plan")):
        try:
            addresses = PlanAddresses.from_json(archive.read_json(key), key).exports
        except ArchiveConflictError:
            continue
        for address in addresses:
            # The key is parsed, because a name in an altered plan could contain a slash.
            folder = ExportFolder.of(ExportFolder(address, run_id).key)
            if folder is not None:
                yield folder


def _entries(
    archive: ArchiveReader, run_id: str, run: Run | None, findings: _Findings
) -> dict[ExportFolder, ArchivedExport]:
    if run is None:
        key = next(archive.keys(run_manifest_key(run_id, 1)), None)
        if key:
            findings.add("altered run manifest", key, "is not a run manifest")
        else:
            key = run_manifest_key(run_id, 1)
            findings.add("missing run manifest", key, "the run did not write a manifest, or the manifest was deleted")
        return {}
    recorded = run.manifest.counts
    counts = RunCounts.of(run.exports, run.missing)
    for name in RunCounts.__dataclass_fields__:
        expected, listed = getattr(recorded, name), getattr(counts, name)
        if expected != listed:
            detail = f"counts.{name} is {expected}, but the lists in this manifest contain {listed}"
            findings.add("altered run manifest", run.manifest_key, detail)
    if run.manifest.run_id != run_id:
        findings.add("altered run manifest", run.manifest_key, "contains the id of another run")
    return {export.folder: export for export in run.exports if export.folder.run_id == run_id}


@dataclass(frozen=True)
class Verifier:
    """Verifies the folders of exports. Threads can share one instance.

    ``reads`` returns whether an object with the given properties is read. If it is not read, only its size, version and
    checksum are compared with its manifest (a quick verification). ``advance`` is called with the number of bytes of
    each chunk. ``time_left`` returns the seconds that remain for reading.
    """

    archive: ArchiveReader
    reads: Callable[[ObjectStat], bool] = lambda _: True
    advance: Callable[[int], None] = lambda _: None
    time_left: TimeLeft | None = None

    def verify(self, task: VerificationTask) -> list[Finding]:
        """Return the damage in the folder of one export. Raises OutOfTimeError if no time remains for reading."""
        findings = _Findings()
        manifest_key = task.folder.manifest_key
        manifest = self._manifest(manifest_key, findings)
        keys = {stored.key for stored in task.objects}
        key = manifest.object.key if manifest else (task.entry.key if task.entry else None)
        if manifest:
            _compare(task, manifest, findings)
        for extra in sorted(keys - {manifest_key, key}):
            if manifest or task.entry or task.run_ended:
                findings.add("unexpected object", extra, "no manifest refers to it")
        if manifest and _is_in(task.folder, manifest.object.key):
            self._object(manifest, findings)
        elif key is not None and key not in keys:
            findings.add("missing object", key, "the run manifest refers to this object, but it does not exist")
        return findings.items

    def _manifest(self, key: str, findings: _Findings) -> ExportManifest | None:
        try:
            manifest = ExportManifest.read(self.archive, key)
        except ArchiveConflictError as error:
            findings.add("altered manifest", key, error.detail)
            return None
        if manifest is None:
            findings.add("missing manifest", key, "an object without a manifest does not count as archived")
        return manifest

    def _object(self, manifest: ExportManifest, findings: _Findings) -> None:
        key = manifest.object.key
        stat = self.archive.stat(key)
        if stat is None:
            findings.add("missing object", key, "its manifest refers to this object, but it does not exist")
            return
        _compare_stat(stat, manifest, findings)
        if not self.reads(stat):
            return
        version = manifest.object.version_id if stat.version_id is not None else None
        if version is not None and version != stat.version_id and self.archive.stat(key, version) is None:
            findings.add("missing object", key, "the version in its manifest does not exist")
            return
        self._content(key, version, manifest, findings)

    def _content(self, key: str, version: str | None, manifest: ExportManifest, findings: _Findings) -> None:
        digest, count = hashlib.sha256(), 0
        inspection: Inspection | None = Inspection(_expected_content(manifest))
        facts: Facts | None = None
        fault: str | None = None
        for chunk in self.archive.chunks(key, version):
            digest.update(chunk)
            count += len(chunk)
            if inspection is not None:
                try:
                    inspection.feed(memoryview(chunk))
                except BadFileError as error:
                    inspection, fault = None, str(error)
            self.advance(len(chunk))
            if self.time_left is not None and self.time_left() < 0:
                raise OutOfTimeError("expected to read the whole object, but the invocation ran out of time")
        if inspection is not None:
            try:
                facts = inspection.finish()
            except BadFileError as error:
                fault = str(error)
        expected = manifest.object
        has_wrong_size = any(finding.damage in ("truncated", "longer") for finding in findings.items)
        if count != expected.bytes and not has_wrong_size:
            findings.add(_size_damage(count, expected.bytes), key, f"has {count:,} bytes, expected {expected.bytes:,}")
        if digest.hexdigest() != expected.sha256:
            findings.add("different SHA-256", key, "expected the SHA-256 in its manifest, found a different SHA-256")
        if fault is not None:
            findings.add("invalid content", key, fault)
        if facts is None:
            return
        content = manifest.content
        if facts.gzip != content.gzip:
            form, other = ("gzip data", "plain data") if facts.gzip else ("plain data", "gzip data")
            findings.add("invalid content", key, f"is {form}, expected {other}")
        if content.rows is not None and facts.rows != content.rows:
            findings.add("different number of rows", key, f"has {facts.rows:,} rows, expected {content.rows:,}")


def _expected_content(manifest: ExportManifest) -> Content:
    format_, content = manifest.address.format, manifest.content
    return Content(
        format=cast("Format", format_ if format_ in ("csv", "ndjson") else "opaque"),
        # The manifest contains the names of the columns only if the first record of the CSV file is a header.
        header=format_ == "csv" and isinstance(content.columns, tuple),
        decode=content.uncompressed_bytes is not None,
    )


def _is_in(folder: ExportFolder, key: str) -> bool:
    return is_archive_key(key) and key.startswith(folder.key)


def _size_damage(count: int, expected: int) -> Damage:
    return "truncated" if count < expected else "longer"


def _compare_stat(stat: ObjectStat, manifest: ExportManifest, findings: _Findings) -> None:
    expected = manifest.object
    if stat.bytes != expected.bytes:
        findings.add(
            _size_damage(stat.bytes, expected.bytes),
            expected.key,
            f"has {stat.bytes:,} bytes, expected {expected.bytes:,}",
        )
    if stat.version_id and expected.version_id and stat.version_id != expected.version_id:
        findings.add("different version", expected.key, "the current version is not the version in its manifest")
    checksum = expected.checksum
    is_comparable = stat.checksum_algorithm == checksum.algorithm and stat.checksum_type in (None, checksum.type)
    if is_comparable and stat.checksum != checksum.value:
        detail = f"expected the {checksum.algorithm} in its manifest, but S3 reports a different value"
        findings.add("different checksum", expected.key, detail)


def _compare(task: VerificationTask, manifest: ExportManifest, findings: _Findings) -> None:
    key = task.folder.manifest_key
    if manifest.folder != task.folder:
        findings.add("altered manifest", key, "its export or run does not match its folder")
    if not _is_in(task.folder, manifest.object.key):
        findings.add("altered manifest", key, "contains the key of an object outside its folder")
    if task.entry is None:
        if task.run_ended:
            findings.add("unexpected object", key, "the run manifest does not contain this export")
        return
    entry = ArchivedExport.of(manifest)
    for name in ("key", "bytes", "sha256", "rows", "verdict"):
        if getattr(entry, name) != getattr(task.entry, name):
            findings.add("altered manifest", key, f"differs from the run manifest in {name}")
