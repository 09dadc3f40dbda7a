"""Random faults, drawn from seeds: ``make soak SEEDS=1000``, and ``make soak SEED=17`` for one of them again."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meibo_simulators import FIRST_CONNECTION
from meibo_simulators import faults as broken
from tests.fault_injection.external_calls import Call, Invocation, InvocationKilled
from tests.fault_injection.system import WholeSystem, world
from tests.fault_injection.test_crashes_of_changes import Changes

pytestmark = [
    pytest.mark.timeout(24 * 3600),
    # What vanishes closes nothing.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

SEEDS = int(os.environ.get("MEIBO_SOAK_SEEDS", "12"))
SEED = os.environ.get("MEIBO_SOAK_SEED") or None
# As many parts as the tests of CI run side by side.
SHARES = 2
# What Lambda's own failures may take of a run before the workflow gives up: each function is tried twice more.
MAX_KILLS = 2
MAX_ATTEMPTS = 5


class Clock:
    """The functions' clock: it runs on at once when somebody waits, and may be set wrong by minutes."""

    def __init__(self, skew: float) -> None:
        self.ahead = skew

    def now(self) -> float:
        return time.time() + self.ahead

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds


class Reaper:
    """Lets some invocations vanish, as a time-out does."""

    def __init__(self, chance: random.Random, share: float) -> None:
        self.kills = 0
        self._chance = chance
        self._share = share
        self._lock = threading.Lock()

    def before(self, invocation: Invocation, call: Call) -> None:
        self._perhaps(invocation)

    def after(self, invocation: Invocation, call: Call) -> None:
        self._perhaps(invocation)

    def _perhaps(self, invocation: Invocation) -> None:
        with self._lock:
            if self.kills < MAX_KILLS and self._chance.random() < self._share:
                self.kills += 1
                invocation.killed = True
        if invocation.killed:
            raise InvocationKilled


def _fault(chance: random.Random, now: float) -> broken.Action:
    """Draw one fault."""
    kind = chance.randrange(12)
    if kind == 0:
        return broken.too_many_requests(retry_after=chance.choice([0, 1, 30, 5000]))
    if kind == 1:
        return broken.too_many_requests()
    if kind == 2:
        return broken.too_many_requests(reset=now + chance.choice([-3600, -1, 1, 60, 7 * 86400]))
    if kind in (3, 4):
        return broken.html(chance.choice([500, 502, 503, 504]))
    if kind in (5, 6):
        return broken.reset(after_processing=chance.random() < 0.5)
    if kind in (7, 8):
        return broken.break_body(chance.randrange(1, 6000), reset=chance.random() < 0.5)
    if kind == 9:
        return broken.stall(chance.random() / 20, after_bytes=chance.randrange(0, 2000))
    if kind == 10:
        return broken.headers(
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(now) + chance.choice([-9, 2]))}
        )
    return broken.headers({"Date": "Thu, 01 Jan 1970 00:00:00 GMT"})


def _file_fault(chance: random.Random) -> broken.Action:
    """Draw one fault of a location: it has expired, its file is another one, its connection breaks."""
    return chance.choice(
        [
            broken.respond(403, "<Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"}),
            broken.headers({"ETag": '"another"'}),
            broken.break_body(chance.randrange(1, 9000), reset=chance.random() < 0.5),
            broken.html(503),
            broken.reset(),
        ]
    )


def _break(everything: WholeSystem, chance: random.Random) -> None:
    for _ in range(chance.randrange(0, 5)):
        request = chance.choice(
            ["* /api/v2/*", "POST /oauth/token", "GET /api/v2/jobs/*", "GET /api/v2/organizations*", "* /api/v2/jobs*"]
        )
        everything.tenant.faults.add(
            request, _fault(chance, time.time()), times=chance.randrange(1, 4), after=chance.randrange(0, 4)
        )
    for _ in range(chance.randrange(0, 3)):
        everything.tenant.faults.add("GET /job_*", _file_fault(chance), after=chance.randrange(0, 4))
    for _ in range(chance.randrange(0, 3)):
        everything.domain.faults.add("GET /v1/*", _fault(chance, time.time()), after=chance.randrange(0, 4))
    everything.tenant.switches.polls_until_completed = chance.randrange(0, 4)
    everything.tenant.switches.polls_processing = chance.randrange(0, 2)
    everything.tenant.switches.file_ranges = chance.random() < 0.8
    for number in range(2):
        if chance.random() < 0.2:
            everything.tenant.jobs.fates[len(everything.tenant.jobs.fates) + number] = "failed"


EXPORTS: tuple[list[dict[str, Any]], list[dict[str, Any]]] = (
    [{"dataset": "users", "connection_id": FIRST_CONNECTION}, {"dataset": "members"}],
    [{"dataset": "users", "format": "csv"}, {"dataset": "users", "format": "ndjson"}],
)


