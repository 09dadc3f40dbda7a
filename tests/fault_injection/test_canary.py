"""Plant tokens, signatures, passwords, addresses and names, cause failures, and search all output for them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from html import escape
from typing import Any, Self
from urllib.parse import quote

import boto3
import pytest

from meibo.observability import logger
from meibo_simulators import FIRST_CONNECTION
from meibo_simulators import faults as broken
from tests.fault_injection.captured_output import Secrets, capture
from tests.fault_injection.system import WholeSystem, start_system
from tests.support.changes import change_message

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
        f"{status} that repeats the request": broken.respond(
            status, json.dumps(ECHO), {"Content-Type": "application/json", "X-Cybozu-Error": CANARY, "X-Note": CANARY}
        )
        for status in (200, 400, 401, 403, 404, 409, 429, 500, 520)
    },
    "a redirect to a signed URL": broken.redirect(SIGNED),
    "a page with an e-mail address": broken.respond(200, f"<html>{CANARY}</html>", {"Content-Type": "text/html"}),
    "a reset": broken.reset(),
    "a broken body": broken.break_body(20),
}
EXPORTS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "auth0": ([{"dataset": "users", "connection_id": FIRST_CONNECTION}, {"dataset": "members"}], []),
    "cybozu": ([], [{"dataset": "users", "format": "csv"}, {"dataset": "users", "format": "ndjson"}]),
}


# The faults of tests/integration/pipeline/test_bad_input.py.
SWITCHES: dict[str, tuple[str, Any]] = {
    "a location on another host": ("location_host", "exports.example.net"),
    "a location without TLS": ("location_scheme", "http"),
    "a location that redirects": ("redirect_files_to", "https://169.254.169.254/latest"),
    "an expired location": ("location_ttl", -1.0),
    "a lost job": ("job_fate", "failed"),
    "a vanished job": ("job_fate", "vanished"),
    "a damaged file": ("file_damage", lambda data: data[:-8]),
    "a file that is not gzip data": ("gzip_files", False),
    "a file without ranges": ("file_ranges", False),
}


@pytest.fixture(scope="module")
def system() -> Iterator[WholeSystem]:
    level = logger.log_level
    logger.setLevel("DEBUG")
    try:
        with start_system(users=40, organizations=2, cybozu_users=20) as running:
            _limit_retries(running)
            yield running
    finally:
        logger.setLevel(level)


def _limit_retries(system: WholeSystem) -> None:
    """Make the workflow retry each error once, because every retry has the same output."""
    client, arn = boto3.client("stepfunctions"), system.aws.state_machine_arn
    definition = client.describe_state_machine(stateMachineArn=arn)["definition"]
    client.update_state_machine(
        stateMachineArn=arn, definition=re.sub(r'"MaxAttempts": \d+', '"MaxAttempts": 1', definition)
    )


@pytest.fixture(scope="module")
def secrets(system: WholeSystem) -> Iterator[Secrets]:
    secrets = Secrets()
    secrets.add("planted address", CANARY)
    secrets.add("planted signature", "0f3bkanariasignature")
    secrets.add_domain(system.domain)
    with secrets.track_tenant(system.tenant):
        yield secrets


class _FastDatetime(datetime):
    """A clock that moves forward by ten minutes at each reading."""

    readings = 0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        cls.readings += 1
        return super().now(tz) + timedelta(minutes=10 * cls.readings)


@pytest.fixture(autouse=True)
def _skip_client_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """End the clients' waits at once: each wait moves their clock forward."""
    ahead = [0.0]
    _FastDatetime.readings = 0
    monkeypatch.setattr("meibo.clock.SystemClock.now", lambda _self: time.time() + ahead[0])

    def sleep(_self: object, seconds: float) -> None:
        ahead[0] += seconds

    monkeypatch.setattr("meibo.clock.SystemClock.sleep", sleep)
    # Shorten the hours for which a job may be pending, and the lifetime of a position in the pages of a provider.
    monkeypatch.setattr("meibo.exports.check.datetime", _FastDatetime)
    monkeypatch.setattr("meibo.providers.base.Pages.position_lifetime", timedelta(milliseconds=300))


def _reset(system: WholeSystem, secrets: Secrets) -> None:
    """Reset the system, after which the functions do not know the tokens and locations that were issued before."""
    system.reset()
    secrets.issued.clear()


def _run(system: WholeSystem) -> None:
    outcome = system.aws.tick(system.next_tick())
    if not outcome.failed:
        system.wait(outcome.payload["run_id"], outcome.payload["attempt"])
    # A verification writes a record whatever its result is.
    system.verify()


