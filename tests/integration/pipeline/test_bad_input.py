"""What users and providers get wrong: each ends with a message that says what to change, and nothing half-written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from meibo_local.template import ROOT
from meibo_simulators import FIRST_CONNECTION
from meibo_simulators import faults as broken
from tests.integration.pipeline.conftest import TICK, System

FILE = "GET /job_*"
Break = Callable[[System], object]


def failure(system: System) -> tuple[str, str]:
    """Run, and return the error and the reason of the one export, of which nothing must have been published."""
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
def test_a_wrong_configuration_begins_no_run(system: System, document: Any, message: str) -> None:
    system.aws.configure(document, {})

    outcome = system.aws.tick()

    assert outcome.failed
    assert outcome.payload["errorType"] == "ConfigurationError"
    assert message in outcome.payload["errorMessage"]
    assert not system.aws.keys()


def test_a_missing_configuration_is_named(system: System) -> None:
    outcome = system.aws.tick()

    assert outcome.payload["errorType"] == "ConfigurationError"
    assert system.aws.configuration_parameter in outcome.payload["errorMessage"]


def test_an_event_of_the_wrong_shape_says_what_is_accepted(system: System) -> None:
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
def test_a_wrong_secret_fails_at_once_and_is_not_repeated(system: System, secret: Any, error: str, words: str) -> None:
    system.configure(system.auth0_source({"dataset": "users"}), secrets={"meibo/acme": secret})

    found, reason = failure(system)

    assert found == error
    assert words in reason
    assert "wrong" not in reason


def test_the_answer_names_each_export_that_could_not_be_created(system: System) -> None:
    limited = system.tenant.limited_client("read:connections")
    wrong = {"client_id": "meibo-acme", "client_secret": "wrong"}
    system.configure(
        {**system.auth0_source({"dataset": "users"}), "name": "refused", "secret": "meibo/refused"},
        {**system.auth0_source({"dataset": "users"}), "name": "limited", "secret": "meibo/limited"},
        {**system.auth0_source({"dataset": "users"}), "name": "missing", "secret": "meibo/nobody"},
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
    assert "'meibo/nobody'" in reasons["missing/users/ndjson/all", "SecretError"]
    assert "wrong" not in reasons["refused/users/ndjson/all", "CredentialsRefusedError"]


def test_the_answer_in_the_readme_is_that_of_a_missing_scope(system: System) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (documented,) = (
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", readme, re.S) if "not_created" in text
    )
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


def test_a_secret_that_does_not_exist_is_named(system: System) -> None:
    source = {**system.auth0_source({"dataset": "users"}), "secret": "meibo/nobody"}
    system.configure(source)

    error, reason = failure(system)

    assert error == "SecretError"
    assert "'meibo/nobody'" in reason


def test_a_missing_scope_is_named(system: System) -> None:
    limited = system.tenant.limited_client("read:connections")
    system.configure(system.auth0_source({"dataset": "users"}), secrets={"meibo/acme": limited})

    error, reason = failure(system)

    assert error == "ScopeMissingError"
    assert "read:users" in reason


def test_a_private_key_serves_as_well_as_a_client_secret(system: System) -> None:
    system.configure(
        system.auth0_source({"dataset": "users"}), secrets={"meibo/acme": system.tenant.key_credentials("PS256")}
    )

    assert system.run()["complete"] is True


def test_an_unknown_connection_is_named(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users", "connection_id": "con_000000000000NONE"}))

    error, reason = failure(system)

    assert error == "RequestRefusedError"
    assert "con_000000000000NONE" in reason


def test_an_organization_without_connections_fails_alone(system: System) -> None:
    unknown = "org_000000000000NONE"
    system.configure(
        system.auth0_source(
            {"dataset": "users", "organization_id": unknown}, {"dataset": "users", "connection_id": FIRST_CONNECTION}
        )
    )

    manifest = system.run()

    assert [export["export_id"] for export in manifest["exports"]] == [f"acme/users/ndjson/{FIRST_CONNECTION}"]
    assert manifest["missing"][0]["error"] == "RequestRefusedError"
    assert unknown in manifest["missing"][0]["reason"]


# -- locations -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: setattr(s.tenant.switches, "location_host", "exports.example.net"), "exports.example.net"),
        (lambda s: setattr(s.tenant.switches, "location_scheme", "http"), "https"),
        (lambda s: setattr(s.tenant.switches, "redirect_files_to", "https://169.254.169.254/latest"), "redirect"),
    ],
)
def test_a_location_elsewhere_is_refused(system: System, change: Break, words: str) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    change(system)

    error, reason = failure(system)

    assert error == "LocationRefusedError"
    assert words in reason
    assert "Signature" not in reason


def test_a_location_without_a_scheme_is_taken_as_https(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    system.tenant.switches.location_scheme = "none"

    assert system.run()["complete"] is True


# -- files -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("action", "errors"),
    [
        (broken.truncate(-8), {"CorruptFileError"}),
        (broken.truncate(2000), {"CorruptFileError"}),
        (broken.corrupt(-6), {"CorruptFileError"}),
        # what the bit does to the rows may be seen before the checksum is
        (broken.corrupt(3000), {"CorruptFileError", "WrongFormatError"}),
        (broken.empty(), {"CorruptFileError"}),
        (broken.html(200), {"WrongFormatError"}),
    ],
    ids=["no trailer", "truncated", "wrong CRC", "flipped bit", "empty file", "HTML"],
)
def test_a_bad_file_is_not_published(system: System, action: broken.Action, errors: set[str]) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    system.tenant.switches.file_ranges = False
    system.tenant.faults.add(FILE, action, times=None)

    found, reason = failure(system)

    assert found in errors
    assert reason
    assert "@" not in reason


@pytest.mark.usefixtures("impatient")
def test_a_body_shorter_than_its_content_length_is_never_published(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    system.tenant.switches.file_ranges = False
    system.tenant.faults.add(FILE, broken.break_body(1000, reset=False), times=None)

    error, _ = failure(system)

    assert error == "CopyBrokenError"


def test_a_location_that_delivers_a_little_each_time_is_copied_to_its_end(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users", "limit": 40}))
    system.tenant.faults.add(FILE, broken.break_body(2000, reset=False), times=None)

    manifest = system.run()

    assert manifest["complete"] is True
    assert manifest["counts"]["rows"] == 40


def test_a_copy_that_breaks_once_is_continued(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}))
    system.tenant.faults.add(FILE, broken.break_body(1000))

    manifest = system.run()

    assert manifest["complete"] is True
    assert manifest["counts"]["rows"] == system.tenant.expected_rows()


@pytest.mark.parametrize("dataset", [{"format": "csv"}, {"format": "ndjson"}], ids=["csv", "ndjson"])
def test_html_where_data_was_due_is_not_published(system: System, dataset: dict[str, Any]) -> None:
    system.configure(system.cybozu_source({"dataset": "users", **dataset}))
    system.domain.faults.add("GET /v1/*", broken.html(200), times=None)

    error, reason = failure(system)

    assert error == "WrongFormatError"
    assert "HTML" in reason or "html" in reason


@pytest.mark.usefixtures("impatient")
def test_a_csv_that_breaks_off_is_never_published(system: System) -> None:
    system.configure(system.cybozu_source({"dataset": "users"}))
    system.domain.faults.add("GET /v1/csv/*", broken.break_body(500, reset=False), times=None)

    error, _ = failure(system)

    assert error == "CopyBrokenError"


@pytest.mark.parametrize("legacy", [False, True], ids=["401", "520"])
def test_a_wrong_password_arrives_as_401_or_520(system: System, legacy: bool) -> None:
    system.domain.switches.legacy_auth_520 = legacy
    system.configure(
        system.cybozu_source({"dataset": "users"}), secrets={"meibo/example": {"login": "a", "password": "hunter2"}}
    )

    error, reason = failure(system)

    assert error == "CredentialsRefusedError"
    assert "hunter2" not in reason


# -- directories that look wrong -------------------------------------------------------------------------------


def test_an_export_without_rows_is_archived_and_suspect(system: System) -> None:
    system.configure(system.cybozu_source({"dataset": "users", "format": "ndjson", "codes": ["nobody-there"]}))
    system.domain.switches.unknown_code = "empty"

    manifest = system.run()

    assert manifest["complete"] is True
    assert manifest["exports"][0]["verdict"] == "suspect"
    assert manifest["counts"]["suspect"] == 1


def test_an_export_with_far_fewer_rows_than_the_last_is_suspect(system: System) -> None:
    source = {"dataset": "users", "connection_id": FIRST_CONNECTION}
    system.configure(system.auth0_source(source))
    assert system.run()["counts"]["suspect"] == 0

    system.configure(system.auth0_source({**source, "limit": 10}))
    manifest = system.run(days=1)

    assert manifest["counts"]["suspect"] == 1
    own = system.aws.read_json(manifest["exports"][0]["manifest_key"])
    assert own["sanity"]["previous_rows"] == system.tenant.expected_rows(FIRST_CONNECTION)
    assert own["sanity"]["previous_run_id"] == "20261121T180000Z"
