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
from meibo.exports.checkpoint import MAX_WAIT_SECONDS, Collected, Collector, Unfinished
from meibo.exports.events import CheckpointProgress, ExportEvent, parse_export_event
from meibo.exports.plan import PlannedExport
from meibo.providers.auth0.datasets import PAGES
from tests.support.memory_archive import MemoryArchiveStore
from tests.support.memory_tenant import MemoryTenant, organization_id
from tests.unit.exports.conftest import RUN, TICK

FOLDER = f"parts/dt=2026-11-21/run={RUN}/acme/members/ndjson/all/attempt=1/"


def export(dataset: str) -> PlannedExport:
    return PlannedExport(
        provider="auth0",
        source="acme",
        dataset=dataset,
        format="ndjson",
        scope="all",
        endpoint="acme.test",
        secret="meibo/acme",
        request={},
        has_job=False,
    )


@dataclass
class World:
    """A collector, invoked again and again as the workflow would."""

    tenant: MemoryTenant
    dataset: str = "members"
    store: MemoryArchiveStore = field(default_factory=MemoryArchiveStore)
    part_bytes: int = 1_000_000
    seconds_left: float = 900.0
    time: datetime = TICK
    deadlines: list[float] = field(default_factory=list)

    def collect(self, progress: CheckpointProgress | None = None, *, attempt: int = 1) -> Collected | Unfinished:
        collector = Collector(
            store=self.store,
            time_left=lambda: self.seconds_left,
            part_bytes=self.part_bytes,
            now=lambda: self.time,
        )
        # What the workflow passes on is JSON.
        event = {"run_id": RUN, "attempt": attempt, "export": export(self.dataset).to_json()}
        if progress:
            event["progress"] = json.loads(json.dumps(progress.to_json()))
        self.deadlines.append(collector.reading_deadline())
        return collector.collect(parse_export_event(event), PAGES[self.dataset](self.tenant))

    def unfinished(self, progress: CheckpointProgress | None = None, *, attempt: int = 1) -> Unfinished:
        found = self.collect(progress, attempt=attempt)
        assert isinstance(found, Unfinished)
        return found

    def collected(self, progress: CheckpointProgress | None = None, *, attempt: int = 1) -> Collected:
        found = self.collect(progress, attempt=attempt)
        assert isinstance(found, Collected)
        return found


def rows(collected: Collected) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(b"".join(collected.chunks())).splitlines()]


@pytest.mark.parametrize("dataset", ["organizations", "members"])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_what_fits_into_one_invocation_is_one_part(dataset: str, count: int) -> None:
    world = World(MemoryTenant(count), dataset)

    collected = world.collected()

    assert rows(collected) == world.tenant.lines(dataset)
    assert len(collected.parts) == 1
    assert collected.notes()["organizations"] == count


@given(
    dataset=st.sampled_from(["organizations", "members"]),
    count=st.integers(0, 12),
    calls=st.lists(st.integers(1, 8), max_size=10),
    part_bytes=st.sampled_from([1, 30, 1_000_000]),
    killed=st.sets(st.integers(0, 10)),
)
def test_invocations_that_end_early_or_are_killed_make_the_same_file(
    dataset: str, count: int, calls: list[int], part_bytes: int, killed: set[int]
) -> None:
    world = World(MemoryTenant(count), dataset, part_bytes=part_bytes)
    progress: CheckpointProgress | None = None

    for number, left in enumerate([*calls, 1_000_000]):
        world.tenant.calls_left = left
        found = world.collect(progress)
        if isinstance(found, Collected):
            break
        # An answer that got lost: the workflow invokes again with what it knew before.
        progress = progress if number in killed else found.progress

    assert isinstance(found, Collected)
    assert rows(found) == world.tenant.lines(dataset)
    assert found.parts[-1].totals.rows == len(world.tenant.lines(dataset))


def test_time_that_is_over_is_no_failure_and_the_progress_counts() -> None:
    world = World(MemoryTenant(10, calls_left=5))

    found = world.unfinished()

    assert found.progress == CheckpointProgress(part=1, rows=3, organizations=3, skipped=0, moved_at=TICK)
    assert found.wait_seconds == 0


def test_the_state_holds_no_cursor_and_nothing_of_a_person() -> None:
    world = World(MemoryTenant(10, calls_left=6))

    state = json.dumps(world.unfinished().progress.to_json())

    assert "auth0|" not in state
    assert "@" not in state
    assert "cursor" not in state


def test_the_client_is_given_less_time_than_there_is_so_that_a_part_can_be_written() -> None:
    world = World(MemoryTenant(1), seconds_left=500)

    world.collected()

    assert world.deadlines == [470]


