from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from meibo.archive.copy import Content, CopyResult, Counts, LocationSource, StreamSource
from meibo.archive.keys import run_id_of
from meibo.errors import ArchiveConflictError, CorruptFileError
from meibo.exports.archive import Archiver
from meibo.exports.checkpoint import Collected, Collector, Unfinished
from meibo.exports.events import CheckpointProgress, ExportEvent
from meibo.exports.plan import PlannedExport
from meibo.providers.base import Pages, ProviderContext
from tests.support.memory_archive import MemoryArchiveStore
from tests.unit.exports.conftest import RUN, TICK
from tests.unit.exports.test_check import EXPORT

FOLDER = f"archive/provider=auth0/source=acme/dataset=users/format=ndjson/scope=all/dt=2026-11-21/run={RUN}/"
KEY, MANIFEST = FOLDER + "users.ndjson.gz", FOLDER + "_manifest.json"
NEXT_RUN = "20261122T180000Z"


def result(rows: int | None = 10, sha256: str = "ab" * 32) -> CopyResult:
    return CopyResult(
        bytes=123,
        sha256=sha256,
        checksum="AAAAAAAAAAA=",
        checksum_algorithm="CRC64NVME",
        checksum_type="FULL_OBJECT",
        etag='"etag"',
        version_id="v1",
        gzip=True,
        rows=rows,
        columns=("user_id",),
        expanded_bytes=456,
        already_there=False,
        counts=Counts(),
    )


@dataclass
class FakeCopier:
    store: MemoryArchiveStore
    result: CopyResult
    error: Exception | None = None
    contents: list[Content] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)

    def copy(self, source: LocationSource | StreamSource, key: str, content: Content) -> CopyResult:
        if self.error:
            raise self.error
        self.copied.append(key)
        self.contents.append(content)
        self.store.objects[key] = b"the file"
        return self.result

    def read_back(self, key: str, content: Content) -> CopyResult:
        self.read.append(key)
        return replace(self.result, already_there=True)


@dataclass(frozen=True, kw_only=True)
class FakeCollected(Collected):
    def notes(self) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class FakeCollector(Collector):
    unfinished: Unfinished | None

    def collect(self, event: ExportEvent, pages: Pages) -> Collected | Unfinished:
        return self.unfinished or FakeCollected(store=self.store, parts=(), pages=pages)


@dataclass
class World:
    store: MemoryArchiveStore = field(default_factory=MemoryArchiveStore)
    rows: int | None = 10
    error: Exception | None = None
    export: PlannedExport = EXPORT
    unfinished: Unfinished | None = None
    copier: FakeCopier = field(init=False)

    def archive(self, run_id: str = RUN) -> dict[str, Any]:
        self.copier = FakeCopier(self.store, result(self.rows), self.error)
        archiver = Archiver(
            store=self.store,
            bucket="archive",
            copier=self.copier,
            collector=FakeCollector(store=self.store, time_left=lambda: 900.0, unfinished=self.unfinished),
            context=ProviderContext(lambda: 900.0),
            now=lambda: TICK,
        )
        return archiver.archive(ExportEvent(run_id, 1, self.export))


def test_the_manifest_is_written_beside_the_object() -> None:
    world = World()

    answer = world.archive()

    assert answer == {
        "export_id": "acme/users/ndjson/all",
        "status": "archived",
        "wait_seconds": 0,
        "progress": None,
        "rows": 10,
        "bytes": 123,
        "verdict": "ok",
    }
    manifest = world.store.get_json(MANIFEST)
    assert manifest is not None
    assert manifest["object"] == {
        "bucket": "archive",
        "key": KEY,
        "version_id": "v1",
        "bytes": 123,
        "sha256": "ab" * 32,
        "checksum": {"algorithm": "CRC64NVME", "type": "FULL_OBJECT", "value": "AAAAAAAAAAA="},
    }
    assert manifest["content"] == {"gzip": True, "rows": 10, "uncompressed_bytes": 456, "columns": ["user_id"]}
    assert manifest["job"]["id"] == "job_0000000000000001"
    assert manifest["request"] == {"fields": [{"name": "user_id"}]}
    assert manifest["run_id"] == RUN


def test_an_export_is_archived_once() -> None:
    world = World()
    first = world.archive()

    assert world.archive() == first
    assert world.copier.copied == []
    assert world.copier.read == []


