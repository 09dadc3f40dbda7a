from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meibo.errors import ProviderBusyError
from meibo.http.ratelimit import MAX_BACKOFF_SECONDS, MAX_TRUSTED_RESET_SECONDS, RateLimiter
from tests.support.clock import FakeClock
from tests.support.transport import at


def pacer(clock: FakeClock, *, seconds: float | None = None, jitter: float = 1.0, headroom: int = 0) -> RateLimiter:
    deadline = None if seconds is None else clock.deadline(seconds)
    return RateLimiter("Auth0 (acme.test)", clock, time_left=deadline, headroom=headroom, jitter=lambda: jitter)


def test_next_request_waits_for_an_empty_bucket() -> None:
    clock = FakeClock()
    paced = pacer(clock)

    paced.read_headers("jobs", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(clock.now() + 7)})
    paced.wait_for_turn("jobs")

    assert clock.slept == [7]


def test_headroom_leaves_at_least_one_request_of_a_small_bucket() -> None:
    clock = FakeClock()
    paced = pacer(clock, headroom=5)
    headers = {"x-ratelimit-limit": "2", "x-ratelimit-reset": str(clock.now() + 1)}

    paced.read_headers("global", {**headers, "x-ratelimit-remaining": "1"})
    paced.wait_for_turn("global")

    assert clock.slept == [1]


def test_bucket_with_remaining_requests_causes_no_wait() -> None:
    clock = FakeClock()
    paced = pacer(clock)

    paced.read_headers("jobs", {"x-ratelimit-remaining": "1", "x-ratelimit-reset": str(clock.now() + 7)})
    paced.wait_for_turn("jobs")

    assert clock.slept == []


def test_buckets_are_independent() -> None:
    clock = FakeClock()
    paced = pacer(clock)

    paced.read_headers("jobs", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(clock.now() + 7)})
    paced.wait_for_turn("members")

    assert clock.slept == []


@pytest.mark.parametrize("skew", [-300, 300])
def test_reset_is_relative_to_the_providers_clock(skew: int) -> None:
    clock = FakeClock()
    paced = pacer(clock)
    theirs = clock.now() + skew

    paced.read_headers(
        "jobs", {**_lower(at(theirs)), "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(theirs + 5)}
    )
    paced.wait_for_turn("jobs")

    assert sum(clock.slept) == pytest.approx(5, abs=1)


def test_reset_in_the_past_causes_no_wait() -> None:
    clock = FakeClock()
    paced = pacer(clock)

    paced.read_headers("jobs", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(clock.now() - 100)})
    paced.wait_for_turn("jobs")

    assert clock.slept == []


def test_distant_reset_is_limited_to_the_longest_window() -> None:
    clock = FakeClock()
    paced = pacer(clock)

    paced.read_headers("jobs", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(clock.now() + 90_000)})
    paced.wait_for_turn("jobs")

    assert sum(clock.slept) == MAX_TRUSTED_RESET_SECONDS


def test_wait_beyond_the_invocation_raises_provider_busy() -> None:
    clock = FakeClock()
    paced = pacer(clock, seconds=30)
    paced.read_headers("jobs", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(clock.now() + 60)})

    with pytest.raises(ProviderBusyError) as caught:
        paced.wait_for_turn("jobs")

    assert clock.slept == []
    assert caught.value.retry_after == 60
    assert str(caught.value) == (
        "Auth0 (acme.test) is rate-limited for 60 s but only 25 s remain; the request is sent in a later invocation"
    )


def test_request_without_remaining_time_raises_provider_busy() -> None:
    paced = pacer(FakeClock(), seconds=5)

    with pytest.raises(ProviderBusyError) as caught:
        paced.wait_for_turn("jobs")

    assert str(caught.value) == (
        "the invocation has no time left for another request to Auth0 (acme.test); the request is sent in a later"
        " invocation"
    )


def test_retry_after_in_seconds_is_obeyed() -> None:
    wait = pacer(FakeClock(), jitter=0).retry_delay({"retry-after": "40"}, attempt=0)

    assert 40 <= wait < 41


def test_retry_after_as_a_date_is_relative_to_the_providers_clock() -> None:
    clock = FakeClock()
    paced = pacer(clock, jitter=0)
    theirs = clock.now() + 300
    headers = {**_lower(at(theirs)), "retry-after": formatdate(theirs + 20, usegmt=True)}

    paced.read_headers("jobs", headers)

    assert 20 <= paced.retry_delay(headers, attempt=0) < 22


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"retry-after": "0"},
        {"retry-after": "-5"},
        {"retry-after": "soon"},
        {"retry-after": "nan"},
        {"retry-after": "Fri, 99 Foo 2026 00:00:00 GMT"},
        {"x-ratelimit-reset": "1"},
        {"x-ratelimit-reset": "inf"},
    ],
)
def test_wait_without_a_usable_header_grows_with_each_attempt(headers: dict[str, str]) -> None:
    paced = pacer(FakeClock())

    waits = [paced.retry_delay(headers, attempt) for attempt in range(12)]

    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == MAX_BACKOFF_SECONDS


