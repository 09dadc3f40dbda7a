"""Organizations, members and whole domains through the real template, workflow and handlers."""

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
from tests.integration.pipeline.conftest import RUN, System, running_system

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
    # Bytes, because a text's lines also end at U+2028, which JSON may hold.
    return [json.loads(line) for line in gzip.decompress(system.aws.read(export["key"])).splitlines()]


def by_dataset(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {export["export_id"].split("/")[1]: export for export in manifest["exports"]}


def test_organizations_and_members_are_archived_as_the_tenant_has_them(system: System) -> None:
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
        connections = [one["connection_id"] for one in row["enabled_connections"]]
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
    assert own["content"]["roles"] == {"included": "yes"}
    assert own["job"] is None
    assert own["content"]["rows"] == len(members)


def test_no_job_is_created_and_nothing_checked_for_what_is_read_call_by_call(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "organizations"}))

    system.run()

    assert system.invocations.count("CheckExport") == 0
    assert not [one for one in system.tenant.requests if "/jobs" in one.path]


@pytest.mark.parametrize("dataset", ["organizations", "members"])
def test_an_export_that_outlasts_an_invocation_goes_on_in_the_next(
    system: System, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: three times the provider asks for a wait that is longer than an invocation waits
    monkeypatch.setattr(checkpoint, "MAX_WAIT_SECONDS", 0)
    path = {"organizations": "enabled_connections", "members": "members"}[dataset]
    for after in (5, 15, 33):
        system.tenant.faults.add(
            f"GET /api/v2/organizations/*/{path}", faults.too_many_requests(retry_after=301), after=after
        )
    system.configure(system.auth0_source({"dataset": dataset}))

    # when
    manifest = system.run()

    # then: the workflow went round, with nothing but counts and the number of the part in its state
    assert manifest["complete"] is True
    assert system.invocations.count("ArchiveExport") == 4
    events = [event for name, event, _ in system.invocations.calls if name == "ArchiveExport"]
    assert [(event["progress"] or {}).get("part") for event in events] == [None, 1, 2, 3]
    assert set(events[-1]["progress"]) == {"part", "rows", "organizations", "skipped", "moved_at"}

    # and: it ends as one verified object with one manifest
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


def test_a_run_fails_and_a_repair_completes_it_where_the_provider_refuses_half_way(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: one wait, and then a refusal
    monkeypatch.setattr(checkpoint, "MAX_WAIT_SECONDS", 0)
    path = "GET /api/v2/organizations/*/members"
    system.tenant.faults.add(path, faults.too_many_requests(retry_after=301), after=5)
    system.tenant.faults.add(path, faults.html(404), after=15)
    system.configure(system.auth0_source({"dataset": "members"}))

    # when
    manifest = system.run()

    # then: what was collected is not taken for an archive
    assert manifest["complete"] is False
    assert manifest["missing"][0]["error"] == "RequestRefusedError"
    assert system.aws.keys("archive/") == []

    # when
    repaired = system.repair()

    # then
    assert repaired["complete"] is True
    assert repaired["counts"]["rows"] == sum(len(members) for members in system.tenant.memberships.values())


def test_no_member_is_in_what_the_functions_are_told_and_return(system: System) -> None:
    system.tenant.faults.add("GET /api/v2/organizations/*/members", faults.html(200), after=30)
    system.configure(
        system.auth0_source({"dataset": "organizations"}, {"dataset": "members"}),
        system.cybozu_source({"dataset": "directory"}),
    )

    system.run()

    passed = json.dumps([(event, outcome.payload) for _, event, outcome in system.invocations.calls])
    for user in system.tenant.expected_users():
        assert user["email"] not in passed
        assert user["user_id"] not in passed
    for person in system.domain.expected_users():
        assert json.dumps(person["code"]) not in passed


def test_a_domain_is_archived_as_csv_byte_for_byte(system: System) -> None:
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


@pytest.mark.parametrize("bom", [True, False])
@pytest.mark.parametrize(("quoting", "line_end"), [("all", "\r\n"), ("minimal", "\n")])
def test_ragged_rows_are_kept_as_delivered_however_they_are_written(
    system: System, bom: bool, quoting: Any, line_end: str
) -> None:
    switches = system.domain.switches
    switches.csv_bom, switches.csv_quoting, switches.csv_line_end = bom, quoting, line_end
    system.configure(
        system.cybozu_source(*({"dataset": name} for name in ("user_organizations", "user_groups", "user_services")))
    )

    exports = by_dataset(system.run())

    for dataset, export in exports.items():
        assert system.aws.read(export["key"]) == system.domain.expected_csv(CSV_FILES[dataset])
        assert export["rows"] == 130


def test_a_domain_without_the_csv_api_is_archived_from_its_json(system: System) -> None:
    # given: kintone.com
    system.domain.switches.csv_api = False
    system.configure(system.cybozu_source({"dataset": "directory", "format": "ndjson"}))

    manifest = system.run()

    exports = by_dataset(manifest)
    expected = system.domain.expected_rows()["ndjson"]
    assert {dataset: export["rows"] for dataset, export in exports.items()} == expected
    members = lines(system, exports["members"])
    for organization in system.domain.structure.organizations:
        found = [row for row in members if row.get("organization", {}).get("code") == organization["code"]]
        shown = [
            (system.domain.switches.shown(system.domain.directory.user(index)), title)
            for index, title in system.domain.structure.in_organization(organization["code"])
        ]
        assert [(row["member"]["user"], row["member"]["title"]) for row in found] == shown
    content = system.aws.read_json(exports["members"]["manifest_key"])["content"]
    assert content["skipped"] == {"count": 0, "ids": []}


def test_csv_from_a_domain_without_it_says_what_to_configure(system: System) -> None:
    system.domain.switches.csv_api = False
    system.configure(system.cybozu_source({"dataset": "directory"}, {"dataset": "members"}))

    manifest = system.run()

    assert [export["export_id"] for export in manifest["exports"]] == ["example/members/ndjson/all"]
    assert len(manifest["missing"]) == 7
    assert all('"format": "ndjson"' in missing["reason"] for missing in manifest["missing"])


def test_an_empty_tenant_and_an_empty_domain_are_archived_as_empty() -> None:
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


def test_an_organization_means_its_connections_and_a_shared_one_is_exported_once(system: System) -> None:
    # given: both connections belong to one organization, one of them to another one as well
    first, second, *_ = system.tenant.organizations.ids()
    system.tenant.organizations.enable(first, [FIRST_CONNECTION, SECOND_CONNECTION])
    system.tenant.organizations.enable(second, [SECOND_CONNECTION])
    system.configure(
        system.auth0_source(
            {"dataset": "users", "organization_id": first}, {"dataset": "users", "organization_id": second}
        )
    )

    manifest = system.run()

    # then: a job and an object for each connection
    assert {export["export_id"]: export["rows"] for export in manifest["exports"]} == {
        f"acme/users/ndjson/{connection}": system.tenant.expected_rows(connection)
        for connection in (FIRST_CONNECTION, SECOND_CONNECTION)
    }
    assert len([one for one in system.tenant.requests if one.path.endswith("/jobs/users-exports")]) == 2


def test_a_connection_that_is_configured_too_is_exported_once(system: System) -> None:
    first, *_ = system.tenant.organizations.ids()
    system.tenant.organizations.enable(first, [FIRST_CONNECTION])
    system.configure(
        system.auth0_source(
            {"dataset": "users", "connection_id": FIRST_CONNECTION}, {"dataset": "users", "organization_id": first}
        )
    )

    assert system.run()["counts"]["planned"] == 1


@pytest.mark.parametrize("trouble", ["no connection", "deleted"])
def test_an_organization_without_connections_fails_alone(system: System, trouble: str) -> None:
    first, second, *_ = system.tenant.organizations.ids()
    system.tenant.organizations.enable(first, [])
    if trouble == "deleted":
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


def test_a_second_run_has_parts_of_its_own(system: System) -> None:
    system.configure(system.auth0_source({"dataset": "members"}))
    system.run()

    manifest = system.run(days=1)

    assert manifest["complete"] is True
    folders = {key.split("/")[2] for key in system.aws.keys("parts/")}
    assert folders == {f"run={RUN}", "run=20261122T180000Z"}