def test_an_object_whose_manifest_is_missing_is_read_back_and_gets_one() -> None:
    # given: a try completed the object and vanished
    world = World()
    world.archive()
    del world.store.objects[MANIFEST]

    # when
    world.archive()

    # then: nothing is fetched again
    assert world.copier.copied == []
    assert world.copier.read == [KEY]
    manifest = world.store.get_json(MANIFEST)
    assert manifest is not None
    assert manifest["archived"]["read_back"] is True
    # the object may be from an earlier job than the one at hand
    assert manifest["job"] is None


def test_a_copy_that_fails_leaves_no_manifest() -> None:
    world = World(error=CorruptFileError("the file ends early"))

    with pytest.raises(CorruptFileError):
        world.archive()

    assert list(world.store.objects) == []


def test_a_manifest_of_another_file_is_a_conflict() -> None:
    world = World()

    class Racing(MemoryArchiveStore):
        def put_json(self, key: str, document: Any) -> bool:
            other = {**document, "object": {**document["object"], "sha256": "cd" * 32}}
            super().put_json(key, other)
            return False

    world.store = Racing()
    with pytest.raises(ArchiveConflictError, match="another file"):
        world.archive()


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(10, 5, "ok"), (10, 4, "suspect"), (0, 3, "ok"), (10, 0, "suspect"), (None, 1, "ok"), (10, None, "ok")],
)
def test_far_fewer_rows_than_last_time_are_suspect(before: int | None, after: int | None, verdict: str) -> None:
    world = World(rows=before)
    world.archive(RUN)
    world.rows = after

    assert world.archive(NEXT_RUN)["verdict"] == verdict


def test_a_suspect_export_names_the_reason_and_the_last_run() -> None:
    world = World(rows=10)
    world.archive(RUN)
    world.rows = 4
    world.archive(NEXT_RUN)

    manifest = world.store.get_json(MANIFEST.replace("dt=2026-11-21", "dt=2026-11-22").replace(RUN, NEXT_RUN))
    assert manifest is not None
    assert manifest["sanity"] == {
        "verdict": "suspect",
        "previous_run_id": RUN,
        "previous_rows": 10,
        "baseline_run_id": RUN,
        "baseline_rows": 10,
        "reason": "60 % fewer users than in the last export: 10 → 4",
    }


def test_an_empty_first_export_is_suspect() -> None:
    assert World(rows=0).archive()["verdict"] == "suspect"


@pytest.mark.parametrize(
    ("provider", "dataset", "verdict"),
    [
        ("auth0", "users", "suspect"),
        ("auth0", "organizations", "ok"),
        ("auth0", "members", "ok"),
        ("cybozu", "user_groups", "suspect"),
        ("cybozu", "titles", "ok"),
    ],
)
def test_datasets_that_a_directory_need_not_use_may_be_empty(provider: str, dataset: str, verdict: str) -> None:
    export = replace(EXPORT, provider=provider, dataset=dataset, format="csv" if provider == "cybozu" else "ndjson")

    assert World(rows=0, export=export).archive()["verdict"] == verdict


def test_a_dataset_that_may_be_empty_is_suspect_when_it_becomes_so() -> None:
    world = World(rows=10, export=replace(EXPORT, dataset="organizations"))
    world.archive()
    world.rows = 0

    assert world.archive(NEXT_RUN)["verdict"] == "suspect"


def test_an_export_that_goes_on_later_says_how_far_it_came_and_writes_nothing() -> None:
    members = replace(EXPORT, dataset="members", has_job=False, job=None)
    progress = CheckpointProgress(part=3, rows=70, organizations=9, skipped=0, moved_at=TICK)
    world = World(export=members, unfinished=Unfinished(progress=progress, wait_seconds=12))

    assert world.archive() == {
        "export_id": "acme/members/ndjson/all",
        "status": "continue",
        "wait_seconds": 12,
        "progress": progress.to_json(),
    }
    assert list(world.store.objects) == []


def test_a_last_export_of_long_ago_is_found_too() -> None:
    world = World(rows=10)
    world.archive("20240101T180000Z")
    world.rows = 1

    assert world.archive(RUN)["verdict"] == "suspect"


def test_a_repaired_old_run_is_compared_with_the_run_before_it() -> None:
    world = World(rows=10)
    world.archive("20261120T180000Z")
    world.rows = 1000
    world.archive(NEXT_RUN)
    world.rows = 9

    assert world.archive(RUN)["verdict"] == "ok"


