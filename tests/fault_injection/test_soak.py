"""Inject random faults from seeds. ``make soak SEEDS=1000`` runs 1,000 seeds; ``make soak SEED=17`` repeats a seed."""

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
from tests.fault_injection.change_batch import ChangeBatch
from tests.fault_injection.external_calls import Call, Invocation, InvocationKilled
from tests.fault_injection.system import WholeSystem, start_system

pytestmark = [
    pytest.mark.timeout(24 * 3600),
    # A killed invocation does not close its connections.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

SEEDS = int(os.environ.get("MEIBO_SOAK_SEEDS", "12"))
SEED = os.environ.get("MEIBO_SOAK_SEED") or None
# The number of pytest workers in CI.
SHARES = 2
# The workflow retries a failed invocation twice.
MAX_KILLS = 2
MAX_ATTEMPTS = 5


class Clock:
    """The functions' clock, with a skew in seconds; ``sleep`` moves it forward and returns at once."""

    def __init__(self, skew: float) -> None:
        self.ahead = skew

    def now(self) -> float:
        return time.time() + self.ahead

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds


class Reaper:
    """Kills random invocations, as a timeout does."""

    def __init__(self, chance: random.Random, share: float) -> None:
        self.kills = 0
        self._chance = chance
        self._share = share
        self._lock = threading.Lock()

    def before(self, invocation: Invocation, call: Call) -> None:
        self._maybe_kill(invocation)

    def after(self, invocation: Invocation, call: Call) -> None:
        self._maybe_kill(invocation)

    def _maybe_kill(self, invocation: Invocation) -> None:
        with self._lock:
            if self.kills < MAX_KILLS and self._chance.random() < self._share:
                self.kills += 1
                invocation.killed = True
        if invocation.killed:
            raise InvocationKilled


def _fault(chance: random.Random, now: float) -> broken.Action:
    """Return a random fault."""
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
    """Return a random fault of a location: an expired location, a changed file or a broken connection."""
    return chance.choice(
        [
            broken.respond(403, "<Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"}),
            broken.headers({"ETag": '"another"'}),
            broken.break_body(chance.randrange(1, 9000), reset=chance.random() < 0.5),
            broken.html(503),
            broken.reset(),
        ]
    )


def _add_random_faults(system: WholeSystem, chance: random.Random) -> None:
    for _ in range(chance.randrange(0, 5)):
        request = chance.choice(
            ["* /api/v2/*", "POST /oauth/token", "GET /api/v2/jobs/*", "GET /api/v2/organizations*", "* /api/v2/jobs*"]
        )
        system.tenant.faults.add(
            request, _fault(chance, time.time()), times=chance.randrange(1, 4), after=chance.randrange(0, 4)
        )
    for _ in range(chance.randrange(0, 3)):
        system.tenant.faults.add("GET /job_*", _file_fault(chance), after=chance.randrange(0, 4))
    for _ in range(chance.randrange(0, 3)):
        system.domain.faults.add("GET /v1/*", _fault(chance, time.time()), after=chance.randrange(0, 4))
    system.tenant.switches.polls_until_completed = chance.randrange(0, 4)
    system.tenant.switches.polls_processing = chance.randrange(0, 2)
    system.tenant.switches.file_ranges = chance.random() < 0.8
    for number in range(2):
        if chance.random() < 0.2:
            system.tenant.jobs.fates[len(system.tenant.jobs.fates) + number] = "failed"


EXPORTS: tuple[list[dict[str, Any]], list[dict[str, Any]]] = (
    [{"dataset": "users", "connection_id": FIRST_CONNECTION}, {"dataset": "members"}],
    [{"dataset": "users", "format": "csv"}, {"dataset": "users", "format": "ndjson"}],
)


