"""Connections, bodies and rates can be broken for single requests."""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from meibo_simulators import faults
from meibo_simulators.auth0.errors import ApiError
from meibo_simulators.auth0.ratelimit import RateLimits
from meibo_simulators.auth0.switches import Switches
from tests.integration.simulators.conftest import Api, Domain, trusting
from tests.support.clock import FakeClock

MISSING = "/jobs/job_0000000000000000"


def test_fault_applies_only_to_matching_requests(api: Api, tenant: Any) -> None:
    tenant.faults.add("GET /api/v2/jobs/*", faults.respond(500), after=1, times=2)
    tenant.faults.add("POST *", faults.respond(503))
    assert [api.get(MISSING).status_code for _ in range(4)] == [404, 500, 500, 404]
    assert [api.post("/jobs/users-exports", {}).status_code for _ in range(2)] == [503, 200]


def test_rate_limit_response_with_and_without_headers(api: Api, tenant: Any) -> None:
    tenant.faults.add("GET *", faults.too_many_requests())
    tenant.faults.add("GET *", faults.too_many_requests(retry_after=3, reset=1_800_000_000))
    bare, described = api.get(MISSING), api.get(MISSING)
    assert bare.json()["errorCode"] == "too_many_requests"
    assert "Retry-After" not in bare.headers
    assert (described.headers["Retry-After"], described.headers["x-ratelimit-reset"]) == ("3", "1800000000")


def test_reset_before_the_response_may_follow_the_effect(api: Api, tenant: Any) -> None:
    tenant.faults.add("POST *", faults.reset())
    tenant.faults.add("POST *", faults.reset(after_processing=True))
    for created in (0, 1):
        with pytest.raises(requests.ConnectionError):
            api.post("/jobs/users-exports", {})
        assert tenant.jobs.created == created
    assert [request.status for request in list(tenant.requests)[-2:]] == [0, 0]


@pytest.mark.parametrize("reset", [True, False])
def test_body_ends_before_its_announced_length(api: Api, tenant: Any, reset: bool) -> None:
    location = api.completed()["location"]
    tenant.faults.add("GET /job_*", faults.break_body(1000, reset=reset))
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="1000 bytes read"):
        api.download(location)
    assert api.download(location).status_code == 200


def test_stall_and_drip_delay_the_client(api: Api, tenant: Any) -> None:
    location = api.completed()["location"]
    tenant.faults.add("GET /job_*", faults.stall(2, after_bytes=100, stop=tenant.stopping))
    tenant.faults.add("GET /job_*", faults.drip(2, stop=tenant.stopping))
    session = trusting(Path(str(api.session.verify)))
    for _ in range(2):
        with pytest.raises((requests.ConnectionError, requests.Timeout)):
            session.get(location, timeout=(5, 0.2)).content  # noqa: B018 - reading is the point


def test_endless_body_and_added_headers(api: Api, tenant: Any) -> None:
    tenant.faults.add("GET *", faults.endless())
    session = trusting(Path(str(api.session.verify)))
    with session.get(f"{api.base}/x", timeout=5, stream=True) as answer:
        size = sum(len(chunk) for chunk in itertools.islice(answer.iter_content(65536), 50))
    assert size == 50 * 65536
    tenant.faults.add("GET *", faults.headers({"X-Large": "x" * 5000}))
    assert len(api.get(MISSING).headers["X-Large"]) == 5000


def test_body_is_generated_while_it_is_sent(api: Api, tenant: Any) -> None:
    tenant.faults.add("GET *", faults.stream(lambda: itertools.repeat(b"x" * 1000, 3), {"X-Made": "up"}))
    answer = api.get(MISSING)
    assert (answer.content, answer.headers["X-Made"]) == (b"x" * 3000, "up")


def test_stopped_simulator_does_not_respond(simulators: Any, api: Api) -> None:
    host, _, port = api.tenant.domain.partition(":")
    context = ssl.create_default_context(cafile=simulators.ca_file)
    plain = socket.create_connection(("127.0.0.1", int(port)), timeout=5)
    with context.wrap_socket(plain, server_hostname=host) as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 404"
        simulators.stop()
        while connection.recv(4096):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=5)