def test_a_wait_that_the_provider_asks_for_is_left_to_the_workflow() -> None:
    world = World(MemoryTenant(10, calls_left=5, retry_after=299.2))

    assert world.unfinished().wait_seconds == 300


@pytest.mark.parametrize(("told", "waits"), [(None, 60), (2.0, 60), (600.0, 600), (1e9, MAX_WAIT_SECONDS)])
def test_an_invocation_that_the_provider_gives_nothing_writes_nothing_and_waits_longer(
    told: float | None, waits: int
) -> None:
    world = World(MemoryTenant(10, calls_left=0, retry_after=told))

    found = world.unfinished()

    assert found.wait_seconds == waits
    assert found.progress.part == 0
    assert list(world.store.objects) == []


def test_a_provider_that_is_busy_for_hours_does_not_fail_the_export() -> None:
    # given: nothing for 23 hours, an hour a round
    world = World(MemoryTenant(10, calls_left=5, retry_after=3600))
    progress = world.unfinished().progress
    for _ in range(23):
        world.time += timedelta(hours=1)
        progress = world.unfinished(progress).progress

    # when: then it answers again
    world.tenant.calls_left = 1_000_000

    # then
    assert rows(world.collected(progress)) == world.tenant.lines("members")


def test_a_day_without_any_answer_is_told_as_such() -> None:
    world = World(MemoryTenant(10, calls_left=5))
    progress = world.unfinished().progress
    world.time += timedelta(hours=24)

    with pytest.raises(ProviderBusyError, match="24 hours"):
        world.unfinished(progress)


def test_a_single_answer_starts_the_day_anew() -> None:
    world = World(MemoryTenant(10, calls_left=5))
    progress = world.unfinished().progress
    world.time += timedelta(hours=23)
    world.tenant.calls_left = 3
    progress = world.unfinished(progress).progress
    world.time += timedelta(hours=23)

    assert world.unfinished(progress).progress.moved_at == TICK + timedelta(hours=23)


def test_a_part_that_is_there_already_is_taken_over() -> None:
    # given: the invocation's answer got lost after its part was written
    world = World(MemoryTenant(10, calls_left=6))
    world.unfinished()
    asked = len(world.tenant.calls)
    before = dict(world.store.objects)

    # when
    world.tenant.calls_left = 1_000_000
    collected = world.collected()

    # then: nothing of it is asked again, and nothing overwritten
    assert rows(collected) == world.tenant.lines("members")
    assert world.tenant.calls[asked:].count(f"members of {organization_id(0)}") == 0
    assert before.items() <= world.store.objects.items()


def test_of_two_invocations_that_collect_the_same_part_one_wins() -> None:
    # given: another one finishes part 1 while this one is at it, and it has come further
    world = World(MemoryTenant(10, calls_left=4))
    other = World(MemoryTenant(10, calls_left=6), store=world.store)
    first = True

    def race(question: str) -> None:
        nonlocal first
        if first:
            first = False
            other.unfinished()

    world.tenant.before = race

    # when
    progress = world.unfinished().progress
    world.tenant.calls_left = 1_000_000

    # then: the one part that counts is the other's
    assert progress.rows == 5
    assert rows(world.collected(progress)) == world.tenant.lines("members")


@given(
    dataset=st.sampled_from(["organizations", "members"]),
    count=st.integers(0, 12),
    at=st.integers(1, 20),
    calls=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    part_bytes=st.tuples(st.sampled_from([1, 40, 1_000_000]), st.sampled_from([1, 40, 1_000_000])),
)
def test_two_invocations_that_run_into_each_other_make_one_file(
    dataset: str, count: int, at: int, calls: tuple[int, int], part_bytes: tuple[int, int]
) -> None:
    # given: another invocation runs while this one is at its nth question, and cuts its parts elsewhere
    world = World(MemoryTenant(count, calls_left=calls[0]), dataset, part_bytes=part_bytes[0])
    other = World(MemoryTenant(count, calls_left=calls[1]), dataset, world.store, part_bytes=part_bytes[1])
    questions = 0

    def run_into(question: str) -> None:
        nonlocal questions
        questions += 1
        if questions == at:
            other.collect()

    world.tenant.before = run_into

    # when
    found = world.collect()
    world.tenant.calls_left = 1_000_000
    if isinstance(found, Unfinished):
        found = world.collect(found.progress)

    # then
    assert isinstance(found, Collected)
    assert rows(found) == world.tenant.lines(dataset)
    assert found.parts[-1].last


def test_a_large_part_is_written_while_the_invocation_goes_on() -> None:
    world = World(MemoryTenant(20), part_bytes=1)

    collected = world.collected()

    assert len(collected.parts) > 1
    assert rows(collected) == world.tenant.lines("members")