@pytest.fixture(scope="module")
def system() -> Iterator[WholeSystem]:
    with start_system(users=120, organizations=2, cybozu_users=110, MaxParallelExports="3", copy_workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def changes(system: WholeSystem) -> ChangeBatch:
    return ChangeBatch(system)


def _run(system: WholeSystem, chance: random.Random) -> None:
    """Run with random faults, and repair until the run is complete."""
    system.reset()
    system.configure_exports(*EXPORTS)
    _add_random_faults(system, chance)
    system.observer = reaper = Reaper(chance, 0.01)
    moment = system.next_tick()
    # The tick is delivered once, or up to three times at the same time.
    others = [threading.Thread(target=system.aws.tick, args=(moment,)) for _ in range(chance.randrange(0, 3))]
    for other in others:
        other.start()
    run_id = system.run(moment)
    for other in others:
        other.join()
    attempt = 1
    # After each attempt, archived exports are complete and missing exports have a reason. A repair archives them.
    while not (manifest := system.run_manifest(run_id, attempt))["complete"]:
        assert all(missing["error"] != "UnexpectedError" for missing in manifest["missing"]), manifest["missing"]
        system.archived()
        attempt += 1
        assert attempt <= MAX_ATTEMPTS, manifest["missing"]
        if attempt == MAX_ATTEMPTS - 1:
            system.tenant.faults.clear()
            system.domain.faults.clear()
            system.observer = None
        outcome = system.aws.invoke({"run_id": run_id, "repair": True})
        while outcome.failed:
            outcome = system.aws.invoke({"run_id": run_id, "repair": True})
        assert outcome.payload["attempt"] == attempt, outcome.payload
        system.wait(run_id, attempt)
    exports = system.archived()
    assert len(exports) == 4
    # A killed invocation may leave an upload, which a lifecycle rule aborts. A failed invocation aborts its upload.
    assert system.aws.unfinished_uploads() <= reaper.kills
    for archived in exports.values():
        job = archived.manifest["job"]
        if job is not None:
            expected = system.tenant.expected_file(job["id"]).sha256
            assert archived.manifest["object"]["sha256"] == expected
    assert exports["example/users/csv/all"].body == system.domain.expected_csv("user")


def _apply_batch(changes: ChangeBatch, chance: random.Random) -> None:
    """Apply a batch of changes with random faults."""
    changes.reset()
    changes.system.configure_exports(*EXPORTS)
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
        changes.system.tenant.faults.add(request, action, after=chance.randrange(0, 8))
    changes.system.observer = Reaper(chance, 0.02)
    changes.deliver()
    changes.check()


def _seeds(share: int) -> list[int]:
    return [int(SEED)] if SEED is not None else list(range(share, SEEDS, SHARES))


@pytest.mark.parametrize("share", [0] if SEED is not None else range(SHARES))
def test_random_faults_lose_nothing(
    system: WholeSystem,
    changes: ChangeBatch,
    share: int,
    monkeypatch: pytest.MonkeyPatch,
    report_line: Callable[[str], None],
) -> None:
    failures, started_at = [], time.monotonic()
    seeds = _seeds(share)
    for seed in seeds:
        chance = random.Random(seed)  # noqa: S311  # reproducible, not secret
        clock = Clock(skew=chance.uniform(-300, 300))
        monkeypatch.setattr("meibo.clock.SystemClock.now", lambda _self, clock=clock: clock.now())
        monkeypatch.setattr("meibo.clock.SystemClock.sleep", lambda _self, seconds, clock=clock: clock.sleep(seconds))
        try:
            # Every fourth seed tests changes, which have fewer kinds of faults.
            if seed % 4 == 3:
                _apply_batch(changes, chance)
            else:
                _run(system, chance)
        except Exception as error:  # noqa: BLE001  # reported with its seed
            failures.append(f"make soak SEED={seed}: {type(error).__name__}: {str(error)[:600]}")

    report_line(f"random faults: {len(seeds)} seeds, {len(failures)} failed, {time.monotonic() - started_at:.0f} s")
    assert not failures, "\n".join(failures)