def test_search_covers_all_output_and_finds_planted_values(system: WholeSystem, secrets: Secrets) -> None:
    _reset(system, secrets)
    system.configure_exports(*EXPORTS["auth0"])

    with capture(system) as output:
        _run(system)

    assert output.search(secrets) == []
    assert any(place == "log" for place, _ in output.entries)
    assert any("CompleteRuns" in text for place, text in output.entries if place == "output")
    places = {place for place, _ in output.entries}
    assert {"history", "events:PutEvents", "stepfunctions:StartExecution", "s3:PutObject"} <= places
    # All documents of Meibo in the bucket: plans, run manifests, reports, verifications, records of parts.
    prefixes = {place.partition("/")[0] for place in places if "/" in place}
    assert prefixes == {"archive", "parts", "reports", "runs", "verifications"}
    kinds = {*secrets.planted.values(), *secrets.issued.values()}
    assert {"token", "X-Amz-Signature", "e-mail address", "name", "client secret", "password"} <= kinds
    # The search finds planted values in each encoding.
    output.entries = [("archive", system.archived()[f"acme/users/ndjson/{FIRST_CONNECTION}"].body.hex())]
    output.entries.append(("planted", f"{CANARY} {system.tenant.credentials()}"))
    name = next(value for value, kind in secrets.planted.items() if kind == "name" and not value.isascii())
    output.entries += [
        ("as JSON", json.dumps(json.dumps(name))),
        ("as a path", quote(name)),
        ("as a page", escape(name)),
    ]
    assert {leak.partition(":")[0] for leak in output.search(secrets)} == {
        "planted",
        "as JSON",
        "as a path",
        "as a page",
    }


@pytest.mark.parametrize("provider", ["auth0", "cybozu"])
def test_response_of_a_provider_is_not_repeated_in_output(
    system: WholeSystem, secrets: Secrets, provider: str, report_line: Callable[[str], None]
) -> None:
    leaks, runs = [], 0
    for request in AUTH0 if provider == "auth0" else CYBOZU:
        for name, action in ANSWERS.items():
            _reset(system, secrets)
            system.configure_exports(*EXPORTS[provider])
            site = system.tenant if provider == "auth0" else system.domain
            site.faults.add(request, action, times=None)
            with capture(system) as output:
                _run(system)
            runs += 1
            leaks += [f"{request}, response {name}: {leak}" for leak in output.search(secrets)]

    report_line(f"canary, hostile responses of {provider}: {runs} runs, {len(leaks)} leaks")
    assert not leaks, "\n".join(leaks)


def test_failure_of_a_location_or_a_file_contains_no_secret(
    system: WholeSystem, secrets: Secrets, report_line: Callable[[str], None]
) -> None:
    leaks = []
    for name, (switch, value) in SWITCHES.items():
        before = getattr(system.tenant.switches, switch)
        _reset(system, secrets)
        system.configure_exports(*EXPORTS["auth0"])
        setattr(system.tenant.switches, switch, value)
        with capture(system) as output:
            _run(system)
        setattr(system.tenant.switches, switch, before)
        leaks += [f"{name}: {leak}" for leak in output.search(secrets)]

    report_line(f"canary, locations and files: {len(SWITCHES)} runs, {len(leaks)} leaks")
    assert not leaks, "\n".join(leaks)


@pytest.mark.parametrize(
    "secret",
    [
        CANARY,
        {"client_id": CANARY, "client_secret": f"{CANARY}\n"},
        {"client_id": "x", "private_key": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----"},
        {"login": CANARY},
        {CANARY: CANARY},
    ],
    ids=["not an object", "a line break", "an invalid key", "a secret of another provider", "unknown names"],
)
def test_invalid_secret_is_not_in_output(system: WholeSystem, secrets: Secrets, secret: Any) -> None:
    _reset(system, secrets)
    system.configure_exports(
        EXPORTS["auth0"][0], EXPORTS["cybozu"][1], **{"meibo/acme": secret, "meibo/example": secret}
    )

    with capture(system) as output:
        _run(system)

    assert output.search(secrets) == []


@pytest.mark.parametrize("answer", ["correct", *ANSWERS])
def test_change_leaves_no_user_data_in_output(system: WholeSystem, secrets: Secrets, answer: str) -> None:
    _reset(system, secrets)
    system.configure_exports(*EXPORTS["auth0"])
    organization = system.tenant.organizations.ids()[0]
    change = change_message(organization, requested_by=CANARY)
    user_ids = [user["user_id"] for user in system.tenant.expected_users()][:12]
    invitation = {"client_id": "portal", "inviter": CANARY}
    for message in (
        {**change, "action": "add", "members": user_ids},
        {**change, "action": "add", "members": [CANARY]},
        {**change, "action": "invite", "members": [CANARY], "invitation": invitation},
        {**change, "action": CANARY, "members": user_ids},
        {**change, "action": "remove", "members": user_ids[:2], CANARY: CANARY, "roles": CANARY},
        {**change, "source": CANARY, "action": "add", "members": user_ids},
        f"{{{CANARY}",
    ):
        system.aws.changes.send(message)
    if answer in ANSWERS:
        for request in ("* /api/v2/organizations*", "GET /api/v2/users*"):
            system.tenant.faults.add(request, ANSWERS[answer], times=None)

    with capture(system) as output:
        for _ in range(2):
            while system.aws.changes.source.poll():
                pass
            system.show_hidden_messages()

    assert output.search(secrets) == []
