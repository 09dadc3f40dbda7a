"""Invalid input of users and providers: each error says what to change, and nothing is archived in part."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from meibo_local.template import ROOT
from meibo_simulators import FIRST_CONNECTION
from meibo_simulators import faults as broken
from tests.support.stack import TICK, System

FILE = "GET /job_*"
Switch = Callable[[System], object]


def failure(system: System) -> tuple[str, str]:
    """Run, check that nothing was archived, and return the error and the reason of the only export."""
    manifest = system.run()
    assert system.aws.keys("archive/") == []
    assert system.aws.unfinished_uploads() == 0
    (missing,) = manifest["missing"]
    return missing["error"], missing["reason"]


# -- the configuration and the event ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"sources": [{"provider": "okta"}]}, "sources[0].provider: expected 'auth0' or 'cybozu'"),
        ("{", "the configuration is not valid JSON"),
    ],
)
def test_invalid_configuration_starts_no_run(system: System, document: Any, message: str) -> None:
    system.aws.configure(document, {})

    outcome = system.aws.tick()

    assert outcome.failed
    assert outcome.payload["errorType"] == "ConfigurationError"
    assert message in outcome.payload["errorMessage"]
    assert not system.aws.keys()


def test_missing_configuration_is_named(system: System) -> None:
    outcome = system.aws.tick()

    assert outcome.payload["errorType"] == "ConfigurationError"
    assert system.aws.configuration_parameter in outcome.payload["errorMessage"]


def test_error_of_an_invalid_event_names_the_accepted_fields(system: System) -> None:
    outcome = system.aws.invoke({"time": "now"})

    assert outcome.payload["errorType"] == "EventError"
    assert "scheduled_time" in outcome.payload["errorMessage"]


# -- secrets and permissions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "error", "words"),
    [
        ("not json", "SecretError", "expected a JSON object"),
        ({"client_id": "abc"}, "SecretError", "client_secret"),
        ({"client_id": "meibo-acme", "client_secret": "wrong"}, "CredentialsRefusedError", "localhost"),
    ],
)
def test_invalid_secret_fails_the_export_and_is_not_in_the_reason(
    system: System, secret: Any, error: str, words: str
) -> None:
    system.configure(system.auth0_source({"dataset": "users"}), secrets={"meibo/acme": secret})

    actual, reason = failure(system)

    assert actual == error
    assert words in reason
    assert "wrong" not in reason


def test_response_and_manifest_name_each_export_that_was_not_created(system: System) -> None:
    limited = system.tenant.limited_client("read:connections")
    wrong = {"client_id": "meibo-acme", "client_secret": "wrong"}
    system.configure(
        {**system.auth0_source({"dataset": "users"}), "name": "refused", "secret": "meibo/refused"},
        {**system.auth0_source({"dataset": "users"}), "name": "limited", "secret": "meibo/limited"},
        {**system.auth0_source({"dataset": "users"}), "name": "missing", "secret": "meibo/missing"},
        system.auth0_source({"dataset": "users"}),
        secrets={"meibo/refused": wrong, "meibo/limited": limited},
    )

    outcome = system.aws.tick()

    assert outcome.failed is False
    assert (outcome.payload["exports"], outcome.payload["jobs"]) == (4, 1)
    reasons = {
        (failure["export_id"], failure["error"]): failure["reason"] for failure in outcome.payload["not_created"]
    }
    assert reasons.keys() == {
        ("refused/users/ndjson/all", "CredentialsRefusedError"),
        ("limited/users/ndjson/all", "ScopeMissingError"),
        ("missing/users/ndjson/all", "SecretError"),
    }
    assert "read:users" in reasons["limited/users/ndjson/all", "ScopeMissingError"]
    assert "'meibo/missing'" in reasons["missing/users/ndjson/all", "SecretError"]
    assert "wrong" not in reasons["refused/users/ndjson/all", "CredentialsRefusedError"]

    # and: the run manifest has the same reasons, and only the other export is archived
    manifest = system.finished(outcome.payload["run_id"], 1)
    assert {(missing["export_id"], missing["error"]): missing["reason"] for missing in manifest["missing"]} == reasons
    assert all("/source=acme/" in key for key in system.aws.keys("archive/"))


def test_documented_response_is_that_of_a_missing_scope(system: System) -> None:
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    (documented,) = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", page, re.S) if "not_created" in text)
    limited = system.tenant.limited_client("read:organizations")
    system.configure(
        system.auth0_source({"dataset": "users"}, {"dataset": "organizations"}, {"dataset": "members"}),
        system.cybozu_source({"dataset": "directory"}),
        secrets={"meibo/acme": limited},
    )

    answer = system.aws.tick(TICK).payload

    answer["not_created"][0]["reason"] = answer["not_created"][0]["reason"].replace(
        system.tenant.domain, "acme.jp.auth0.com"
    )
    assert answer == documented


# -- locations -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_retry_waits")
@pytest.mark.parametrize(
    ("switch", "words"),
    [
        (lambda s: setattr(s.tenant.switches, "location_host", "exports.example.net"), "exports.example.net"),
        (lambda s: setattr(s.tenant.switches, "location_scheme", "http"), "https"),
        (lambda s: setattr(s.tenant.switches, "redirect_files_to", "https://169.254.169.254/latest"), "redirect"),
    ],
)
def test_location_outside_the_allowed_hosts_is_refused(system: System, switch: Switch, words: str) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    switch(system)

    error, reason = failure(system)

    assert error == "LocationRefusedError"
    assert words in reason
    assert "Signature" not in reason


def test_file_with_a_content_encoding_is_archived_as_delivered(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    system.tenant.switches.file_content_encoding = "gzip"

    (export,) = system.run()["exports"]

    (job_id,) = system.tenant.jobs.all
    assert export["rows"] == system.tenant.expected_rows()
    assert system.aws.read(export["key"]) == system.tenant.expected_file(job_id).read()


# -- files -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_retry_waits")
@pytest.mark.parametrize(
    ("action", "errors"),
    [
        (broken.truncate(-8), {"CorruptFileError"}),
        (broken.truncate(2000), {"CorruptFileError"}),
        (broken.corrupt(-6), {"CorruptFileError"}),
        # the changed bit may be noticed in the rows before the checksum is compared
        (broken.corrupt(3000), {"CorruptFileError", "WrongFormatError"}),
        (broken.truncate(0), {"CorruptFileError"}),
        (broken.html(200), {"WrongFormatError"}),
    ],
    ids=["no trailer", "truncated", "wrong CRC", "flipped bit", "empty file", "HTML"],
)
def test_bad_file_is_not_archived(system: System, action: broken.Action, errors: set[str]) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    system.tenant.switches.file_ranges = False
    system.tenant.faults.add(FILE, action, times=None)

    error, reason = failure(system)

    assert error in errors
    assert reason
    assert "@" not in reason


@pytest.mark.usefixtures("no_retry_waits")
def test_body_shorter_than_its_content_length_is_not_archived(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    system.tenant.switches.file_ranges = False
    system.tenant.faults.add(FILE, broken.break_body(1000, reset=False), times=None)

    error, _ = failure(system)

    assert error == "CopyBrokenError"


def test_location_that_breaks_repeatedly_is_copied_completely(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users", "limit": 40}))
    system.tenant.faults.add(FILE, broken.break_body(2000, reset=False), times=None)

    manifest = system.run()

    assert manifest["complete"] is True
    assert manifest["counts"]["rows"] == 40


@pytest.mark.parametrize("dataset", [{"format": "csv"}, {"format": "ndjson"}], ids=["csv", "ndjson"])
def test_html_instead_of_data_is_not_archived(system: System, dataset: dict[str, Any]) -> None:
    system.configure(system.cybozu_source({"dataset": "users", **dataset}))
    system.domain.faults.add("GET /v1/*", broken.html(200), times=None)

    error, reason = failure(system)

    assert error == "WrongFormatError"
    assert "HTML" in reason or "html" in reason


@pytest.mark.usefixtures("no_retry_waits")
def test_truncated_csv_is_not_archived(system: System) -> None:
    system.configure(system.cybozu_source({"dataset": "users"}))
    system.domain.faults.add("GET /v1/csv/*", broken.break_body(500, reset=False), times=None)

    error, _ = failure(system)

    assert error == "CopyBrokenError"


# -- suspect exports ---------------------------------------------------------------------------------------------


def test_export_with_far_fewer_rows_than_the_last_is_suspect(system: System) -> None:
    source = {"dataset": "users", "connection_id": FIRST_CONNECTION}
    system.configure(system.auth0_source(source))
    assert system.run()["counts"]["suspect"] == 0

    system.configure(system.auth0_source({**source, "limit": 10}))
    manifest = system.run(days=1)

    assert manifest["counts"]["suspect"] == 1
    own = system.aws.read_json(manifest["exports"][0]["manifest_key"])
    assert own["sanity"]["previous_rows"] == system.tenant.expected_rows(FIRST_CONNECTION)
    assert own["sanity"]["previous_run_id"] == "20261121T180000Z"
