"""Every function runs in a Lambda container as ``sam build`` packaged it, on its sample events."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from meibo_local.template import ROOT, of_type, read_template
from meibo_simulators import FIRST_CONNECTION
from tests.e2e.sam_functions import SamFunctions
from tests.support.stack import FOLDER, RUN, TICK, System, wait_for

EVENTS = sorted((ROOT / "events").glob("*.json"))
FUNCTIONS = {
    Path(resource["Properties"]["CodeUri"]).name: logical_id
    for logical_id, resource in of_type(read_template(), "AWS::Serverless::Function").items()
}
# The functions that the workflow invokes. Triggers invoke all other functions.
WORKFLOW = {"CreateExports", "CheckExport", "ArchiveExport", "FinishRun"}
# Long enough for a machine with two cores.
MAX_RUN_SECONDS = 900

pytestmark = pytest.mark.timeout(MAX_RUN_SECONDS + 60)


@pytest.fixture(scope="module")
def archived(system: System) -> System:
    """The system after a run with a container per invocation."""
    fields = ["user_id", "email", {"name": "user_metadata.country", "export_as": "country"}]
    system.configure(
        system.auth0_source(
            {"dataset": "users", "format": "ndjson", "connection_id": FIRST_CONNECTION, "fields": fields},
            {"dataset": "organizations"},
        ),
        # These exports use a file, a stream and pages; the sample events archive the other datasets.
        system.cybozu_source({"dataset": "users", "format": "csv"}, {"dataset": "groups", "format": "ndjson"}),
    )
    outcome = system.aws.tick(TICK)
    assert not outcome.failed, outcome.payload
    wait_for(lambda: system.aws.execution(RUN)["status"] != "RUNNING", MAX_RUN_SECONDS)
    return system


def _expected_rows(system: System) -> dict[str, int | None]:
    """Return the number of rows of each export at the provider, by export id."""
    return {
        f"acme/users/ndjson/{FIRST_CONNECTION}": system.tenant.expected_rows(FIRST_CONNECTION),
        "acme/organizations/ndjson/all": system.tenant.organizations.count(),
        "acme/members/ndjson/all": sum(len(members) for members in system.tenant.memberships.values()),
        "acme/roles/ndjson/all": len(system.tenant.roles.by_id),
        "acme/role_members/ndjson/all": sum(
            len(list(system.tenant.roles.users(role_id))) for role_id in system.tenant.roles.by_id
        ),
        **{
            f"example/{dataset}/{name}/all": count
            for name, counts in system.domain.expected_rows().items()
            for dataset, count in counts.items()
        },
    }


def _adapted(document: dict[str, Any], system: System) -> dict[str, Any]:
    """Return a sample event with the addresses, a job and an organization of the simulators."""
    if "export" in document:
        return {**document, "export": _adapted_export(document["export"], system)}
    if "Records" in document:
        return {"Records": [_adapted_record(record, system) for record in document["Records"]]}
    return document


def _adapted_export(export: dict[str, Any], system: System) -> dict[str, Any]:
    endpoint = system.tenant.domain if export["provider"] == "auth0" else system.domain.base_url
    adapted = {**export, "endpoint": endpoint}
    if "job" in export:
        (created,) = (item for item in system.aws.read_json(f"{FOLDER}_attempt-1.json") if "job" in item)
        adapted["job"] = created["job"]
    return adapted


def _adapted_record(record: dict[str, Any], system: System) -> dict[str, Any]:
    organization_id, *_ = system.tenant.organizations.ids()
    user_id = next(iter(system.tenant.expected_users()))["user_id"]
    change = {**json.loads(record["body"]), "organization_id": organization_id}
    if change["action"] != "invite":
        change["members"] = [user_id]
    attributes = {**record["attributes"], "MessageGroupId": organization_id}
    return {**record, "attributes": attributes, "body": json.dumps(change)}


def test_every_function_has_a_sample_event() -> None:
    assert {path.name.split(".")[0] for path in EVENTS} == set(FUNCTIONS)


def test_run_in_lambda_containers_archives_every_export(archived: System) -> None:
    # then: the run is complete, and every function of the workflow was invoked
    manifest = archived.aws.read_json(f"{FOLDER}_manifest.json")
    assert archived.aws.execution(RUN)["status"] == "SUCCEEDED"
    assert manifest["complete"] is True
    assert {name for name, _, _ in archived.invocations.calls} == WORKFLOW

    # and: each object agrees with its manifest and has the rows of the provider
    expected = _expected_rows(archived)
    for export in manifest["exports"]:
        assert hashlib.sha256(archived.aws.read(export["key"])).hexdigest() == export["sha256"]
        assert export["rows"] == expected[export["export_id"]]
    assert len(manifest["exports"]) == 4


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_sample_event_returns_a_result(archived: System, containers: SamFunctions, path: Path) -> None:
    logical_id = FUNCTIONS[path.name.split(".")[0]]
    event = _adapted(json.loads(path.read_text()), archived)
    before = archived.aws.keys("archive/")
    planned = {export["export_id"] for export in archived.aws.read_json(f"{FOLDER}_plan.json")["exports"]}
    new = logical_id == "ArchiveExport" and event["export"]["export_id"] not in planned

    # when: the sample event requests an export of the run again, or another dataset
    outcome = containers.ask(logical_id, event)

    assert not outcome.failed, outcome.payload
    added = [key for key in archived.aws.keys("archive/") if key not in before]
    assert [key.endswith("/_manifest.json") for key in added] == ([True, False] if new else [])
    if new:
        manifest = archived.aws.read_json(added[0])
        assert manifest["content"]["rows"] == _expected_rows(archived)[manifest["export_id"]]
    assert not outcome.payload.get("batchItemFailures")


def test_invalid_event_fails_with_its_error_type_if_sam_local_mounts_the_layer(containers: SamFunctions) -> None:
    outcome = containers.ask_layered("CheckExport", {"run_id": RUN, "attempt": 1, "export": {}})

    assert outcome.failed
    assert outcome.payload["errorType"] == "EventError"


def test_layer_has_bytecode_for_the_containers_python(containers: SamFunctions) -> None:
    sources = [path for path in (containers.layer / "python/meibo").rglob("*.py") if path.stat().st_size]

    assert sources
    for source in sources:
        assert (source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc").exists()


def test_logs_of_the_containers_contain_no_user_data_and_no_secret(archived: System, containers: SamFunctions) -> None:
    logged = "\n".join(containers.logs)
    assert "archived" in logged

    users = list(archived.tenant.expected_users(FIRST_CONNECTION))
    forbidden = {user["email"] for user in users}
    forbidden |= {archived.tenant.credentials()["client_secret"], archived.domain.credentials()["password"]}
    assert [text for text in forbidden if text in logged] == []
    assert "Signature=" not in logged
    assert "Bearer " not in logged