@pytest.mark.parametrize("length", ["²", "-1", "1_0", "x", "9" * 5000])
def test_malformed_content_length_is_rejected(simulators: Any, api: Api, length: str) -> None:
    host, _, port = api.tenant.domain.partition(":")
    context = ssl.create_default_context(cafile=simulators.ca_file)
    plain = socket.create_connection(("127.0.0.1", int(port)), timeout=5)
    with context.wrap_socket(plain, server_hostname=host) as connection:
        connection.sendall(f"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode("latin-1"))
        assert connection.recv(12) == b"HTTP/1.1 400"


def test_connections_are_reused(api: Api, tenant: Any) -> None:
    for _ in range(5):
        api.get(MISSING)
    assert len({request.client_port for request in list(tenant.requests)[-5:]}) == 1


# -- rate limits


def limits(tier: Any, clock: FakeClock, **switches: Any) -> RateLimits:
    return RateLimits(Switches(rate_tier=tier, **switches), clock)


def taken(limited: RateLimits, endpoint: str) -> int:
    count = 0
    while True:
        try:
            limited.take(endpoint)
        except ApiError:
            return count
        count += 1


@pytest.mark.parametrize(
    ("tier", "endpoint", "burst"),
    [("free", "jobs", 2), ("essentials", "jobs", 10), ("essentials", "enabled_connections", 5)],
)
def test_burst_is_the_bucket_capacity(clock: FakeClock, tier: str, endpoint: str, burst: int) -> None:
    assert taken(limits(tier, clock), endpoint) == burst


def test_global_bucket_is_checked_before_the_endpoint_bucket(clock: FakeClock) -> None:
    limited = limits("enterprise", clock)
    assert taken(limited, "write_members") == 20
    assert taken(limited, "jobs") == 30


@pytest.mark.parametrize("refill", ["second", "window"])
def test_sustained_rate_is_enforced_over_minutes(clock: FakeClock, refill: str) -> None:
    limited = limits("essentials", clock, rate_refill=refill)
    taken(limited, "write_members")
    total = 0
    for _ in range(300):
        clock.advance(1)
        total += taken(limited, "write_members")
    assert total == (1000 if refill == "second" else 100)


def test_reset_is_the_time_of_the_next_token(clock: FakeClock) -> None:
    limited = limits("essentials", clock)
    taken(limited, "enabled_connections")
    with pytest.raises(ApiError) as refused:
        limited.take("enabled_connections")
    reset = int(refused.value.headers["x-ratelimit-reset"])
    clock.time = reset - 0.01
    with pytest.raises(ApiError):
        limited.take("enabled_connections")
    clock.time = float(reset)
    limited.take("enabled_connections")


@pytest.mark.parametrize("switch", [False, True])
def test_retry_after_of_a_429_is_a_switch(clock: FakeClock, switch: bool) -> None:
    limited = limits("essentials", clock, retry_after=switch)
    taken(limited, "enabled_connections")
    with pytest.raises(ApiError) as refused:
        limited.take("enabled_connections")
    headers = refused.value.headers
    wait = int(headers["x-ratelimit-reset"]) - clock.time
    assert headers.get("Retry-After") == (str(math.ceil(wait)) if switch else None)


def test_rate_limit_headers_are_missing_in_validation_errors(api: Api, tenant: Any) -> None:
    tenant.switches.rate_tier = "essentials"
    answer = api.get(MISSING)
    assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("10", "9")
    assert "x-ratelimit-limit" not in api.post("/jobs/users-exports", {"limit": 0}).headers
    for _ in range(8):
        api.get(MISSING)
    refused = api.get(MISSING)
    assert (refused.status_code, refused.headers["x-ratelimit-remaining"]) == (429, "0")
    assert tenant.limits.refused == 1


def test_token_endpoint_has_a_separate_limit(api: Api, tenant: Any) -> None:
    tenant.switches.rate_tier = "essentials"
    statuses = [api.token(tenant.credentials()).status_code for _ in range(26)]
    assert statuses == [200] * 25 + [429]
    assert api.get(MISSING).status_code == 404


# -- a process of its own


def test_separate_process_serves_until_its_input_closes() -> None:
    command = [sys.executable, "-m", "meibo_simulators", "--users", "50", "--cybozu-users", "5"]
    with subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    ) as process:
        assert process.stdout is not None
        described = json.loads(process.stdout.readline())
        acme = described["auth0"]["acme"]
        session = trusting(Path(described["ca_file"]))
        url = f"https://{acme['source']['domain']}"
        form = {"grant_type": "client_credentials", "audience": f"{url}/api/v2/"}
        answer = session.post(f"{url}/oauth/token", data={**form, **acme["credentials"]}, timeout=10)
        assert answer.status_code == 200
        assert described["cybozu"]["example"]["users"] == 5
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


def test_representations_contain_no_secrets(api: Api, domain: Domain) -> None:
    texts = f"{api.tenant!r} {domain.domain!r} {domain.domain.account!r} {api.tenant.client!r}"
    assert domain.domain.account.password not in texts
    assert str(api.tenant.client.secret) not in texts