def test_little_time_left_for_putting_the_parts_together_is_left_to_the_next_invocation() -> None:
    # given
    world = World(MemoryTenant(10), seconds_left=100)
    progress = world.unfinished().progress

    # when
    world.seconds_left = 900
    asked = len(world.tenant.calls)
    collected = world.collected(progress)

    # then: without another call
    assert rows(collected) == world.tenant.lines("members")
    assert len(world.tenant.calls) == asked


def test_a_repair_takes_over_what_an_earlier_attempt_collected_to_its_end() -> None:
    world = World(MemoryTenant(10))
    world.collected()
    asked = len(world.tenant.calls)

    collected = world.collected(attempt=3)

    assert rows(collected) == world.tenant.lines("members")
    assert len(world.tenant.calls) == asked


def test_a_repair_begins_anew_where_the_earlier_attempt_did_not_end() -> None:
    # given: cursors live for 24 hours only, and the directory has moved on
    world = World(MemoryTenant(10, calls_left=5))
    world.unfinished()
    world.tenant.calls_left = 1_000_000

    collected = world.collected(attempt=2)

    assert collected.notes()["parts"] == 1
    assert rows(collected) == world.tenant.lines("members")


def test_skipped_organizations_are_counted_and_named_over_all_parts() -> None:
    gone = {organization_id(number) for number in (1, 4, 8)}
    world = World(MemoryTenant(10, gone=gone, calls_left=6))
    progress = world.unfinished().progress
    world.tenant.calls_left = 1_000_000

    notes = world.collected(progress).notes()

    assert notes["parts"] == 2
    assert notes["organizations"] == 7
    assert notes["skipped_organizations"] == {"count": 3, "ids": sorted(gone)}


def test_the_notes_say_whether_members_have_their_roles() -> None:
    assert World(MemoryTenant(5)).collected().notes()["roles"] == {"included": "yes"}
    assert World(MemoryTenant(5, roles=False)).collected().notes()["roles"] == {
        "included": "no",
        "reason": "the token lacks the scope read:organization_member_roles",
    }
    assert "roles" not in World(MemoryTenant(5), "organizations").collected().notes()


def test_roles_that_were_lost_on_the_way_are_told() -> None:
    world = World(MemoryTenant(10, calls_left=8))
    progress = world.unfinished().progress
    world.tenant.calls_left, world.tenant.roles = 1_000_000, False

    assert world.collected(progress).notes()["roles"]["included"] == "in part"


def test_a_part_that_was_damaged_is_not_archived() -> None:
    world = World(MemoryTenant(5))
    collected = world.collected()
    key = collected.parts[0].key
    assert key
    world.store.objects[key] += b"\0"

    with pytest.raises(CorruptFileError, match="SHA-256 of its record"):
        list(collected.chunks())


def test_parts_that_are_not_there_any_more_are_collected_again() -> None:
    world = World(MemoryTenant(10, calls_left=6))
    progress = world.unfinished().progress
    world.store.objects.clear()
    world.tenant.calls_left = 1_000_000

    assert rows(world.collected(progress)) == world.tenant.lines("members")


def test_a_first_part_that_expired_before_the_last_was_there_is_told() -> None:
    world = World(MemoryTenant(10, calls_left=6))
    progress = world.unfinished().progress
    world.tenant.calls_left = 6
    progress = world.unfinished(progress).progress
    world.tenant.calls_left = 1_000_000
    del world.store.objects[f"{FOLDER}00001.json"]

    with pytest.raises(ArchiveConflictError, match="part 1 of 3"):
        world.collect(progress)


def test_a_refusal_fails_the_export_and_keeps_the_parts_out_of_the_archive() -> None:
    def refuse(question: str) -> None:
        if organization_id(4) in question:
            raise RequestRefusedError("refused", status=400)

    world = World(MemoryTenant(10, before=refuse))

    with pytest.raises(RequestRefusedError):
        world.collect()

    assert not any(key.startswith("archive/") for key in world.store.objects)


def test_parts_are_beside_the_archive_and_named_after_their_attempt() -> None:
    world = World(MemoryTenant(5))
    collected = world.collected()

    record, part = sorted(world.store.objects, key=len)
    assert record == f"{FOLDER}00001.json"
    assert part == collected.parts[0].key
    assert part.startswith(f"{FOLDER}00001-")
    assert part.endswith(".ndjson.gz")


def test_a_record_of_another_version_is_refused() -> None:
    world = World(MemoryTenant(5))
    world.store.put_json(f"{FOLDER}00001.json", {"number": 1})

    with pytest.raises(ArchiveConflictError, match="version"):
        world.collect()


def test_without_progress_and_parts_it_begins_at_the_beginning() -> None:
    asked = ExportEvent(RUN, 1, export("members"))

    assert asked.progress is None
    assert rows(World(MemoryTenant(3)).collected()) == MemoryTenant(3).lines("members")
