"""The scheduled verification always verifies the newest runs, and old runs in rotation, while time remains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from meibo.archive.keys import run_moment, verification_key
from meibo.archive.scheduled_verification import ScheduledVerification, sample
from meibo.archive.storage import FolderStorage, ObjectStat
from tests.support.archives import EARLIER, RUN, USERS, ArchiveBuilder, FolderArchive, ndjson

NOW = datetime(2026, 12, 24, tzinfo=UTC)
BODY = ndjson([{"user_id": "auth0|1"}])


class ObservedFolder(FolderStorage):
    """Reads a folder, reports a storage class for its objects, and records the keys that are read."""

    def __init__(self, folder: Path, storage_class: str | None = None) -> None:
        super().__init__(folder)
        self.storage_class = storage_class
        self.read_keys: list[str] = []

    def stat(self, key: str, version_id: str | None = None) -> ObjectStat | None:
        stat = super().stat(key, version_id)
        return stat and replace(stat, storage_class=self.storage_class)

    def chunks(self, key: str, version_id: str | None = None) -> Iterator[bytes]:
        self.read_keys.append(key)
        return super().chunks(key, version_id)


@pytest.fixture
def builder(tmp_path: Path) -> ArchiveBuilder:
    builder = ArchiveBuilder(FolderArchive(tmp_path))
    for run_id in (EARLIER, RUN):
        builder.run({USERS: BODY}, run_id)
    return builder


def verification(builder: ArchiveBuilder, *, seconds: float = 900, newest: int = 2) -> ScheduledVerification:
    return ScheduledVerification(
        archive=builder.storage.reader(),
        newest=newest,
        rotation_days=30,
        time_left=lambda: seconds,
        now=lambda: NOW,
    )


def test_undamaged_archive_is_recorded(builder: ArchiveBuilder) -> None:

    counts = verification(builder).run()

    assert counts == {"runs": 2, "exports": 2, "quick": 0, "damaged": 0, "unchecked": 0}
    record = builder.storage.reader().read_json(verification_key(NOW))
    assert record is not None
    assert (record["damage"], record["exports"], record["at"]) == ([], 2, "2026-12-24T00:00:00Z")


def test_damage_is_named_in_the_record(builder: ArchiveBuilder) -> None:
    key = USERS.object_key(RUN, gzip=True)
    builder.storage.put(key, BODY[:-1])

    assert verification(builder).run()["damaged"] == 1

    record = builder.storage.reader().read_json(verification_key(NOW))
    assert record is not None
    assert {damage["key"] for damage in record["damage"]} == {key}
    assert "truncated" in {damage["damage"] for damage in record["damage"]}


def test_export_without_time_is_unchecked_and_not_damaged(builder: ArchiveBuilder) -> None:
    counts = verification(builder, seconds=30).run()

    assert counts == {"runs": 2, "exports": 2, "quick": 0, "damaged": 0, "unchecked": 2}


def test_newest_runs_are_verified_first_when_time_is_short(builder: ArchiveBuilder, tmp_path: Path) -> None:
    # given: eight runs and time to read the objects of three
    ids = [(run_moment(RUN) - timedelta(days=n)).strftime("%Y%m%dT%H%M%SZ") for n in range(8)]
    for run_id in ids[2:]:
        builder.run({USERS: BODY}, run_id)
    reader = ObservedFolder(tmp_path)
    scheduled = replace(
        verification(builder, newest=8),
        archive=reader,
        threads=1,
        time_left=lambda: 900 if len(reader.read_keys) < 3 else 45,
    )

    counts = scheduled.run()

    assert reader.read_keys == [USERS.object_key(run_id, gzip=True) for run_id in ids[:3]]
    assert counts["unchecked"] == 5
    record = builder.storage.reader().read_json(verification_key(NOW))
    assert record is not None
    assert [export["key"] for export in record["could_not_check"]] == [USERS.folder(run_id) for run_id in ids[3:]]


def test_runs_that_there_is_no_time_to_list_are_unchecked(builder: ArchiveBuilder) -> None:

    counts = verification(builder, seconds=20).run()

    assert (counts["exports"], counts["unchecked"]) == (0, 2)
    record = builder.storage.reader().read_json(verification_key(NOW))
    assert record is not None
    assert [export["key"] for export in record["could_not_check"]] == [
        f"runs/dt=2026-11-21/run={RUN}/",
        f"runs/dt=2026-11-20/run={EARLIER}/",
    ]


@pytest.mark.parametrize(
    ("transition_days", "storage_class"), [(30, None), (30, "GLACIER_IR"), (0, "GLACIER_IR"), (36, "STANDARD_IA")]
)
def test_cold_export_is_read_once_per_long_rotation_and_otherwise_checked_quickly(
    builder: ArchiveBuilder, tmp_path: Path, transition_days: int, storage_class: str | None
) -> None:
    # given: the newest two runs are 33 and 34 days old
    reader = ObservedFolder(tmp_path, storage_class)
    daily = [NOW + timedelta(days=day) for day in range(360)]

    # when: they are verified every day
    counts = [
        replace(
            verification(builder),
            archive=reader,
            transition_days=transition_days,
            cold_rotation_days=360,
            now=partial(datetime.fromisoformat, moment.isoformat()),
        ).run()
        for moment in daily
    ]

    assert sorted(reader.read_keys) == [USERS.object_key(run_id, gzip=True) for run_id in (EARLIER, RUN)]
    assert sum(count["quick"] for count in counts) == 2 * 360 - 2
    assert {(count["exports"], count["unchecked"], count["damaged"]) for count in counts} == {(2, 0, 0)}


def test_export_before_its_transition_is_read(builder: ArchiveBuilder, tmp_path: Path) -> None:
    reader = ObservedFolder(tmp_path)

    counts = replace(verification(builder), archive=reader, transition_days=35).run()

    assert len(reader.read_keys) == 2
    assert counts["quick"] == 0


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"])
def test_export_that_needs_a_restore_request_is_never_read(
    builder: ArchiveBuilder, tmp_path: Path, storage_class: str
) -> None:
    # given: a rotation in which every run is verified every day
    reader = ObservedFolder(tmp_path, storage_class)
    scheduled = replace(verification(builder), rotation_days=1, cold_rotation_days=1)

    counts = replace(scheduled, archive=reader, transition_days=30).run()

    # then: the exports are not counted as unchecked
    assert reader.read_keys == []
    assert (counts["quick"], counts["unchecked"]) == (2, 0)


def test_quick_verification_of_a_cold_export_still_finds_damage(builder: ArchiveBuilder, tmp_path: Path) -> None:
    builder.storage.put(USERS.object_key(RUN, gzip=True), BODY[:-1])
    builder.storage.delete(USERS.object_key(EARLIER, gzip=True))
    reader = ObservedFolder(tmp_path, "DEEP_ARCHIVE")

    counts = replace(verification(builder), archive=reader).run()

    assert reader.read_keys == []
    assert counts["damaged"] == 2


def test_every_old_run_is_selected_once_per_rotation() -> None:
    ids = [(NOW - timedelta(days=n)).strftime("%Y%m%dT%H%M%SZ") for n in range(400)]

    turns = [sample(ids, newest=2, rotation_days=30, day=day) for day in range(1000, 1030)]

    assert all(turn[:2] == ids[:2] for turn in turns)
    assert sorted(run_id for turn in turns for run_id in turn[2:]) == sorted(ids[2:])
    assert max(len(turn) for turn in turns) < 40
