"""Archive an export: the object, its manifest, and the comparison with earlier exports."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from meibo.archive.keys import run_id_of
from meibo.errors import ArchiveConflictError, CorruptFileError
from meibo.exports.checkpoint import Unfinished
from meibo.exports.events import CheckpointProgress
from tests.support.memory_archive import MemoryStorage
from tests.unit.exports.conftest import (
    EXPORT,
    RUN,
    TICK,
    ArchiveHarness,
)

FOLDER = f"archive/provider=auth0/source=acme/dataset=users/format=ndjson/scope=all/dt=2026-11-21/run={RUN}/"
KEY, MANIFEST = FOLDER + "users.ndjson.gz", FOLDER + "_manifest.json"
NEXT_RUN = "20261122T180000Z"


def test_manifest_is_written_beside_the_object() -> None:
    harness = ArchiveHarness()

    response = harness.archive()

    assert response == {
        "export_id": "acme/users/ndjson/all",
        "status": "archived",
        "wait_seconds": 0,
        "progress": None,
        "rows": 10,
        "bytes": 123,
        "verdict": "ok",
    }
    manifest = harness.storage.read_json(MANIFEST)
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


def test_export_is_archived_once() -> None:
    harness = ArchiveHarness()
    first = harness.archive()

    assert harness.archive() == first
    assert harness.copier.copied == []
    assert harness.copier.read == []


def test_object_without_a_manifest_is_read_back_and_gets_one() -> None:
    # given: an invocation completed the object and was killed
    harness = ArchiveHarness()
    harness.archive()
    del harness.storage.objects[MANIFEST]

    harness.archive()

    # then: the file is not fetched again
    assert harness.copier.copied == []
    assert harness.copier.read == [KEY]
    manifest = harness.storage.read_json(MANIFEST)
    assert manifest is not None
    assert manifest["archived"]["read_back"] is True
    # The object may be a copy of the file of an earlier job.
    assert manifest["job"] is None


def test_failed_copy_leaves_no_manifest() -> None:
    harness = ArchiveHarness(error=CorruptFileError("the file ends early"))

    with pytest.raises(CorruptFileError):
        harness.archive()

    assert list(harness.storage.objects) == []


def test_manifest_of_another_file_is_a_conflict() -> None:
    harness = ArchiveHarness()

    class RacingStore(MemoryStorage):
        def put_json(self, key: str, document: Any) -> bool:
            other = {**document, "object": {**document["object"], "sha256": "cd" * 32}}
            super().put_json(key, other)
            return False

    harness.storage = RacingStore()
    with pytest.raises(ArchiveConflictError, match="another file"):
        harness.archive()


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(10, 5, "ok"), (10, 4, "suspect"), (0, 3, "ok"), (10, 0, "suspect"), (None, 1, "ok"), (10, None, "ok")],
)
def test_far_fewer_rows_than_in_the_last_export_are_suspect(
    before: int | None, after: int | None, verdict: str
) -> None:
    harness = ArchiveHarness(rows=before)
    harness.archive(RUN)
    harness.rows = after

    assert harness.archive(NEXT_RUN)["verdict"] == verdict


def test_suspect_export_records_the_reason_and_the_last_run() -> None:
    harness = ArchiveHarness(rows=10)
    harness.archive(RUN)
    harness.rows = 4
    harness.archive(NEXT_RUN)

    manifest = harness.storage.read_json(MANIFEST.replace("dt=2026-11-21", "dt=2026-11-22").replace(RUN, NEXT_RUN))
    assert manifest is not None
    assert manifest["sanity"] == {
        "verdict": "suspect",
        "previous_run_id": RUN,
        "previous_rows": 10,
        "baseline_run_id": RUN,
        "baseline_rows": 10,
        "reason": "60 % fewer users than in the last export: 10 → 4",
    }


def test_empty_first_export_is_suspect() -> None:
    assert ArchiveHarness(rows=0).archive()["verdict"] == "suspect"


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
def test_only_optional_datasets_may_be_empty(provider: str, dataset: str, verdict: str) -> None:
    export = replace(EXPORT, provider=provider, dataset=dataset, format="csv" if provider == "cybozu" else "ndjson")

    assert ArchiveHarness(rows=0, export=export).archive()["verdict"] == verdict


def test_optional_dataset_that_becomes_empty_is_suspect() -> None:
    harness = ArchiveHarness(rows=10, export=replace(EXPORT, dataset="organizations"))
    harness.archive()
    harness.rows = 0

    assert harness.archive(NEXT_RUN)["verdict"] == "suspect"


def test_unfinished_export_returns_its_progress_and_writes_no_object() -> None:
    members = replace(EXPORT, dataset="members", has_job=False, job=None)
    progress = CheckpointProgress(part=3, rows=70, items=9, skipped=0, moved_at=TICK)
    harness = ArchiveHarness(export=members, unfinished=Unfinished(progress=progress, wait_seconds=12))

    assert harness.archive() == {
        "export_id": "acme/members/ndjson/all",
        "status": "continue",
        "wait_seconds": 12,
        "progress": progress.to_json(),
    }
    assert list(harness.storage.objects) == []


def test_old_last_export_is_found() -> None:
    harness = ArchiveHarness(rows=10)
    harness.archive("20240101T180000Z")
    harness.rows = 1

    assert harness.archive(RUN)["verdict"] == "suspect"


def test_repaired_old_run_is_compared_with_the_run_before_it() -> None:
    harness = ArchiveHarness(rows=10)
    harness.archive("20261120T180000Z")
    harness.rows = 1000
    harness.archive(NEXT_RUN)
    harness.rows = 9

    assert harness.archive(RUN)["verdict"] == "ok"


class Daily:
    """Archives an export per day. Days are counted from the first run."""

    def __init__(self) -> None:
        self.harness = ArchiveHarness()

    def archive(self, day: int, rows: int | None, *, accept_from: str | None = None) -> dict[str, Any]:
        """Archive ``rows`` rows on a day and return the sanity of the manifest."""
        run_id = run_id_of(TICK + timedelta(days=day))
        export = replace(EXPORT, accept_from=accept_from)
        self.harness.rows, self.harness.export = rows, export
        self.harness.archive(run_id)
        manifest = self.harness.storage.read_json(export.address.manifest_key(run_id))
        assert manifest is not None
        sanity: dict[str, Any] = manifest["sanity"]
        return sanity


def test_lasting_loss_is_suspect_for_30_days() -> None:
    daily = Daily()
    daily.archive(0, 10)

    sanities = [daily.archive(day, 4) for day in range(1, 33)]

    assert [sanity["verdict"] for sanity in sanities] == ["suspect"] * 30 + ["ok"] * 2
    assert sanities[0]["reason"] == "60 % fewer users than in the last export: 10 → 4"
    assert sanities[29]["reason"] == (
        f"60 % fewer users than in run {RUN} (the last export that was not suspect): 10 → 4"
    )
    assert (sanities[29]["previous_rows"], sanities[29]["baseline_run_id"], sanities[29]["baseline_rows"]) == (
        4,
        RUN,
        10,
    )
    # Later exports are compared with the new number of rows.
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


def test_reason_of_a_lasting_empty_export_names_the_last_export_with_rows() -> None:
    daily = Daily()
    daily.archive(0, 10)

    assert daily.archive(1, 0)["reason"] == "no users; the last export had 10"
    assert daily.archive(2, 0)["reason"] == f"no users; run {RUN} (the last export that was not suspect) had 10"


def test_export_is_compared_with_an_old_previous_export() -> None:
    daily = Daily()
    daily.archive(0, 10)

    assert daily.archive(90, 4)["verdict"] == "suspect"
    # The last export that was not suspect is older than 30 days.
    assert daily.archive(91, 4)["verdict"] == "ok"


@pytest.mark.parametrize("day", [1, 2])
def test_later_exports_are_compared_with_the_accepted_level(day: int) -> None:
    # given: a loss on the day after the first run
    daily = Daily()
    daily.archive(0, 10)
    daily.archive(1, 4)
    accepted = f"{TICK + timedelta(days=day):%Y-%m-%d}"

    sanity = daily.archive(2, 4, accept_from=accepted)

    # then: the loss is accepted, and a further loss is suspect
    assert (sanity["verdict"], sanity["accept_from"], sanity["baseline_run_id"]) == ("ok", accepted, None)
    assert daily.archive(3, 4, accept_from=accepted)["verdict"] == "ok"
    assert daily.archive(4, 1, accept_from=accepted)["verdict"] == "suspect"


def test_future_loss_can_be_accepted() -> None:
    daily = Daily()
    daily.archive(0, 10)
    accepted = f"{TICK + timedelta(days=2):%Y-%m-%d}"

    # An export before the accepted date is suspect.
    assert daily.archive(1, 4, accept_from=accepted)["verdict"] == "suspect"
    assert daily.archive(2, 4, accept_from=accepted)["verdict"] == "ok"


def test_empty_export_is_suspect_despite_an_accepted_date() -> None:
    daily = Daily()
    daily.archive(0, 10)

    assert daily.archive(1, 0, accept_from=f"{TICK + timedelta(days=1):%Y-%m-%d}")["verdict"] == "suspect"


def test_suspect_manifest_without_a_baseline_is_skipped_in_the_comparison() -> None:
    # given: a manifest of an earlier version, without a baseline
    daily = Daily()
    daily.archive(0, 10)
    sanity = daily.archive(1, 4)
    key = EXPORT.address.manifest_key(NEXT_RUN)
    manifest = daily.harness.storage.read_json(key)
    assert manifest is not None
    del daily.harness.storage.objects[key]
    names = ("baseline_run_id", "baseline_rows")
    daily.harness.storage.put_json(key, {**manifest, "sanity": {n: v for n, v in sanity.items() if n not in names}})

    assert daily.archive(2, 4)["verdict"] == "suspect"