@pytest.fixture(scope="module")
def everything() -> Iterator[WholeSystem]:
    with world(users=120, organizations=2, cybozu_users=110, MaxParallelExports="3", copy_lanes=2) as running:
        yield running


@pytest.fixture(scope="module")
def changes(everything: WholeSystem) -> Changes:
    return Changes(everything)


def _a_run(everything: WholeSystem, chance: random.Random) -> None:
    """A run with everything against it, repaired until it is complete."""
    everything.empty()
    everything.configure(*EXPORTS)
    _break(everything, chance)
    everything.watch = reaper = Reaper(chance, 0.01)
    moment = everything.next_tick()
    # The tick comes once, or twice, or twice at the same time.
    others = [threading.Thread(target=everything.aws.tick, args=(moment,)) for _ in range(chance.randrange(0, 3))]
    for other in others:
        other.start()
    run_id = everything.run(moment)
    for other in others:
        other.join()
    attempt = 1
    # What is there at any time is whole; what is missing has its reason, and a repair brings it.
    while not (manifest := everything.run_manifest(run_id, attempt))["complete"]:
        assert all(missing["error"] != "UnexpectedError" for missing in manifest["missing"]), manifest["missing"]
        everything.archived()
        attempt += 1
        assert attempt <= MAX_ATTEMPTS, manifest["missing"]
        if attempt == MAX_ATTEMPTS - 1:
            everything.tenant.faults.clear()
            everything.domain.faults.clear()
            everything.watch = None
        outcome = everything.aws.invoke({"run_id": run_id, "repair": True})
        while outcome.failed:
            outcome = everything.aws.invoke({"run_id": run_id, "repair": True})
        assert outcome.payload["attempt"] == attempt, outcome.payload
        everything.wait(run_id, attempt)
    found = everything.archived()
    assert len(found) == 4
    # Who vanished may have left an upload, which a lifecycle rule ends; whoever failed ended his own.
    assert everything.aws.unfinished_uploads() <= reaper.kills
    for archived in found.values():
        job = archived.manifest["job"]
        if job is not None:
            expected = everything.tenant.expected_file(job["id"]).sha256
            assert archived.manifest["object"]["sha256"] == expected
    assert found["example/users/csv/all"].body == everything.domain.expected_csv("user")


def _a_batch(changes: Changes, chance: random.Random) -> None:
    """A batch of changes with everything against it."""
    changes.begin()
    changes.world.configure(*EXPORTS)
    for _ in range(chance.randrange(0, 4)):
        action = chance.choice(
            [
                broken.too_many_requests(retry_after=chance.choice([0, 1, 60])),
                broken.too_many_requests(),
                broken.html(503),
                broken.reset(after_processing=chance.random() < 0.5),
            ]
        )
        request = chance.choice(["* /api/v2/*", "POST /oauth/token", "* /api/v2/organizations/*"])
        changes.world.tenant.faults.add(request, action, after=chance.randrange(0, 8))
    changes.world.watch = Reaper(chance, 0.02)
    changes.deliver()
    changes.check()


def _seeds(share: int) -> list[int]:
    return [int(SEED)] if SEED is not None else list(range(share, SEEDS, SHARES))


@pytest.mark.parametrize("share", [0] if SEED is not None else range(SHARES))
def test_random_faults_lose_nothing(
    everything: WholeSystem,
    changes: Changes,
    share: int,
    monkeypatch: pytest.MonkeyPatch,
    tell: Callable[[str], None],
) -> None:
    failures, began = [], time.monotonic()
    seeds = _seeds(share)
    for seed in seeds:
        chance = random.Random(seed)  # noqa: S311  # to be drawn again, not to be kept from anybody
        clock = Clock(skew=chance.uniform(-300, 300))
        monkeypatch.setattr("meibo.http.ratelimit.SystemClock.now", lambda _self, clock=clock: clock.now())
        monkeypatch.setattr(
            "meibo.http.ratelimit.SystemClock.sleep", lambda _self, seconds, clock=clock: clock.sleep(seconds)
        )
        try:
            # Every fourth seed is for changes, which are quicker to go wrong in fewer ways.
            if seed % 4 == 3:
                _a_batch(changes, chance)
            else:
                _a_run(everything, chance)
        except Exception as error:  # noqa: BLE001  # told with its seed
            failures.append(f"make soak SEED={seed}: {type(error).__name__}: {str(error)[:600]}")

    tell(f"random faults: {len(seeds)} seeds, {len(failures)} failed, {time.monotonic() - began:.0f} s")
    assert not failures, "\n".join(failures)
