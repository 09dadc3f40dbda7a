"""Tokens, signatures, passwords, addresses and names are planted, everything is broken, and nobody hears of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from html import escape
from typing import Any, Self
from urllib.parse import quote

import pytest

from meibo.observability import logger
from meibo_simulators import FIRST_CONNECTION
from meibo_simulators import faults as broken
from tests.fault_injection.captured_output import Break, CapturedOutput, Secrets, listening
from tests.fault_injection.system import WholeSystem, world

pytestmark = pytest.mark.timeout(900)

CANARY = "kanaria-0f3b@people.example"
SIGNED = "https://elsewhere.example/job_1/acme.json.gz?X-Amz-Signature=0f3bkanariasignature"
ECHO = {
    "statusCode": 400,
    "error": CANARY,
    "message": f"Payload validation error: {CANARY} {SIGNED}",
    "errorCode": CANARY,
    "code": CANARY,
    "id": CANARY,
    "location": SIGNED,
    "error_description": CANARY,
}

AUTH0 = ["POST /oauth/token", "POST /api/v2/jobs/*", "GET /api/v2/jobs/*", "GET /job_*", "GET /api/v2/organizations*"]
CYBOZU = ["GET /v1/csv/*", "GET /v1/users.json"]
ANSWERS: dict[str, broken.Action] = {
    **{
        f"{status} that repeats what it was told": broken.respond(
            status, json.dumps(ECHO), {"Content-Type": "application/json", "X-Cybozu-Error": CANARY, "X-Note": CANARY}
        )
        for status in (200, 400, 401, 403, 404, 409, 429, 500, 520)
    },
    "a redirect to a signed address": broken.redirect(SIGNED),
    "a page that names somebody": broken.respond(200, f"<html>{CANARY}</html>", {"Content-Type": "text/html"}),
    "a reset": broken.reset(),
    "a broken body": broken.break_body(20),
}
EXPORTS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "auth0": ([{"dataset": "users", "connection_id": FIRST_CONNECTION}, {"dataset": "members"}], []),
    "cybozu": ([], [{"dataset": "users", "format": "csv"}, {"dataset": "users", "format": "ndjson"}]),
}


def _switch(name: str, value: Any) -> Break:
    return lambda everything: setattr(everything.tenant.switches, name, value)


# As in the pipeline's own tests of bad input, each with what is put back afterwards.
SWITCHES: dict[str, tuple[str, Any]] = {
    "a location elsewhere": ("location_host", "exports.example.net"),
    "a location in the clear": ("location_scheme", "http"),
    "a location that redirects": ("redirect_files_to", "https://169.254.169.254/latest"),
    "a location that has expired": ("location_ttl", -1.0),
    "a lost job": ("job_fate", "failed"),
    "a vanished job": ("job_fate", "vanished"),
    "a damaged file": ("file_damage", lambda data: data[:-8]),
    "a file that is not gzip data": ("gzip_files", False),
    "a file without ranges": ("file_ranges", False),
}


@pytest.fixture(scope="module")
def everything() -> Iterator[WholeSystem]:
    level = logger.log_level
    logger.setLevel("DEBUG")
    try:
        with world(users=40, organizations=2, cybozu_users=20) as running:
            yield running
    finally:
        logger.setLevel(level)


@pytest.fixture(scope="module")
def secrets(everything: WholeSystem) -> Iterator[Secrets]:
    secrets = Secrets()
    secrets.add("planted address", CANARY)
    secrets.add("planted signature", "0f3bkanariasignature")
    secrets.of_domain(everything.domain)
    with secrets.of_tenant(everything.tenant):
        yield secrets


class _Hurried(datetime):
    """A clock that is ten minutes further each time that somebody looks at it."""

    looks = 0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        cls.looks += 1
        return super().now(tz) + timedelta(minutes=10 * cls.looks)


@pytest.fixture(autouse=True)
def _time_flies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clients' waits be over at once, by a clock that they put forward themselves."""
    ahead = [0.0]
    _Hurried.looks = 0
    monkeypatch.setattr("meibo.http.ratelimit.SystemClock.now", lambda _self: time.time() + ahead[0])

    def sleep(_self: object, seconds: float) -> None:
        ahead[0] += seconds

    monkeypatch.setattr("meibo.http.ratelimit.SystemClock.sleep", sleep)
    # Hours in which a job is pending, and a day in which a provider gives nothing.
    monkeypatch.setattr("meibo.exports.check.datetime", _Hurried)
    monkeypatch.setattr("meibo.exports.checkpoint.MAX_STANDSTILL", timedelta(milliseconds=300))


def _run(everything: WholeSystem) -> None:
    outcome = everything.aws.tick(everything.next_tick())
    if not outcome.failed:
        everything.wait(outcome.payload["run_id"], outcome.payload["attempt"])
    # Leaves a record, whatever it found.
    everything.verify()


