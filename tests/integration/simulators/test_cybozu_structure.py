"""Organizations, titles, groups and services of a simulated domain in JSON and CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from tests.integration.simulators.conftest import Domain, password


def rows(domain: Domain, name: str) -> list[list[str]]:
    answer = domain.get(f"/v1/csv/{name}.csv")
    assert answer.content == domain.domain.expected_csv(name)
    return list(csv.reader(io.StringIO(answer.content.decode(), newline="")))


def everything(domain: Domain, path: str, key: str, **parameters: Any) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    while True:
        query = {"size": 50, "offset": len(entries), **parameters}
        page = domain.get(path, params=query).json()[key]
        if not page:
            return entries
        entries += page


@pytest.mark.parametrize(("name", "columns"), [("organization", 7), ("title", 5), ("group", 6)])
def test_number_of_columns_is_fixed(domain: Domain, name: str, columns: int) -> None:
    assert {len(row) for row in rows(domain, name)} == {columns}


def test_parents_come_before_their_children(domain: Domain) -> None:
    seen = {""}
    for row in rows(domain, "organization"):
        assert row[5] in seen
        seen.add(row[0])


@pytest.mark.parametrize("name", ["userOrganizations", "userGroups", "userServices"])
def test_membership_rows_have_different_lengths(domain: Domain, name: str) -> None:
    entries = rows(domain, name)
    assert len(entries) == 250
    assert len({len(row) for row in entries}) > 2
    assert "Administrator" not in {row[0] for row in entries}
    if name == "userOrganizations":
        assert {len(row) % 2 for row in entries} == {1}
        assert "" in {row[2] for row in entries if len(row) > 2}


def test_group_types_are_in_csv_only(domain: Domain) -> None:
    assert {row[3] for row in rows(domain, "group")} == {"static", "dynamic"}
    groups = everything(domain, "/v1/groups.json", "groups")
    assert {"everyone", "Administrators"} <= {group["code"] for group in groups}
    assert set(groups[0]) == {"id", "code", "name", "description"}


def test_json_and_csv_agree_on_organizations(domain: Domain) -> None:
    entries = everything(domain, "/v1/organizations.json", "organizations")
    assert [entry["code"] for entry in entries] == [row[0] for row in rows(domain, "organization")]
    assert entries[0]["parentCode"] is None
    entry = domain.get("/v1/organizations.json?codes[0]=org-0003").json()["organizations"]
    assert [organization["id"] for organization in entry] == ["4"]


def test_members_of_organizations_agree_with_csv(domain: Domain) -> None:
    expected: dict[str, set[str]] = {}
    for row in rows(domain, "userOrganizations"):
        for code in row[1::2]:
            expected.setdefault(code, set()).add(row[0])
    for code, people in expected.items():
        entries = everything(domain, "/v1/organization/users.json", "userTitles", code=code)
        assert {entry["user"]["code"] for entry in entries} == people
        assert len(entries) == len(people)


def test_members_of_groups_agree_with_csv(domain: Domain) -> None:
    members = everything(domain, "/v1/group/users.json", "users", code="group-002")
    expected = {row[0] for row in rows(domain, "userGroups") if "group-002" in row[1:]}
    assert expected
    assert {member["code"] for member in members} == expected


@pytest.mark.parametrize(("switch", "status"), [("refuse", 400), ("empty", 200)])
@pytest.mark.parametrize("path", ["organization/users", "group/users"])
def test_unknown_code_follows_the_switch(domain: Domain, path: str, switch: Any, status: int) -> None:
    domain.domain.switches.unknown_code = switch
    assert domain.get(f"/v1/{path}.json?code=missing").status_code == status
    assert domain.get(f"/v1/{path}.json").json()["code"] == "CB_VA01"


def test_files_require_an_administrator(domain: Domain) -> None:
    plain = password(domain.domain.plain_credentials())
    assert domain.get("/v1/csv/userGroups.csv", plain).status_code == 403
    assert domain.get("/v1/groups.json", plain).status_code == 200
