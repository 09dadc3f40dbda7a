"""Exports that require several invocations: parts, progress, waits, repairs and concurrent invocations."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.errors import ArchiveConflictError, CorruptFileError, ProviderBusyError, RequestRefusedError
from meibo.exports.checkpoint import MAX_RESUME_WAIT_SECONDS, Collected, Collector, Unfinished
from meibo.exports.events import CheckpointProgress, ExportEvent, parse_export_event
from tests.support.exports import planned_export
from tests.support.memory_archive import MemoryStorage
from tests.support.memory_tenant import ORGANIZATION_PAGES, MemoryTenant, organization_id
from tests.unit.exports.conftest import RUN, TICK

FOLDER = f"parts/dt=2026-11-21/run={RUN}/acme/members/ndjson/all/attempt=1/"


@dataclass
class CollectorHarness:
    """A collector that is invoked repeatedly, as in the workflow."""

    tenant: MemoryTenant
    dataset: str = "members"
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    part_bytes: int = 1_000_000
    seconds_left: float = 900.0
    time: datetime = TICK
    reading_times: list[float] = field(default_factory=list)

    def collect(self, progress: CheckpointProgress | None = None, *, attempt: int = 1) -> Collected | Unfinished:
        collector = Collector(
            storage=self.storage,
            time_left=lambda: self.seconds_left,
            part_bytes=self.part_bytes,
            now=lambda: self.time,
        )
        # The workflow passes the progress as JSON.
        event = {"run_id": RUN, "attempt": attempt, "export": planned_export(self.dataset).to_json()}
        if progress:
            event["progress"] = json.loads(json.dumps(progress.to_json()))
        self.reading_times.append(collector.reading_time_left())
        return collector.collect(parse_export_event(event), ORGANIZATION_PAGES[self.dataset](self.tenant))

    def unfinished(self, progress: CheckpointProgress | None = None, *, attempt: int = 1) -> Unfinished:
        result = self.collect(progress, attempt=attempt)
        assert isinstance(result, Unfinished)
        return result

    def collected(self, progress: CheckpointProgress | None = None, *, attempt: int = 1) -> Collected:
        result = self.collect(progress, attempt=attempt)
        assert isinstance(result, Collected)
        return result


def rows(collected: Collected) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(b"".join(collected.chunks())).splitlines()]


@pytest.mark.parametrize("dataset", ["organizations", "members"])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_export_within_an_invocation_has_one_part(dataset: str, count: int) -> None:
    harness = CollectorHarness(MemoryTenant(count), dataset)

    collected = harness.collected()

    assert rows(collected) == harness.tenant.lines(dataset)
    assert len(collected.parts) == 1
    assert collected.notes()["organizations"] == count


@given(
    dataset=st.sampled_from(["organizations", "members"]),
    count=st.integers(0, 12),
    calls=st.lists(st.integers(1, 8), max_size=10),
    part_bytes=st.sampled_from([1, 30, 1_000_000]),
    killed=st.sets(st.integers(0, 10)),
)
def test_interrupted_invocations_produce_the_same_file(
    dataset: str, count: int, calls: list[int], part_bytes: int, killed: set[int]
) -> None:
    harness = CollectorHarness(MemoryTenant(count), dataset, part_bytes=part_bytes)
    progress: CheckpointProgress | None = None

    for number, left in enumerate([*calls, 1_000_000]):
        harness.tenant.calls_left = left
        result = harness.collect(progress)
        if isinstance(result, Collected):
            break
        # After a lost response, the workflow repeats the invocation with the earlier progress.
        progress = progress if number in killed else result.progress

    assert isinstance(result, Collected)
    assert rows(result) == harness.tenant.lines(dataset)
    assert result.parts[-1].totals.rows == len(harness.tenant.lines(dataset))


def test_export_without_time_left_returns_its_progress() -> None:
    harness = CollectorHarness(MemoryTenant(10, calls_left=5))

    unfinished = harness.unfinished()

    assert unfinished.progress == CheckpointProgress(part=1, rows=3, items=3, skipped=0, moved_at=TICK)
    assert unfinished.wait_seconds == 0


def test_progress_contains_no_cursor_and_no_user_data() -> None:
    harness = CollectorHarness(MemoryTenant(10, calls_left=6))

    state = json.dumps(harness.unfinished().progress.to_json())

    assert "auth0|" not in state
    assert "@" not in state
    assert "cursor" not in state


def test_deadline_of_the_client_leaves_time_to_write_a_part() -> None:
    harness = CollectorHarness(MemoryTenant(1), seconds_left=500)

    harness.collected()

    assert harness.reading_times == [470]


def test_requested_wait_is_passed_to_the_workflow() -> None:
    harness = CollectorHarness(MemoryTenant(10, calls_left=5, retry_after=299.2))

    assert harness.unfinished().wait_seconds == 300


@pytest.mark.parametrize(
    ("retry_after", "waits"), [(None, 60), (2.0, 60), (600.0, 600), (1e9, MAX_RESUME_WAIT_SECONDS)]
)
def test_invocation_without_a_response_writes_nothing_and_waits_longer(retry_after: float | None, waits: int) -> None:
    harness = CollectorHarness(MemoryTenant(10, calls_left=0, retry_after=retry_after))

    unfinished = harness.unfinished()

    assert unfinished.wait_seconds == waits
    assert unfinished.progress.part == 0
    assert list(harness.storage.objects) == []


def test_provider_that_is_busy_for_hours_does_not_fail_the_export() -> None:
    # given: no response for 23 hours, with a wait of an hour each time
    harness = CollectorHarness(MemoryTenant(10, calls_left=5, retry_after=3600))
    progress = harness.unfinished().progress
    for _ in range(23):
        harness.time += timedelta(hours=1)
        progress = harness.unfinished(progress).progress

    # when: the provider responds again
    harness.tenant.calls_left = 1_000_000

    assert rows(harness.collected(progress)) == harness.tenant.lines("members")


def test_day_without_a_response_is_an_error() -> None:
    harness = CollectorHarness(MemoryTenant(10, calls_left=5))
    progress = harness.unfinished().progress
    harness.time += timedelta(hours=24)

    with pytest.raises(ProviderBusyError, match="24 hours"):
        harness.unfinished(progress)


def test_single_response_restarts_the_limit_of_a_day() -> None:
    harness = CollectorHarness(MemoryTenant(10, calls_left=5))
    progress = harness.unfinished().progress
    harness.time += timedelta(hours=23)
    harness.tenant.calls_left = 3
    progress = harness.unfinished(progress).progress
    harness.time += timedelta(hours=23)

    assert harness.unfinished(progress).progress.moved_at == TICK + timedelta(hours=23)


def test_existing_part_is_reused() -> None:
    # given: the invocation's response was lost after it wrote its part
    harness = CollectorHarness(MemoryTenant(10, calls_left=6))
    harness.unfinished()
    calls_before = len(harness.tenant.calls)
    before = dict(harness.storage.objects)

    harness.tenant.calls_left = 1_000_000
    collected = harness.collected()

    # then: the requests are not repeated, and no object is overwritten
    assert rows(collected) == harness.tenant.lines("members")
    assert harness.tenant.calls[calls_before:].count(f"members of {organization_id(0)}") == 0
    assert before.items() <= harness.storage.objects.items()


def test_first_of_two_concurrent_writes_of_a_part_counts() -> None:
    # given: a concurrent invocation finishes part 1 first, with more rows
    harness = CollectorHarness(MemoryTenant(10, calls_left=4))
    other = CollectorHarness(MemoryTenant(10, calls_left=6), storage=harness.storage)
    first = True

    def race(_call: str) -> None:
        nonlocal first
        if first:
            first = False
            other.unfinished()

    harness.tenant.before = race

    progress = harness.unfinished().progress
    harness.tenant.calls_left = 1_000_000

    # then: the part of the concurrent invocation is used
    assert progress.rows == 5
    assert rows(harness.collected(progress)) == harness.tenant.lines("members")


@given(
    dataset=st.sampled_from(["organizations", "members"]),
    count=st.integers(0, 12),
    at=st.integers(1, 20),
    calls=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    part_bytes=st.tuples(st.sampled_from([1, 40, 1_000_000]), st.sampled_from([1, 40, 1_000_000])),
)
def test_two_concurrent_invocations_produce_one_file(
    dataset: str, count: int, at: int, calls: tuple[int, int], part_bytes: tuple[int, int]
) -> None:
    # given: another invocation, with other part sizes, runs during the nth call of this invocation
    harness = CollectorHarness(MemoryTenant(count, calls_left=calls[0]), dataset, part_bytes=part_bytes[0])
    other = CollectorHarness(
        MemoryTenant(count, calls_left=calls[1]), dataset, harness.storage, part_bytes=part_bytes[1]
    )
    call_count = 0

    def run_other(_call: str) -> None:
        nonlocal call_count
        call_count += 1
        if call_count == at:
            other.collect()

    harness.tenant.before = run_other

    result = harness.collect()
    harness.tenant.calls_left = 1_000_000
    if isinstance(result, Unfinished):
        result = harness.collect(result.progress)

    assert isinstance(result, Collected)
    assert rows(result) == harness.tenant.lines(dataset)
    assert result.parts[-1].last


def test_large_part_is_written_during_the_invocation() -> None:
    harness = CollectorHarness(MemoryTenant(20), part_bytes=1)

    collected = harness.collected()

    assert len(collected.parts) > 1
    assert rows(collected) == harness.tenant.lines("members")


def test_parts_are_joined_by_the_next_invocation_if_little_time_is_left() -> None:
    harness = CollectorHarness(MemoryTenant(10), seconds_left=100)
    progress = harness.unfinished().progress

    harness.seconds_left = 900
    calls_before = len(harness.tenant.calls)
    collected = harness.collected(progress)

    # then: no request is repeated
    assert rows(collected) == harness.tenant.lines("members")
    assert len(harness.tenant.calls) == calls_before


def test_repair_reuses_the_completed_parts_of_an_earlier_attempt() -> None:
    harness = CollectorHarness(MemoryTenant(10))
    harness.collected()
    calls_before = len(harness.tenant.calls)

    collected = harness.collected(attempt=3)

    assert rows(collected) == harness.tenant.lines("members")
    assert len(harness.tenant.calls) == calls_before


def test_repair_restarts_if_the_earlier_attempt_is_incomplete() -> None:
    # given: an incomplete attempt, whose cursors expire after 24 hours
    harness = CollectorHarness(MemoryTenant(10, calls_left=5))
    harness.unfinished()
    harness.tenant.calls_left = 1_000_000

    collected = harness.collected(attempt=2)

    assert collected.notes()["parts"] == 1
    assert rows(collected) == harness.tenant.lines("members")


def test_skipped_organizations_of_all_parts_are_counted_and_named() -> None:
    deleted = {organization_id(number) for number in (1, 4, 8)}
    harness = CollectorHarness(MemoryTenant(10, gone=deleted, calls_left=6))
    progress = harness.unfinished().progress
    harness.tenant.calls_left = 1_000_000

    notes = harness.collected(progress).notes()

    assert notes["parts"] == 2
    assert notes["organizations"] == 7
    assert notes["skipped_organizations"] == {"count": 3, "ids": sorted(deleted)}


def test_notes_state_whether_members_include_roles() -> None:
    assert CollectorHarness(MemoryTenant(5)).collected().notes()["roles"] == {
        "included": "yes",
        "assignments": "direct",
    }
    assert CollectorHarness(MemoryTenant(5, roles=False)).collected().notes()["roles"] == {
        "included": "no",
        "reason": "the token does not have the OAuth scope read:organization_member_roles",
    }
    assert "roles" not in CollectorHarness(MemoryTenant(5), "organizations").collected().notes()


def test_notes_state_that_only_some_members_include_roles() -> None:
    harness = CollectorHarness(MemoryTenant(10, calls_left=8))
    progress = harness.unfinished().progress
    harness.tenant.calls_left, harness.tenant.roles = 1_000_000, False

    assert harness.collected(progress).notes()["roles"]["included"] == "in part"


def test_damaged_part_is_not_archived() -> None:
    harness = CollectorHarness(MemoryTenant(5))
    collected = harness.collected()
    key = collected.parts[0].key
    assert key
    harness.storage.objects[key] += b"\0"

    expected = "expected the SHA-256 in the part's record, found a different SHA-256"
    with pytest.raises(
        CorruptFileError,
        match=rf"^{key}: {expected}; the part was changed after it was written; repair the run$",
    ):
        list(collected.chunks())


def test_missing_part_is_reported() -> None:
    harness = CollectorHarness(MemoryTenant(5))
    collected = harness.collected()
    key = collected.parts[0].key
    assert key
    del harness.storage.objects[key]

    with pytest.raises(ArchiveConflictError, match=rf"^{key} does not exist; repair the run$"):
        list(collected.chunks())


@pytest.mark.parametrize("damage", ["part changed", "part missing", "record of another version"])
def test_repair_collects_a_damaged_part_again(damage: str) -> None:
    # given: an earlier attempt that collected all rows in two parts
    harness = CollectorHarness(MemoryTenant(10), part_bytes=1)
    key = harness.collected().parts[1].key
    assert key
    if damage == "part changed":
        harness.storage.objects[key] += b"\0"
    elif damage == "part missing":
        del harness.storage.objects[key]
    else:
        harness.storage.objects[f"{FOLDER}00002.json"] = b'{"number": 2}'

    collected = harness.collected(attempt=2)

    assert rows(collected) == harness.tenant.lines("members")
    assert key not in [part.key for part in collected.parts]


def test_expired_parts_are_collected_again() -> None:
    harness = CollectorHarness(MemoryTenant(10, calls_left=6))
    progress = harness.unfinished().progress
    harness.storage.objects.clear()
    harness.tenant.calls_left = 1_000_000

    assert rows(harness.collected(progress)) == harness.tenant.lines("members")


def test_first_part_that_expired_before_the_last_is_an_error() -> None:
    harness = CollectorHarness(MemoryTenant(10, calls_left=6))
    progress = harness.unfinished().progress
    harness.tenant.calls_left = 6
    progress = harness.unfinished(progress).progress
    harness.tenant.calls_left = 1_000_000
    del harness.storage.objects[f"{FOLDER}00001.json"]

    with pytest.raises(ArchiveConflictError, match="part 1 of 3 is missing; repair the run"):
        harness.collect(progress)


def test_refused_request_fails_the_export_and_archives_nothing() -> None:
    def refuse(call: str) -> None:
        if organization_id(4) in call:
            raise RequestRefusedError("refused", status=400)

    harness = CollectorHarness(MemoryTenant(10, before=refuse))

    with pytest.raises(RequestRefusedError):
        harness.collect()

    assert not any(key.startswith("archive/") for key in harness.storage.objects)


def test_parts_are_outside_the_archive_and_named_after_their_attempt() -> None:
    harness = CollectorHarness(MemoryTenant(5))
    collected = harness.collected()

    record, part = sorted(harness.storage.objects, key=len)
    assert record == f"{FOLDER}00001.json"
    assert part == collected.parts[0].key
    assert part.startswith(f"{FOLDER}00001-")
    assert part.endswith(".ndjson.gz")


def test_part_record_has_the_keys_of_the_first_version() -> None:
    deleted = organization_id(1)
    harness = CollectorHarness(MemoryTenant(3, gone={deleted}))
    collected = harness.collected()

    record = harness.storage.read_json(f"{FOLDER}00001.json")
    assert record is not None

    assert record.keys() == {"number", "key", "bytes", "sha256", "gone", "totals", "position", "last"}
    assert record["totals"] == {"rows": collected.parts[0].totals.rows, "organizations": 2, "skipped": 1}
    assert record["gone"] == [deleted]


def test_part_record_of_another_version_is_rejected() -> None:
    harness = CollectorHarness(MemoryTenant(5))
    harness.storage.put_json(f"{FOLDER}00001.json", {"number": 1})

    with pytest.raises(
        ArchiveConflictError,
        match=(
            rf"^{FOLDER}00001\.json: expected the record of a part, found other content or a record of another version"
            " of Meibo; repair the run to restart this export$"
        ),
    ):
        harness.collect()


def test_event_without_progress_starts_from_the_beginning() -> None:
    assert ExportEvent(RUN, 1, planned_export("members")).progress is None
    assert rows(CollectorHarness(MemoryTenant(3)).collected()) == MemoryTenant(3).lines("members")