def test_the_search_finds_what_is_there(everything: WholeSystem, secrets: Secrets) -> None:
    everything.empty()
    everything.configure(*EXPORTS["auth0"])
    ears = CapturedOutput()

    with listening(everything, ears):
        _run(everything)

    assert ears.search(secrets) == []
    assert any(place == "log" for place, _ in ears.heard)
    assert any("CompleteRuns" in text for place, text in ears.heard if place == "output")
    places = {place for place, _ in ears.heard}
    assert {"history", "events:PutEvents", "stepfunctions:StartExecution", "s3:PutObject"} <= places
    # Everything that is ours in the bucket: plans, lists, run manifests, reports, verifications, records of parts.
    read = {place.partition("/")[0] for place in places if "/" in place}
    assert read == {"archive", "parts", "reports", "runs", "verifications"}
    kinds = set(secrets.planted.values())
    assert {"token", "X-Amz-Signature", "e-mail address", "name", "client secret", "password"} <= kinds
    # What the archive holds is what is looked for.
    ears.heard = [("archive", everything.archived()[f"acme/users/ndjson/{FIRST_CONNECTION}"].body.hex())]
    ears.heard.append(("planted", f"{CANARY} {everything.tenant.credentials()}"))
    name = next(value for value, kind in secrets.planted.items() if kind == "name" and not value.isascii())
    ears.heard += [("as JSON", json.dumps(json.dumps(name))), ("as a path", quote(name)), ("as a page", escape(name))]
    assert {one.partition(":")[0] for one in ears.search(secrets)} == {"planted", "as JSON", "as a path", "as a page"}


@pytest.mark.parametrize("provider", ["auth0", "cybozu"])
def test_no_answer_of_a_provider_is_repeated(
    everything: WholeSystem, secrets: Secrets, provider: str, tell: Callable[[str], None]
) -> None:
    found, tried = [], 0
    for request in AUTH0 if provider == "auth0" else CYBOZU:
        for name, action in ANSWERS.items():
            everything.empty()
            everything.configure(*EXPORTS[provider])
            site = everything.tenant if provider == "auth0" else everything.domain
            site.faults.add(request, action, times=None)
            ears = CapturedOutput()
            with listening(everything, ears):
                _run(everything)
            tried += 1
            found += [f"{request} answered with {name}: {one}" for one in ears.search(secrets)]

    tell(f"canary, hostile answers of {provider}: {tried} runs, {len(found)} leaks")
    assert not found, "\n".join(found)


def test_no_failure_of_a_location_or_a_file_tells_what_it_was_about(
    everything: WholeSystem, secrets: Secrets, tell: Callable[[str], None]
) -> None:
    found = []
    for name, (switch, value) in SWITCHES.items():
        before = getattr(everything.tenant.switches, switch)
        everything.empty()
        everything.configure(*EXPORTS["auth0"])
        setattr(everything.tenant.switches, switch, value)
        ears = CapturedOutput()
        with listening(everything, ears):
            _run(everything)
        setattr(everything.tenant.switches, switch, before)
        found += [f"{name}: {one}" for one in ears.search(secrets)]

    tell(f"canary, locations and files: {len(SWITCHES)} runs, {len(found)} leaks")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "secret",
    [
        CANARY,
        {"client_id": CANARY, "client_secret": f"{CANARY}\n"},
        {"client_id": "x", "private_key": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----"},
        {"login": CANARY},
        {CANARY: CANARY},
    ],
    ids=["no JSON", "a line end", "a broken key", "of another provider", "unknown names"],
)
def test_no_wrong_secret_is_told(everything: WholeSystem, secrets: Secrets, secret: Any) -> None:
    everything.empty()
    everything.configure(EXPORTS["auth0"][0], EXPORTS["cybozu"][1], **{"meibo/acme": secret, "meibo/example": secret})
    ears = CapturedOutput()

    with listening(everything, ears):
        _run(everything)

    assert ears.search(secrets) == []


@pytest.mark.parametrize("answer", ["as it should be", *ANSWERS])
def test_no_change_tells_whom_it_is_about(everything: WholeSystem, secrets: Secrets, answer: str) -> None:
    everything.empty()
    everything.configure(*EXPORTS["auth0"])
    organization = everything.tenant.organizations.ids()[0]
    change = {
        "version": 1,
        "change_id": "hr-1",
        "source": "acme",
        "organization_id": organization,
        "requested_by": CANARY,
    }
    people = [user["user_id"] for user in everything.tenant.expected_users()][:12]
    invitation = {"client_id": "portal", "inviter": CANARY}
    for message in (
        {**change, "action": "add", "members": people},
        {**change, "action": "add", "members": [CANARY]},
        {**change, "action": "invite", "members": [CANARY], "invitation": invitation},
        {**change, "action": CANARY, "members": people},
        {**change, "action": "remove", "members": people[:2], CANARY: CANARY, "roles": CANARY},
        {**change, "source": CANARY, "action": "add", "members": people},
        f"{{{CANARY}",
    ):
        everything.aws.changes.send(message)
    if answer in ANSWERS:
        for request in ("* /api/v2/organizations*", "GET /api/v2/users*"):
            everything.tenant.faults.add(request, ANSWERS[answer], times=None)
    ears = CapturedOutput()

    with listening(everything, ears):
        for _ in range(2):
            while everything.aws.changes.source.poll():
                pass
            everything.let_time_pass()

    assert ears.search(secrets) == []