@given(text=st.text(max_size=40) | st.text("0123456789²٣.+-: ,GMTJanFri", max_size=40), after_a_date=st.booleans())
def test_invalid_header_is_ignored(text: str, after_a_date: bool) -> None:
    value = f"Fri, 31 Dec 9999 23:59:59 {text}" if after_a_date else text
    paced = pacer(FakeClock())
    names = ("date", "retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    headers = dict.fromkeys(names, value)

    paced.read_headers("jobs", headers)

    assert paced.retry_delay(headers, attempt=0) > 0


def test_jitter_is_at_most_half_of_a_wait() -> None:
    assert pacer(FakeClock(), jitter=0).retry_delay({}, attempt=3) == 4


def test_reset_is_obeyed_after_429() -> None:
    clock = FakeClock()

    wait = pacer(clock, jitter=0).retry_delay({"x-ratelimit-reset": str(clock.now() + 12)}, attempt=0)

    assert 12 <= wait < 13


def _lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Bucket:
    """A token bucket with the headers of Auth0: ``reset`` is the time of the next token, in integer seconds."""

    def __init__(self, clock: FakeClock, *, burst: int, per_minute: int, skew: float) -> None:
        self.clock, self.burst, self.per_minute, self.skew = clock, burst, per_minute, skew
        self.tokens, self.since, self.taken, self.refused = float(burst), clock.now(), 0, 0

    def answer(self) -> tuple[int, dict[str, str]]:
        rate = self.per_minute / 60
        now = self.clock.now()
        self.tokens, self.since = min(self.burst, self.tokens + (now - self.since) * rate), now
        status = 429
        if self.tokens >= 1:
            self.tokens -= 1
            self.taken += 1
            status = 200
        else:
            self.refused += 1
        wait = max(0.0, (1 - self.tokens) / rate)
        reset = -(-(now + self.skew + wait) // 1)
        return status, {
            **_lower(at(now + self.skew)),
            "x-ratelimit-limit": str(self.burst),
            "x-ratelimit-remaining": str(int(self.tokens)),
            "x-ratelimit-reset": str(int(reset)),
        }


@settings(max_examples=150, deadline=None)
@given(
    burst=st.integers(1, 60),
    per_minute=st.integers(10, 3000),
    skew=st.floats(-300, 300),
    start=st.floats(0, 1),
    latencies=st.lists(st.floats(0.005, 2), min_size=1, max_size=5),
)
def test_single_client_never_receives_429(
    burst: int, per_minute: int, skew: float, start: float, latencies: list[float]
) -> None:
    clock = FakeClock(1_800_000_000 + start)
    bucket = Bucket(clock, burst=burst, per_minute=per_minute, skew=skew)
    paced = pacer(clock)

    for number in range(120):
        paced.wait_for_turn("members")
        clock.time += latencies[number % len(latencies)] / 2
        status, headers = bucket.answer()
        clock.time += latencies[number % len(latencies)] / 2
        paced.read_headers("members", headers)
        assert status == 200


@pytest.mark.parametrize(("burst", "per_minute"), [(2, 120), (5, 50), (20, 200), (10, 100), (40, 500)])
def test_client_uses_nearly_the_whole_limit(burst: int, per_minute: int) -> None:
    clock = FakeClock()
    bucket = Bucket(clock, burst=burst, per_minute=per_minute, skew=-120)
    paced = pacer(clock)
    start = clock.now()

    for _ in range(2000):
        paced.wait_for_turn("members")
        clock.time += 0.05
        paced.read_headers("members", bucket.answer()[1])

    possible = burst + (clock.now() - start) / 60 * per_minute
    assert bucket.refused == 0
    assert 0.95 * possible <= 2000


@pytest.mark.parametrize(("burst", "per_minute"), [(5, 50), (20, 200), (10, 100), (40, 500), (50, 960)])
@pytest.mark.parametrize("clients", [2, 3, 4])
def test_concurrent_clients_share_a_limit_with_few_429(burst: int, per_minute: int, clients: int) -> None:
    shared = FakeClock()
    bucket = Bucket(shared, burst=burst, per_minute=per_minute, skew=0)
    clocks = [FakeClock() for _ in range(clients)]
    pacers = [pacer(clock, headroom=clients) for clock in clocks]
    ready = [False] * clients
    start, done, end = shared.now(), 0, shared.now() + 600

    # The client with the earliest time is next: it waits for its turn, or sends its request.
    while min(clock.time for clock in clocks) < end:
        number = min(range(clients), key=lambda client: clocks[client].time)
        if not ready[number]:
            pacers[number].wait_for_turn("members")
            ready[number] = True
            continue
        ready[number] = False
        shared.time = max(shared.time, clocks[number].time)
        status, headers = bucket.answer()
        clocks[number].time += 0.08
        pacers[number].read_headers("members", headers)
        done += status == 200
        if status == 429:
            pacers[number].hold("members", pacers[number].retry_delay(headers, 0))

    assert bucket.refused <= 10
    assert done >= 0.95 * (burst + (shared.now() - start) / 60 * per_minute) - clients * 5
