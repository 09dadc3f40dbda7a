"""``verify_archive``: newest runs always, old ones in turn; a record, metrics, and nothing beyond its time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from meibo.archive.store import MemoryArchiveStore
from meibo.archive.verification import Verification, record_key, sample

from tests.archives import EARLIER, RUN, USERS, Folder, Maker, ndjson

NOW = datetime(2026, 12, 24, tzinfo=UTC)
BODY = ndjson([{"user_id": "auth0|1"}])


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    maker = Maker(Folder(tmp_path))
    for run_id in (EARLIER, RUN):
        maker.run({USERS: BODY}, run_id)
    return maker


def verification(maker: Maker, store: MemoryArchiveStore, *, seconds: float = 900, newest: int = 2) -> Verification:
    return Verification(
        archive=maker.storage.reader(),
        store=store,
        newest=newest,
        rotation_days=30,
        time_left=lambda: seconds,
        now=lambda: NOW,
    )


def test_a_sound_archive_leaves_a_record_that_says_so(maker: Maker) -> None:
    store = MemoryArchiveStore()

    counts = verification(maker, store).run()

    assert counts == {"runs": 2, "exports": 2, "damaged": 0, "unchecked": 0}
    record = store.get_json(record_key(NOW))
    assert record is not None
    assert (record["damage"], record["exports"], record["at"]) == ([], 2, "2026-12-24T00:00:00Z")


def test_damage_is_named_in_the_record(maker: Maker) -> None:
    key = USERS.object_key(RUN, gzip=True)
    maker.storage.put(key, BODY[:-1])
    store = MemoryArchiveStore()

    assert verification(maker, store).run()["damaged"] == 1

    record = store.get_json(record_key(NOW))
    assert record is not None
    assert {one["key"] for one in record["damage"]} == {key}
    assert "truncated" in {one["damage"] for one in record["damage"]}


def test_what_the_time_does_not_hold_is_unchecked_and_not_damaged(maker: Maker) -> None:
    counts = verification(maker, MemoryArchiveStore(), seconds=30).run()

    assert counts == {"runs": 2, "exports": 2, "damaged": 0, "unchecked": 2}


def test_every_old_run_has_its_turn_once_in_a_rotation() -> None:
    ids = [(NOW - timedelta(days=n)).strftime("%Y%m%dT%H%M%SZ") for n in range(400)]

    turns = [sample(ids, newest=2, rotation_days=30, day=day) for day in range(1000, 1030)]

    assert all(turn[:2] == ids[:2] for turn in turns)
    assert sorted(one for turn in turns for one in turn[2:]) == sorted(ids[2:])
    assert max(len(turn) for turn in turns) < 40
