from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meibo.errors import ArchiveConflictError, ProviderBusyError, RequestRefusedError, WrongFormatError
from meibo.http.raw_json import RawJson
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.pagination import ItemPages, Page
from meibo.providers.auth0.roles import RoleApi, RoleList, RoleMembers
from tests.support.memory_tenant import raw_json, read_in_invocations
from tests.support.transport import Reply, Transport

DATASETS: dict[str, type[ItemPages[RoleApi]]] = {"roles": RoleList, "role_members": RoleMembers}


@dataclass
class MemoryRoles(RoleApi):
    """A tenant in memory: role n has n % 4 permissions and n users in pages of two."""

    count: int = 0
    calls_left: int = 1_000_000
    deleted: set[str] = field(default_factory=set)
    name: str = "Auth0 (acme.test)"

    def roles(self) -> list[RawJson]:
        self._call()
        return [raw_json({"id": f"rol_{number:016}", "name": f"役割 {number}"}) for number in range(self.count)]

    def permissions(self, role_id: str) -> list[RawJson]:
        self._call(role_id)
        return [raw_json({"permission_name": f"read:{number}"}) for number in range(int(role_id[4:]) % 4)]

    def users(self, role_id: str, cursor: str | None) -> Page:
        self._call(role_id)
        ids = [f"auth0|{number:03}" for number in range(int(role_id[4:]))]
        rest = [user_id for user_id in ids if user_id > (cursor or "")]
        return Page([raw_json({"user_id": user_id}) for user_id in rest[:2]], rest[1] if len(rest) > 2 else None)

    def _call(self, role_id: str = "") -> None:
        if not self.calls_left:
            raise ProviderBusyError("busy")
        self.calls_left -= 1
        if role_id in self.deleted:
            raise RequestRefusedError("missing", status=404)

    def lines(self, dataset: str) -> list[dict[str, Any]]:
        roles = [row.value for row in self.roles() if row.value["id"] not in self.deleted]
        if dataset == "roles":
            return [{**row, "permissions": [item.value for item in self.permissions(row["id"])]} for row in roles]
        return [
            {"role_id": row["id"], "user_id": f"auth0|{number:03}"}
            for row in roles
            for number in range(int(row["id"][4:]))
        ]


@given(
    dataset=st.sampled_from(list(DATASETS)),
    count=st.integers(0, 8),
    deleted=st.sets(st.integers(0, 8)),
    stops=st.lists(st.integers(2, 5), max_size=20),
)
def test_reading_resumes_from_any_position_without_gaps_or_duplicates(
    dataset: str, count: int, deleted: set[int], stops: list[int]
) -> None:
    api = MemoryRoles(count, deleted={f"rol_{number:016}" for number in deleted})

    steps = read_in_invocations(DATASETS[dataset](api).results, api, stops)

    assert [json.loads(line) for step in steps for line in step.lines] == api.lines(dataset)
    finished = [step.finished for step in steps if step.finished]
    skipped = [step.skipped for step in steps if step.skipped]
    assert finished == [row.value["id"] for row in api.roles() if row.value["id"] not in api.deleted]
    assert skipped == [row.value["id"] for row in api.roles() if row.value["id"] in api.deleted]


def test_position_of_another_version_is_an_error() -> None:
    with pytest.raises(
        ArchiveConflictError,
        match=r"^a part was written by another version of Meibo; repair the run to restart this export$",
    ):
        list(RoleList(MemoryRoles(1)).results({"cursor": None}))


def test_roles_are_read_page_by_page_and_sorted(auth0: Transport, client: Auth0Client) -> None:
    pages = [[{"id": "rol_3"}, {"id": "rol_1"}], [{"id": "rol_2"}]]
    auth0.on("GET", "/api/v2/roles", *(Reply(json={"roles": rows, "total": 3}) for rows in pages))

    assert [row.value["id"] for row in RoleApi(client).roles()] == ["rol_1", "rol_2", "rol_3"]


def test_more_than_a_thousand_rows_are_an_error(auth0: Transport, client: Auth0Client) -> None:
    rows = [{"permission_name": str(number)} for number in range(100)]
    auth0.on("GET", "/api/v2/roles/rol_1/permissions", Reply(json={"permissions": rows, "total": 1001}))

    with pytest.raises(RequestRefusedError, match="at most 1000 rows in the permissions of role rol_1"):
        RoleApi(client).permissions("rol_1")


def test_role_without_an_id_is_an_error(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", "/api/v2/roles", Reply(json={"roles": [{"name": "x"}], "total": 1}))

    expected = "expected the list of roles with an id in each object, found an object without a valid id"
    with pytest.raises(WrongFormatError, match=rf"^Auth0 \(acme\.jp\.auth0\.com\): {expected}$"):
        RoleApi(client).roles()
