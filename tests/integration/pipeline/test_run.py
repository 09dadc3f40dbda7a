"""Runs of the pipeline: archived content, repeated ticks, failures, repairs and busy services."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections import Counter
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError, ReadTimeoutError

from meibo_local.lambda_service import InvocationResult
from meibo_simulators import FIRST_CONNECTION, SECOND_CONNECTION
from tests.support.stack import FOLDER, RUN, TICK, System


def test_tick_archives_every_configured_export(system: System) -> None:
    # given: two connections and a domain in both formats
    fields = ["user_id", "email", {"name": "user_metadata.country", "export_as": "country"}]
    system.configure(
        system.auth0_source(
            {"dataset": "users", "format": "ndjson", "connection_id": FIRST_CONNECTION},
            {"dataset": "users", "format": "csv", "connection_id": SECOND_CONNECTION, "fields": fields},
        ),
        system.cybozu_source({"dataset": "users", "format": "csv"}, {"dataset": "users", "format": "ndjson"}),
    )

    manifest = system.run()

    # then: all four exports are archived and match the manifest
    assert manifest["complete"] is True
    assert manifest["counts"]["archived"] == 4
    rows = {}
    for export in manifest["exports"]:
        body = system.aws.read(export["key"])
        assert hashlib.sha256(body).hexdigest() == export["sha256"]
        rows[export["export_id"]] = export["rows"]
    assert rows == {
        f"acme/users/ndjson/{FIRST_CONNECTION}": system.tenant.expected_rows(FIRST_CONNECTION),
        f"acme/users/csv/{SECOND_CONNECTION}": system.tenant.expected_rows(SECOND_CONNECTION),
        "example/users/csv/all": 230,
        # the JSON includes the built-in Administrator, the CSV does not
        "example/users/ndjson/all": 231,
    }


def test_archived_file_is_the_delivered_file(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users", "format": "csv"}))

    manifest = system.run()

    (export,) = manifest["exports"]
    own = system.aws.read_json(export["manifest_key"])
    delivered = system.tenant.expected_file(own["job"]["id"])
    assert system.aws.read(export["key"]) == delivered.path.read_bytes()
    text = gzip.decompress(system.aws.read(export["key"])).decode()
    table = list(csv.reader(io.StringIO(text, newline="")))
    assert own["content"]["columns"] == table[0]
    assert own["content"]["rows"] == len(table) - 1 == 300


def test_tick_that_is_delivered_twice_archives_once(system: System) -> None:
    system.configure(system.cybozu_source({"dataset": "users"}))
    system.run()
    before = system.aws.keys()

    outcome = system.aws.tick(TICK)

    assert outcome.payload["status"] == "already_started"
    assert system.aws.keys() == before
    assert system.invocations.count("ArchiveExport") == 1


def test_workflow_state_contains_no_location_and_no_user_data(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "users"}), system.cybozu_source({"dataset": "users"}))
    system.run()

    state = json.dumps([(event, outcome.payload) for _, event, outcome in system.invocations.calls])
    emails = [user["email"] for user in system.tenant.expected_users()]
    assert "Signature" not in state
    assert "X-Amz" not in state
    assert not any(email in state for email in emails)
    assert system.tenant.credentials()["client_secret"] not in state


def test_failed_export_does_not_stop_the_others_and_is_repaired(system: System) -> None:
    # given: a domain with a wrong password
    system.configure(
        system.auth0_source({"dataset": "users"}),
        system.cybozu_source({"dataset": "users"}),
        secrets={"meibo/example": {"login": "Administrator", "password": "wrong"}},
    )

    manifest = system.run()

    assert manifest["complete"] is False
    assert [export["export_id"] for export in manifest["exports"]] == ["acme/users/ndjson/all"]
    assert manifest["missing"][0]["export_id"] == "example/users/csv/all"
    assert manifest["missing"][0]["error"] == "CredentialsRefusedError"

    # when: the password is corrected and the run is repaired
    system.configure(system.auth0_source({"dataset": "users"}), system.cybozu_source({"dataset": "users"}))
    repaired = system.repair()

    # then: only the missing export was fetched
    assert repaired["complete"] is True
    assert repaired["counts"]["archived"] == 2
    jobs = [request for request in system.tenant.requests if request.path.endswith("/jobs/users-exports")]
    assert len(jobs) == 1
    assert f"{FOLDER}_manifest-2.json" in system.aws.keys("runs/")
    assert system.aws.execution(RUN, 1)["status"] == "FAILED"


def client_error(operation: str, code: str, status: int) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "Rate Exceeded."},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "1"},
    }
    return ClientError(response, operation)


@pytest.mark.usefixtures("no_retry_waits")
def test_throttling_by_lambda_is_not_a_failure(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    # given: other functions use the account's concurrency during half an hour of retries
    system.configure(system.cybozu_source({"dataset": "users"}))
    service, throttled = system.aws.service, Counter[str]()
    invoke = service.invoke

    def throttled_invoke(name: str, payload: bytes) -> InvocationResult:
        if "ArchiveExport" in name and throttled[name] < 60:
            throttled[name] += 1
            raise client_error("Invoke", "TooManyRequestsException", 429)
        return invoke(name, payload)

    monkeypatch.setattr(service, "invoke", throttled_invoke)

    manifest = system.run()

    assert sum(throttled.values()) == 60
    assert manifest["complete"] is True


@pytest.mark.usefixtures("no_retry_waits")
def test_busy_aws_services_are_not_a_failure(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    # given: Secrets Manager throttles, and S3 responds with 503 or times out, each several times
    system.configure(system.auth0_source({"dataset": "users"}), system.cybozu_source({"dataset": "users"}))
    call = BaseClient._make_api_call  # type: ignore[attr-defined]  # the stubs contain only public names
    busy: Counter[str] = Counter()

    def error_of(operation: str, key: str) -> Exception | None:
        name = f"{operation} {key.rpartition('/')[2]}"
        busy[name] += 1
        if busy[name] > 6:
            return None
        if operation == "GetSecretValue":
            return client_error(operation, "ThrottlingException", 400)
        if operation == "PutObject" and key.startswith("archive/") and key.endswith("_manifest.json"):
            return client_error(operation, "SlowDown", 503)
        if operation == "PutObject" and key.startswith("runs/") and key.endswith("_manifest.json"):
            return ReadTimeoutError(endpoint_url="https://archive.s3.ap-northeast-1.amazonaws.com")
        if operation == "HeadObject" and key.startswith("archive/"):
            return client_error(operation, "503", 503)
        return None

    def busy_api_call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        error = error_of(operation, str(parameters.get("Key", "")))
        if error is not None:
            raise error
        return call(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", busy_api_call)

    manifest = system.run()

    assert manifest["complete"] is True
    assert {name.partition(" ")[0] for name, count in busy.items() if count > 6} >= {
        "GetSecretValue",
        "HeadObject",
        "PutObject",
    }
