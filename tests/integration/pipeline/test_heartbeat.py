"""The heartbeat at the end of complete runs, sent to a simulated tenant's host over HTTPS on loopback."""

from __future__ import annotations

import json
import logging
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
from werkzeug.wrappers import Response

from meibo.exports import heartbeat
from meibo.observability import logger
from meibo_simulators import SimulatedDomain, SimulatedTenant
from meibo_simulators import faults as broken
from tests.support.stack import System, running_system

TOKEN = "0f3b-canary-token"
PING = f"/ping/{TOKEN}"


class Output(logging.Handler):
    """The lines that the functions log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.dumps({"message": record.getMessage(), **record.__dict__}, default=str))

    def heartbeats(self) -> list[str]:
        return [line for line in self.lines if "heartbeat" in line]


@pytest.fixture
def system() -> Iterator[System]:
    tenant = SimulatedTenant("acme", users=3)
    tenant.switches.polls_until_completed = 0
    with running_system(tenant, SimulatedDomain("example", users=3), HeartbeatSecret="meibo/heartbeat") as running:
        yield running


@pytest.fixture
def output() -> Iterator[Output]:
    handler = Output()
    logging.getLogger(logger.service).addHandler(handler)
    yield handler
    logging.getLogger(logger.service).removeHandler(handler)


def configure(system: System, url: str | None = None, *, password: str | None = None) -> None:
    secret = {"url": url or f"https://{system.tenant.domain}{PING}?rid=1"}
    secrets = {"meibo/heartbeat": secret}
    if password is not None:
        secrets["meibo/example"] = {"login": "Administrator", "password": password}
    system.configure(
        system.auth0_source({"dataset": "users"}), system.cybozu_source({"dataset": "users"}), secrets=secrets
    )


def pings(system: System) -> list[str]:
    return [request.path for request in system.tenant.requests if request.path.startswith("/ping")]


def assert_url_is_nowhere(system: System, output: Output) -> None:
    state = json.dumps([(event, outcome.payload) for _, event, outcome in system.invocations.calls])
    objects = b"".join(map(system.aws.read, system.aws.keys("runs/") + system.aws.keys("reports/")))
    assert TOKEN not in state
    assert TOKEN.encode() not in objects
    assert not any(TOKEN in line for line in output.lines)


def test_complete_run_sends_a_heartbeat(system: System, output: Output) -> None:
    configure(system)
    system.tenant.faults.add("GET /ping*", broken.respond(200, "OK"), times=None)

    manifest = system.run()

    assert manifest["complete"] is True
    assert pings(system) == [PING]
    assert_url_is_nowhere(system, output)


def test_incomplete_run_sends_none_and_its_repair_does(system: System, output: Output) -> None:
    configure(system, password="wrong")
    system.tenant.faults.add("GET /ping*", broken.respond(200, "OK"), times=None)
    assert system.run()["complete"] is False
    assert pings(system) == []

    configure(system)

    assert system.repair()["complete"] is True
    assert pings(system) == [PING]


def test_busy_service_receives_the_heartbeat_again(system: System, output: Output) -> None:
    configure(system)
    system.tenant.faults.add("GET /ping*", broken.respond(503), times=1)
    system.tenant.faults.add("GET /ping*", broken.reset(), times=1)
    system.tenant.faults.add("GET /ping*", broken.respond(204), times=None)

    assert system.run()["complete"] is True

    assert len(pings(system)) == 3
    assert '"attempt": 3' in output.heartbeats()[-1]


def test_failed_heartbeat_does_not_fail_the_run(system: System, output: Output) -> None:
    configure(system)
    system.tenant.faults.add("GET /ping*", broken.respond(404, TOKEN), times=None)

    assert system.run()["complete"] is True

    assert len(pings(system)) == heartbeat.MAX_ATTEMPTS
    assert "status 404" in output.heartbeats()[-1]
    assert_url_is_nowhere(system, output)


def test_failures_are_reported_without_the_url(system: System, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(system)

    def failure(action: broken.Action) -> str:
        system.tenant.faults.clear()
        system.tenant.faults.add("GET /ping*", action, times=None)
        heartbeat.Heartbeat("meibo/heartbeat").send()
        return output.heartbeats()[-1]

    assert "status 302" in failure(broken.redirect(f"https://{system.tenant.domain}{PING}-redirected"))
    assert "RemoteDisconnected" in failure(broken.reset())
    assert set(pings(system)) == {PING}
    # given: the certificate authority of the simulators is not trusted
    monkeypatch.setattr(ssl, "create_default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert "SSLCertVerificationError" in failure(broken.respond(200))
    assert_url_is_nowhere(system, output)


def respond_after(stop: threading.Event) -> broken.Action:
    def action(process: Callable[[], Response]) -> Response:
        stop.wait(30)
        return process()

    return action


def test_heartbeat_without_a_response_ends_after_its_time_out(
    system: System, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: a service that never responds
    configure(system)
    stop = threading.Event()
    system.tenant.faults.add("GET /ping*", respond_after(stop), times=None)
    monkeypatch.setattr(heartbeat, "TOTAL_TIMEOUT_SECONDS", 0.5)

    assert system.run()["complete"] is True

    stop.set()
    assert "no response within 0.5 seconds" in output.heartbeats()[-1]


def test_invalid_url_is_reported_without_its_text(system: System, output: Output) -> None:
    for url in (
        f"http://{system.tenant.domain}{PING}",
        f"https://user:{TOKEN}@localhost/",
        f"https:///{TOKEN}",
        f"https://localhost:x/{TOKEN}",
        f"https://localhost/{TOKEN} HTTP/1.1\r\nX-Injected: 1",
        "",
    ):
        system.aws.configure({"sources": []}, {"meibo/heartbeat": {"url": url}})
        heartbeat.Heartbeat("meibo/heartbeat").send()
    system.aws.configure({"sources": []}, {"meibo/heartbeat": f"https://localhost/{TOKEN}"})
    heartbeat.Heartbeat("meibo/heartbeat").send()

    *invalid, not_json = (json.loads(line)["reason"] for line in output.heartbeats())
    expected = 'the secret \'meibo/heartbeat\': expected {"url": "https://…"} with a host name, and without a'
    assert set(invalid) == {f"SecretError: {expected} user name and password"}
    assert len(invalid) == 6
    assert "SecretError: the secret 'meibo/heartbeat': expected a JSON object" in not_json
    assert pings(system) == []
    assert_url_is_nowhere(system, output)


def test_missing_secret_does_not_fail_the_run(system: System, output: Output) -> None:
    system.configure(system.cybozu_source({"dataset": "users"}))

    assert system.run()["complete"] is True

    assert "SecretError: the secret 'meibo/heartbeat' cannot be read" in output.heartbeats()[-1]
