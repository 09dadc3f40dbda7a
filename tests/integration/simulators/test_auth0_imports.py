"""User imports of a simulated tenant follow the import schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from meibo_simulators import FIRST_CONNECTION, SimulatedTenant, Simulators
from tests.integration.simulators.conftest import Api
from tests.support.clock import FakeClock


def send(api: Api, users: Any, **form: str) -> requests.Response:
    data = users if isinstance(users, bytes) else json.dumps(users).encode()
    fields = {"connection_id": FIRST_CONNECTION, "send_completion_email": "false", **form}
    return api.call("POST", "/jobs/users-imports", data=fields, files={"users": ("users.json", data)})


def finish(api: Api, clock: FakeClock, job: dict[str, Any]) -> dict[str, Any]:
    clock.advance(api.tenant.switches.import_seconds)
    return dict(api.get(f"/jobs/{job['id']}").json())


def test_users_are_imported_under_their_prefix(api: Api, tenant: Any, clock: FakeClock) -> None:
    answer = send(api, [{"email": "New@Example.jp", "user_id": "abc", "user_metadata": {"x": 1}, "password_hash": "h"}])
    assert answer.status_code == 202
    job = answer.json()
    assert list(job) == ["type", "status", "connection_id", "connection", "created_at", "id"]
    assert finish(api, clock, job)["summary"] == {"failed": 0, "updated": 0, "inserted": 1, "total": 1}
    profile = tenant.directory.get("auth0|abc")
    assert profile["email"] == "new@example.jp"
    assert "password_hash" not in profile
    assert api.get(f"/jobs/{job['id']}/errors").status_code == 204
    assert tenant.jobs.completion_emails == 0


def test_prefixed_ids_get_a_second_prefix(api: Api, tenant: Any, clock: FakeClock) -> None:
    finish(api, clock, send(api, [{"email": "new@example.jp", "user_id": "auth0|abc"}]).json())
    assert tenant.directory.get("auth0|auth0|abc") is not None


def test_failed_rows_are_reported_and_the_job_completes(api: Api, tenant: Any, clock: FakeClock) -> None:
    there = next(iter(tenant.expected_users(FIRST_CONNECTION)))
    rows = [{"email": there["email"]}, {"name": "missing"}, {"email": "x@example.jp", "identities": []}, {"email": 5}]
    job = finish(api, clock, send(api, rows).json())
    assert (job["status"], job["summary"]["failed"]) == ("completed", 4)
    answer = api.get(f"/jobs/{job['id']}/errors")
    assert answer.headers["Content-Type"] == "application/json"
    codes = [row["errors"][0]["code"] for row in answer.json()]
    assert codes == ["DUPLICATED_USER", "OBJECT_REQUIRED", "NOT_PASSED", "INVALID_TYPE"]


def test_upsert_replaces_metadata_and_preserves_other_properties(api: Api, tenant: Any, clock: FakeClock) -> None:
    there = next(iter(tenant.expected_users(FIRST_CONNECTION)))
    own_id = there["user_id"].removeprefix("auth0|")
    row = {
        "email": there["email"],
        "user_id": own_id,
        "user_metadata": {"only": 1},
        "blocked": not there.get("blocked"),
    }
    job = finish(api, clock, send(api, [row], upsert="true").json())
    assert job["summary"]["updated"] == 1
    changed = tenant.directory.get(there["user_id"])
    assert changed["user_metadata"] == {"only": 1}
    assert changed.get("blocked") == there.get("blocked")


def test_users_of_a_pending_import_are_hidden(api: Api, tenant: Any, clock: FakeClock) -> None:
    tenant.switches.import_seconds = 60
    there = next(iter(tenant.expected_users(FIRST_CONNECTION)))
    new, known = {"email": "new@example.jp", "user_id": "abc"}, {"email": there["email"], "name": "changed"}
    job = send(api, [new, known, {"name": "no address"}], upsert="true").json()

    def seen() -> tuple[Any, ...]:
        return (
            api.get("/users/auth0%7Cabc").status_code,
            len(api.get("/users-by-email", email="new@example.jp").json()),
            api.get("/users", include_totals="true").json()["total"],
            api.get("/users-by-email", email=there["email"]).json()[0]["name"] == "changed",
            api.get(f"/jobs/{job['id']}/errors").status_code,
        )

    # An import ends after a time, regardless of the number of polls.
    for _ in range(10):
        assert api.get(f"/jobs/{job['id']}").json() == job
    clock.advance(59.9)
    assert seen() == (404, 0, 200, False, 204)
    clock.advance(0.1)
    assert seen() == (200, 1, 201, True, 200)


def test_lookup_by_email_follows_the_changes_of_a_user(api: Api, tenant: Any) -> None:
    def seen(email: str) -> list[str]:
        return [user["user_id"] for user in api.get("/users-by-email", email=email).json()]

    for email in ("a@example.jp", "b@example.jp"):
        for user_id in ("auth0|1", "auth0|2"):
            tenant.directory.put(FIRST_CONNECTION, {"user_id": user_id, "email": email})
    tenant.directory.put(FIRST_CONNECTION, {"user_id": "auth0|1", "email": "c@example.jp"})
    assert (seen("a@example.jp"), seen("b@example.jp"), seen("c@example.jp")) == ([], ["auth0|2"], ["auth0|1"])
    tenant.directory.remove("auth0|2")
    there = next(iter(tenant.expected_users(FIRST_CONNECTION)))
    tenant.directory.put(FIRST_CONNECTION, {**there, "email": "c@example.jp"})
    assert (seen("b@example.jp"), seen(there["email"])) == ([], [])
    assert seen("c@example.jp") == ["auth0|1", there["user_id"]]
    tenant.directory.remove(there["user_id"])
    assert (seen("c@example.jp"), seen(there["email"])) == (["auth0|1"], [])


def test_import_completes_without_polling(api: Api, tenant: Any, clock: FakeClock) -> None:
    job = send(api, [{"email": "new@example.jp"}, {"name": "no address"}]).json()
    clock.advance(tenant.switches.import_seconds)
    answer = api.get(f"/jobs/{job['id']}/errors")
    assert (answer.status_code, answer.json()[0]["errors"][0]["code"]) == (200, "OBJECT_REQUIRED")
    assert api.get("/users", include_totals="true").json()["total"] == 201
    assert [send(api, [{"email": f"{n}@example.jp"}]).status_code for n in range(2)] == [202, 202]


@pytest.mark.parametrize(("fate", "status", "total"), [("failed", "failed", 200), ("stuck", "pending", 200)])
def test_import_can_end_without_users(
    api: Api, tenant: Any, clock: FakeClock, fate: str, status: str, total: int
) -> None:
    tenant.switches.job_fate = fate
    assert finish(api, clock, send(api, [{"email": "new@example.jp"}]).json())["status"] == status
    assert api.get("/users", include_totals="true").json()["total"] == total


def test_errors_of_an_import_expire_after_a_day(api: Api, tenant: Any, clock: FakeClock) -> None:
    job = finish(api, clock, send(api, [{"name": "no address"}]).json())
    clock.advance(86400)
    api.session.headers["Authorization"] = f"Bearer {api.token(api.tenant.credentials()).json()['access_token']}"
    answer = api.get(f"/jobs/{job['id']}/errors")
    assert (answer.status_code, answer.json()["message"]) == (404, "The job does not exist")


def test_third_concurrent_job_is_rejected(api: Api, clock: FakeClock) -> None:
    jobs = [send(api, [{"email": f"{n}@example.jp"}]) for n in range(3)]
    assert [job.status_code for job in jobs] == [202, 202, 429]
    assert "2 active import users jobs" in jobs[2].json()["message"]
    finish(api, clock, jobs[0].json())
    assert send(api, [{"email": "3@example.jp"}]).status_code == 202


def test_number_of_concurrent_jobs_is_a_switch(api: Api, tenant: Any) -> None:
    tenant.switches.import_concurrency = 1
    jobs = [send(api, [{"email": f"{n}@example.jp"}]) for n in range(2)]
    assert [job.status_code for job in jobs] == [202, 429]
    assert "1 active import users jobs" in jobs[1].json()["message"]


def test_exported_users_can_be_imported_into_another_tenant(api: Api, tenant: Any, clock: FakeClock) -> None:
    empty = SimulatedTenant("empty", connections={FIRST_CONNECTION: 0})
    properties = ("email", "name", "nickname", "picture", "user_metadata", "app_metadata", "email_verified")
    rows = [
        {"user_id": user["user_id"].removeprefix("auth0|"), **{name: user[name] for name in properties if name in user}}
        for user in tenant.expected_users(FIRST_CONNECTION)
    ]
    with Simulators([empty], clock=clock) as simulators:
        other = Api(empty, simulators.ca_file)
        assert finish(other, clock, send(other, rows).json())["summary"]["inserted"] == 100
        job = other.completed(format="json", fields=[{"name": "user_id"}, *({"name": name} for name in properties)])
        restored = [json.loads(line) for line in empty.expected_file(job["id"]).content().decode().split("\n")[:-1]]
    assert [{**row, "user_id": row["user_id"].removeprefix("auth0|")} for row in restored] == rows


@pytest.mark.parametrize(
    ("users", "form", "status", "message"),
    [
        (b"", {}, 400, "Users file must not be empty."),
        (b"[" + b" " * 511_660 + b"]", {}, 413, "Payload content length greater than maximum allowed: 512000"),
        ([], {"connection_id": "con_9999999999999999"}, 400, "The connection does not exist."),
        ([], {"connection_id": ""}, 400, "Must provide 'connection_id' as multipart part."),
        ([], {"connection_id": "con_1"}, 400, "String does not match pattern"),
    ],
)
def test_invalid_import_is_rejected(api: Api, users: Any, form: dict[str, str], status: int, message: str) -> None:
    answer = send(api, users, **form)
    assert answer.status_code == status
    assert message in answer.json()["message"]
    assert api.post("/jobs/users-imports", {}).status_code == 400