class Daily:
    """Archives one export a day; the days count from the first run."""

    def __init__(self) -> None:
        self.world = World()

    def archive(self, day: int, rows: int | None, *, accept_from: str | None = None) -> dict[str, Any]:
        """Archive so many rows on a day and return the sanity of the manifest."""
        run_id = run_id_of(TICK + timedelta(days=day))
        export = replace(EXPORT, accept_from=accept_from)
        self.world.rows, self.world.export = rows, export
        self.world.archive(run_id)
        manifest = self.world.store.get_json(export.address.manifest_key(run_id))
        assert manifest is not None
        sanity: dict[str, Any] = manifest["sanity"]
        return sanity


def test_lasting_loss_is_suspect_for_30_days() -> None:
    daily = Daily()
    daily.archive(0, 10)

    sanities = [daily.archive(day, 4) for day in range(1, 33)]

    assert [one["verdict"] for one in sanities] == ["suspect"] * 30 + ["ok"] * 2
    assert sanities[0]["reason"] == "60 % fewer users than in the last export: 10 → 4"
    assert sanities[29]["reason"] == (f"60 % fewer users than in run {RUN} (the last one that was not suspect): 10 → 4")
    assert (sanities[29]["previous_rows"], sanities[29]["baseline_run_id"], sanities[29]["baseline_rows"]) == (
        4,
        RUN,
        10,
    )
    # From then on the new level is the measure.
    assert (sanities[31]["previous_rows"], sanities[31]["baseline_rows"]) == (4, 4)


def test_export_that_recovers_is_not_suspect() -> None:
    daily = Daily()
    daily.archive(0, 10)
    daily.archive(1, 4)

    assert daily.archive(2, 9)["verdict"] == "ok"
    assert daily.archive(3, 5)["verdict"] == "ok"
    assert daily.archive(4, 4)["verdict"] == "ok"


def test_second_loss_is_compared_with_the_last_export() -> None:
    daily = Daily()
    daily.archive(0, 10)
    daily.archive(1, 4)

    assert daily.archive(2, 1)["reason"] == "75 % fewer users than in the last export: 4 → 1"


def test_lasting_loss_of_everything_names_the_last_export_that_had_rows() -> None:
    daily = Daily()
    daily.archive(0, 10)

    assert daily.archive(1, 0)["reason"] == "no users; the last export had 10"
    assert daily.archive(2, 0)["reason"] == f"no users; run {RUN} (the last one that was not suspect) had 10"


def test_old_export_is_still_compared_with_the_previous_one() -> None:
    daily = Daily()
    daily.archive(0, 10)

    assert daily.archive(90, 4)["verdict"] == "suspect"
    # The last export that was not suspect is older than 30 days.
    assert daily.archive(91, 4)["verdict"] == "ok"


@pytest.mark.parametrize("day", [1, 2])
def test_accepted_level_is_the_new_measure(day: int) -> None:
    # given: a loss on the day after the first run
    daily = Daily()
    daily.archive(0, 10)
    daily.archive(1, 4)
    accepted = f"{TICK + timedelta(days=day):%Y-%m-%d}"

    # when
    sanity = daily.archive(2, 4, accept_from=accepted)

    # then: it is accepted, and a further loss is not
    assert (sanity["verdict"], sanity["accept_from"], sanity["baseline_run_id"]) == ("ok", accepted, None)
    assert daily.archive(3, 4, accept_from=accepted)["verdict"] == "ok"
    assert daily.archive(4, 1, accept_from=accepted)["verdict"] == "suspect"


def test_loss_is_accepted_before_it_happens() -> None:
    daily = Daily()
    daily.archive(0, 10)
    accepted = f"{TICK + timedelta(days=2):%Y-%m-%d}"

    # A date in the future is no reason to accept anything yet.
    assert daily.archive(1, 4, accept_from=accepted)["verdict"] == "suspect"
    assert daily.archive(2, 4, accept_from=accepted)["verdict"] == "ok"


def test_accepting_does_not_make_an_empty_directory_acceptable() -> None:
    daily = Daily()
    daily.archive(0, 10)

    assert daily.archive(1, 0, accept_from=f"{TICK + timedelta(days=1):%Y-%m-%d}")["verdict"] == "suspect"


def test_suspect_manifest_without_a_baseline_is_measured_by_the_one_before_it() -> None:
    # given: a manifest of a version that did not record the baseline
    daily = Daily()
    daily.archive(0, 10)
    sanity = daily.archive(1, 4)
    key = EXPORT.address.manifest_key(NEXT_RUN)
    manifest = daily.world.store.get_json(key)
    assert manifest is not None
    del daily.world.store.objects[key]
    names = ("baseline_run_id", "baseline_rows")
    daily.world.store.put_json(key, {**manifest, "sanity": {n: v for n, v in sanity.items() if n not in names}})

    assert daily.archive(2, 4)["verdict"] == "suspect"
