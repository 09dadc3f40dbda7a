"""Archive organizations, members and complete domains through the template, workflow and handlers."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from meibo.exports import checkpoint
from meibo_simulators import FIRST_CONNECTION, SECOND_CONNECTION, SimulatedDomain, SimulatedTenant, faults
from tests.support.stack import RUN, System, running_system

CSV_FILES = {
    "users": "user",
    "organizations": "organization",
    "titles": "title",
    "groups": "group",
    "user_organizations": "userOrganizations",
    "user_groups": "userGroups",
    "user_services": "userServices",
}


@pytest.fixture
def system() -> Iterator[System]:
    tenant = SimulatedTenant("acme", users=300, organizations=40, members=5)
    domain = SimulatedDomain("example", users=130)
    with running_system(tenant, domain) as running:
        yield running


def lines(system: System, export: dict[str, Any]) -> list[dict[str, Any]]:
    # Bytes, because str.splitlines also splits at U+2028, which JSON may contain.
    return [json.loads(line) for line in gzip.decompress(system.aws.read(export["key"])).splitlines()]


def by_dataset(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {export["export_id"].split("/")[1]: export for export in manifest["exports"]}


def test_archived_roles_and_their_users_match_the_tenant(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "roles"}, {"dataset": "role_members"}))
    tenant = system.tenant
    first, second, *_ = sorted(tenant.roles.by_id)
    tenant.roles.assign(first, [tenant.directory.user_id(number) for number in range(250)])
    tenant.roles.vanished.add(second)

    manifest = system.run()

    assert manifest["complete"] is True
    exports = by_dataset(manifest)
    expected = {role_id: tenant.roles.by_id[role_id] for role_id in sorted(tenant.roles.by_id)}
    del expected[second]
    assert lines(system, exports["roles"]) == [
        {**body, "permissions": tenant.roles.permissions(role_id)} for role_id, body in expected.items()
    ]
    assert lines(system, exports["role_members"]) == [
        {"role_id": role_id, **user} for role_id in expected for user in tenant.roles.users(role_id)
    ]
    for dataset in ("roles", "role_members"):
        content = json.loads(system.aws.read(exports[dataset]["manifest_key"]))["content"]
        assert content["roles"] == len(expected)
        assert content["skipped_roles"] == {"count": 1, "ids": [second]}
        assert content.get("assignments") == ("direct" if dataset == "role_members" else None)


def test_archived_organizations_and_members_match_the_tenant(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "organizations"}, {"dataset": "members"}))

    manifest = system.run()

    assert manifest["complete"] is True
    exports = by_dataset(manifest)
    organizations = lines(system, exports["organizations"])
    assert [row["id"] for row in organizations] == system.tenant.organizations.ids()
    for row in organizations:
        expected = system.tenant.organizations.find(row["id"])
        assert expected is not None
        assert {key: value for key, value in row.items() if key != "enabled_connections"} == expected.body
        connections = [connection["connection_id"] for connection in row["enabled_connections"]]
        assert connections == system.tenant.organizations.connections(row["id"])
    members = lines(system, exports["members"])
    assert {(row["organization_id"], row["user_id"]) for row in members} == {
        (organization_id, user_id)
        for organization_id, user_ids in system.tenant.memberships.items()
        for user_id in user_ids
    }
    for row in members:
        roles = system.tenant.organizations.member_roles(row["organization_id"], row["user_id"])
        assert [role["id"] for role in row.get("roles", [])] == roles
    own = system.aws.read_json(exports["members"]["manifest_key"])
    assert own["content"]["roles"] == {"included": "yes", "assignments": "direct"}
    assert own["job"] is None
    assert own["content"]["rows"] == len(members)


def test_dataset_without_a_job_creates_and_checks_none(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "organizations"}))

    system.run()

    assert system.invocations.count("CheckExport") == 0
    assert not [request for request in system.tenant.requests if "/jobs" in request.path]


@pytest.mark.parametrize("dataset", ["organizations", "members"])
def test_export_that_outlasts_an_invocation_is_resumed_by_the_next(
    system: System, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: the provider requests three waits that are longer than an invocation accepts
    monkeypatch.setattr(checkpoint, "MAX_RESUME_WAIT_SECONDS", 0)
    path = {"organizations": "enabled_connections", "members": "members"}[dataset]
    for after in (5, 15, 33):
        system.tenant.faults.add(
            f"GET /api/v2/organizations/*/{path}", faults.too_many_requests(retry_after=301), after=after
        )
    system.configure(system.auth0_source({"dataset": dataset}))

    manifest = system.run()

    # then: the workflow invoked the function again, with only counts and the part number in its state
    assert manifest["complete"] is True
    assert system.invocations.count("ArchiveExport") == 4
    events = [event for name, event, _ in system.invocations.calls if name == "ArchiveExport"]
    assert [(event["progress"] or {}).get("part") for event in events] == [None, 1, 2, 3]
    assert set(events[-1]["progress"]) == {"part", "rows", "organizations", "skipped", "moved_at"}

    # and: the result is a single object with a manifest
    (export,) = manifest["exports"]
    assert [key.rpartition("/")[2] for key in system.aws.keys("archive/")] == [
        "_manifest.json",
        f"{dataset}.ndjson.gz",
    ]
    assert hashlib.sha256(system.aws.read(export["key"])).hexdigest() == export["sha256"]
    rows = lines(system, export)
    expected = (
        len(system.tenant.organizations.ids())
        if dataset == "organizations"
        else sum(len(members) for members in system.tenant.memberships.values())
    )
    assert len({json.dumps(row) for row in rows}) == len(rows) == expected
    content = system.aws.read_json(export["manifest_key"])["content"]
    assert (content["parts"], content["rows"], content["organizations"]) == (4, expected, 40)
    assert len(system.aws.keys("parts/")) == 8


def test_repair_completes_an_export_that_was_refused_half_way(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    # given: a wait, and then a refusal
    monkeypatch.setattr(checkpoint, "MAX_RESUME_WAIT_SECONDS", 0)
    path = "GET /api/v2/organizations/*/members"
    system.tenant.faults.add(path, faults.too_many_requests(retry_after=301), after=5)
    system.tenant.faults.add(path, faults.html(404), after=15)
    system.configure(system.auth0_source({"dataset": "members"}))

    manifest = system.run()

    # then: the collected parts are not archived
    assert manifest["complete"] is False
    assert manifest["missing"][0]["error"] == "RequestRefusedError"
    assert system.aws.keys("archive/") == []

    repaired = system.repair()

    assert repaired["complete"] is True
    assert repaired["counts"]["rows"] == sum(len(members) for members in system.tenant.memberships.values())


def test_events_and_responses_of_functions_contain_no_members(system: System) -> None:
    system.tenant.faults.add("GET /api/v2/organizations/*/members", faults.html(200), after=30)
    system.configure(
        system.auth0_source({"dataset": "organizations"}, {"dataset": "members"}),
        system.cybozu_source({"dataset": "directory"}),
    )

    system.run()

    state = json.dumps([(event, outcome.payload) for _, event, outcome in system.invocations.calls])
    for user in system.tenant.expected_users():
        assert user["email"] not in state
        assert user["user_id"] not in state
    for person in system.domain.expected_users():
        assert json.dumps(person["code"]) not in state


@pytest.mark.parametrize(("bom", "quoting", "line_end"), [(True, "all", "\r\n"), (False, "minimal", "\n")])
def test_domain_is_archived_as_csv_byte_for_byte(system: System, bom: bool, quoting: Any, line_end: str) -> None:
    switches = system.domain.switches
    switches.csv_bom, switches.csv_quoting, switches.csv_line_end = bom, quoting, line_end
    system.configure(system.cybozu_source({"dataset": "directory"}))

    manifest = system.run()

    exports = by_dataset(manifest)
    assert set(exports) == set(CSV_FILES)
    for dataset, file in CSV_FILES.items():
        body = system.aws.read(exports[dataset]["key"])
        assert body == system.domain.expected_csv(file), dataset
        table = list(csv.reader(io.StringIO(body.decode(), newline="")))
        assert len(table) == exports[dataset]["rows"]
    ragged = {
        len(row) for row in csv.reader(io.StringIO(system.domain.expected_csv("userGroups").decode(), newline=""))
    }
    assert len(ragged) > 1


def test_domain_without_the_csv_api_is_archived_from_json(system: System) -> None:
    # given: kintone.com
    system.domain.switches.csv_api = False
    system.configure(system.cybozu_source({"dataset": "directory", "format": "ndjson"}))

    manifest = system.run()

    exports = by_dataset(manifest)
    expected = system.domain.expected_rows()["ndjson"]
    assert {dataset: export["rows"] for dataset, export in exports.items()} == expected
    structure, directory = system.domain.structure, system.domain.directory
    assert lines(system, exports["organizations"]) == structure.organizations
    assert lines(system, exports["groups"]) == [
        {key: value for key, value in row.items() if key != "type"} for row in structure.groups
    ]
    members = lines(system, exports["members"])
    for organization in structure.organizations:
        archived = [row for row in members if row.get("organization", {}).get("code") == organization["code"]]
        expected_members = [
            (system.domain.switches.shown(directory.user(index)), title)
            for index, title in structure.in_organization(organization["code"])
        ]
        assert [(row["member"]["user"], row["member"]["title"]) for row in archived] == expected_members
    for group in structure.groups:
        archived = [row["member"] for row in members if row.get("group", {}).get("id") == group["id"]]
        assert archived == [system.domain.switches.shown(directory.user(index)) for index in structure.in_group(group)]
    content = system.aws.read_json(exports["members"]["manifest_key"])["content"]
    assert content["skipped"] == {"count": 0, "ids": []}


def test_error_for_a_domain_without_the_csv_api_names_the_setting(system: System) -> None:
    system.domain.switches.csv_api = False
    system.configure(system.cybozu_source({"dataset": "directory"}, {"dataset": "members"}))

    manifest = system.run()

    assert [export["export_id"] for export in manifest["exports"]] == ["example/members/ndjson/all"]
    assert len(manifest["missing"]) == 7
    assert all('"format": "ndjson"' in missing["reason"] for missing in manifest["missing"])


def test_empty_tenant_and_domain_are_archived_as_empty() -> None:
    tenant, domain = SimulatedTenant("acme", users=10), SimulatedDomain("example", users=3, organizations=0, groups=0)
    with running_system(tenant, domain) as system:
        system.configure(
            system.auth0_source({"dataset": "organizations"}, {"dataset": "members"}),
            system.cybozu_source({"dataset": "organizations"}, {"dataset": "groups"}),
        )

        manifest = system.run()

        assert manifest["complete"] is True
        assert {export["rows"] for export in manifest["exports"]} == {0}
        assert {export["verdict"] for export in manifest["exports"]} == {"ok"}


# -- an organization's users -------------------------------------------------------------------------------------


def test_connections_of_an_organization_are_exported_once_even_if_shared(system: System) -> None:
    # given: two connections of an organization, one of which a second organization shares
    first, second, *_ = system.tenant.organizations.ids()
    system.tenant.organizations.enable(first, [FIRST_CONNECTION, SECOND_CONNECTION])
    system.tenant.organizations.enable(second, [SECOND_CONNECTION])
    system.configure(
        system.auth0_source(
            {"dataset": "users", "organization_id": first}, {"dataset": "users", "organization_id": second}
        )
    )

    manifest = system.run()

    # then: a job and an object per connection
    assert {export["export_id"]: export["rows"] for export in manifest["exports"]} == {
        f"acme/users/ndjson/{connection}": system.tenant.expected_rows(connection)
        for connection in (FIRST_CONNECTION, SECOND_CONNECTION)
    }
    assert len([request for request in system.tenant.requests if request.path.endswith("/jobs/users-exports")]) == 2


@pytest.mark.parametrize("problem", ["no connection", "deleted", "unknown"])
def test_organization_without_connections_fails_only_its_own_export(system: System, problem: str) -> None:
    first, second, *_ = system.tenant.organizations.ids()
    if problem == "unknown":
        first = "org_000000000000NONE"
    else:
        system.tenant.organizations.enable(first, [])
    if problem == "deleted":
        system.tenant.organizations.vanished.add(first)
    system.tenant.organizations.enable(second, [SECOND_CONNECTION])
    system.configure(
        system.auth0_source(
            {"dataset": "users", "organization_id": first}, {"dataset": "users", "organization_id": second}
        )
    )

    manifest = system.run()

    assert [export["export_id"] for export in manifest["exports"]] == [f"acme/users/ndjson/{SECOND_CONNECTION}"]
    (missing,) = manifest["missing"]
    assert missing["error"] == "RequestRefusedError"
    assert first in missing["reason"]


def test_second_run_has_its_own_parts(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "members"}))
    system.run()

    manifest = system.run(days=1)

    assert manifest["complete"] is True
    folders = {key.split("/")[2] for key in system.aws.keys("parts/")}
    assert folders == {f"run={RUN}", "run=20261122T180000Z"}
