"""Export jobs, locations and files of a simulated tenant behave like those of Auth0 and S3."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from meibo_simulators import FIRST_CONNECTION, SECOND_CONNECTION, faults
from meibo_simulators.auth0.export_rows import PREDEFINED, Field, Layout
from meibo_simulators.profiles import AWKWARD
from tests.integration.simulators.conftest import Api
from tests.support.clock import FakeClock

FIELDS = [{"name": "user_id"}, {"name": "name"}, {"name": "identities[0].connection", "export_as": "Connection"}]


def test_creation_returns_the_recorded_response(api: Api) -> None:
    body = {"connection_id": FIRST_CONNECTION, "format": "json", "limit": 5, "fields": FIELDS}
    answer = api.post("/jobs/users-exports", body)
    job = answer.json()
    assert answer.status_code == 200
    assert list(job) == [
        *("type", "status", "connection_id", "format", "limit", "fields", "connection", "created_at", "id"),
    ]
    assert (job["type"], job["status"]) == ("users_export", "pending")
    assert job["connection"] == "Username-Password-Authentication"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", job["created_at"])
    assert re.fullmatch(r"job_[A-Za-z0-9]{16}", job["id"])


def test_default_format_is_csv(api: Api) -> None:
    assert api.post("/jobs/users-exports", {}).json()["format"] == "csv"


def test_pending_job_equals_the_creation_response(api: Api, tenant: Any) -> None:
    tenant.switches.polls_until_completed = 2
    job = api.post("/jobs/users-exports", {"format": "json"}).json()
    assert [api.get(f"/jobs/{job['id']}").json() == job for _ in range(2)] == [True, True]
    assert api.get(f"/jobs/{job['id']}").json()["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"conection_id": "x"}, "'Additional properties not allowed: conection_id'."),
        (
            {"connection_id": "con_1"},
            "'String does not match pattern ^con_[A-Za-z0-9]{16}$: con_1' on property connection_id",
        ),
        ({"format": "xml"}, "'No enum match for: xml' on property format"),
        ({"limit": 0}, "'Value 0 is less than minimum 1' on property limit"),
        ({"limit": "5"}, "'Expected type integer but found type string' on property limit"),
        ({"fields": [["name"]]}, "'Expected type object but found type array' on property fields[0]"),
        ({"fields": [{}]}, "'Missing required property: name' on property fields[0]"),
        (
            {"fields": [{"name": "x" * 101}]},
            "'String is too long (101 chars), maximum 100' on property fields[0].name",
        ),
        (
            {"fields": [{"name": f"user_metadata.f{n}"} for n in range(31)]},
            "'Array is too long (31), maximum 30' on property fields",
        ),
        ({"fields": [{"name": "app_metadata"}]}, "on property fields[0].name"),
        ({"fields": [{"name": "password_hash"}]}, "on property fields[0].name"),
    ],
    ids=str,
)
def test_invalid_body_is_rejected(api: Api, body: Any, message: str) -> None:
    answer = api.post("/jobs/users-exports", body)
    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "invalid_body"
    assert message in answer.json()["message"]
    assert not [name for name in answer.headers if name.lower().startswith("x-ratelimit")]


def test_json_accepts_more_fields_and_complete_metadata(api: Api) -> None:
    fields = [{"name": "user_metadata"}, *({"name": f"user_metadata.f{n}"} for n in range(40))]
    assert api.post("/jobs/users-exports", {"format": "json", "fields": fields}).status_code == 200


def test_unknown_connection_is_rejected(api: Api) -> None:
    answer = api.post("/jobs/users-exports", {"connection_id": "con_9999999999999999"})
    assert (answer.status_code, answer.json()["message"]) == (400, "The connection does not exist.")


@pytest.mark.parametrize("connection_id", [FIRST_CONNECTION, SECOND_CONNECTION, None])
def test_file_contains_the_users_of_the_connection(api: Api, tenant: Any, connection_id: str | None) -> None:
    parameters = {} if connection_id is None else {"connection_id": connection_id}
    job = api.completed(format="json", fields=FIELDS, **parameters)
    data = api.download(job["location"]).content
    assert hashlib.sha256(data).hexdigest() == tenant.expected_file(job["id"]).sha256
    rows = [json.loads(line) for line in gzip.decompress(data).decode().rstrip("\n").split("\n")]
    expected = list(tenant.expected_users(connection_id))
    assert len(rows) == len(expected) == tenant.expected_rows(connection_id)
    assert [row["user_id"] for row in rows] == [user["user_id"] for user in expected]
    assert [row["name"] for row in rows] == [user["name"] for user in expected]
    assert {row["Connection"] for row in rows} == {user["identities"][0]["connection"] for user in expected}


def test_limit_reduces_the_number_of_rows(api: Api) -> None:
    job = api.completed(format="json", limit=7, fields=FIELDS)
    assert gzip.decompress(api.download(job["location"]).content).count(b"\n") == 7


def test_absent_values_are_omitted_in_json(api: Api, tenant: Any) -> None:
    job = api.completed(format="json", fields=[{"name": "user_id"}, {"name": "username"}])
    rows = [json.loads(line) for line in tenant.expected_file(job["id"]).content().splitlines()]
    assert {"username" in row for row in rows} == {True, False}


@pytest.mark.parametrize(("nested", "key"), [(False, "user_metadata.country"), (True, "user_metadata")])
def test_unnamed_subfield_follows_the_switch(api: Api, tenant: Any, nested: bool, key: str) -> None:
    tenant.switches.nested_subfields = nested
    job = api.completed(format="json", limit=1, fields=[{"name": "user_metadata.country"}])
    assert list(json.loads(tenant.expected_file(job["id"]).content())) == [key]


@pytest.mark.parametrize("booleans", [("false", "true"), ("False", "True")])
def test_csv_booleans_follow_the_switch(api: Api, tenant: Any, booleans: tuple[str, str]) -> None:
    tenant.switches.csv_booleans = booleans
    job = api.completed(format="csv", fields=[{"name": "email_verified"}])
    assert set(tenant.expected_file(job["id"]).content().decode().split()[1:]) == set(booleans)


def test_csv_is_escaped_as_documented(api: Api, tenant: Any) -> None:
    names = ["user_id", "name", "email_verified", "created_at", "logins_count", "user_metadata.note"]
    job = api.completed(format="csv", fields=[{"name": name} for name in names])
    text = tenant.expected_file(job["id"]).content().decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    users = list(tenant.expected_users())
    assert rows[0] == names
    assert len(rows) == len(users) + 1
    for row, user in zip(rows[1:], users, strict=True):
        assert row[0] == "'" + user["user_id"]
        assert row[1] == "'" + user["name"]
        assert row[2] == ("true" if user["email_verified"] else "false")
        assert row[3] == user["created_at"]
        assert row[4] == str(user.get("logins_count", ""))
        note = user.get("user_metadata", {}).get("note")
        assert row[5] == ("" if note is None else "'" + note)
    assert {"'" + text for text in AWKWARD} <= {row[1] for row in rows}


def test_block_and_row_writers_return_the_same_rows(tenant: Any) -> None:
    for form in ("csv", "ndjson"):
        layout = Layout(form, (*(Field(name) for name in PREDEFINED), Field("user_metadata.note", "note")))
        quick = b"".join(piece for piece, _ in tenant.directory.rows(layout, None, None))
        assert quick == b"".join(layout.row(user) for user in tenant.expected_users())


def test_changed_added_and_removed_users_appear(api: Api, tenant: Any) -> None:
    changed, removed = tenant.directory.user_id(3), tenant.directory.user_id(4)
    tenant.directory.put(FIRST_CONNECTION, {**tenant.directory.get(changed), "name": "新しい"})
    tenant.directory.remove(removed)
    tenant.directory.put(SECOND_CONNECTION, {"user_id": "auth0|new", "name": "added"})
    job = api.completed(format="json", fields=FIELDS)
    rows = [json.loads(line) for line in tenant.expected_file(job["id"]).content().decode().split("\n")[:-1]]
    names = {row["user_id"]: row["name"] for row in rows}
    assert names[changed] == "新しい"
    assert removed not in names
    assert rows[-1] == {"user_id": "auth0|new", "name": "added"}
    assert len(rows) == tenant.expected_rows() == 200


@pytest.mark.parametrize("fate", ["failed", "expired", "error"])
def test_job_can_end_without_a_file(api: Api, tenant: Any, fate: str) -> None:
    tenant.jobs.fates[1] = fate
    ids = [api.post("/jobs/users-exports", {}).json()["id"] for _ in range(2)]
    for job_id in ids:
        api.get(f"/jobs/{job_id}")
    first, second = (api.get(f"/jobs/{job_id}").json() for job_id in ids)
    assert first["status"] == "completed"
    assert second["status"] == fate
    assert "location" not in second


def test_stuck_vanished_and_unknown_status_jobs(api: Api, tenant: Any) -> None:
    tenant.jobs.fates |= {0: "stuck", 1: "vanished", 2: "unknown_status"}
    ids = [api.post("/jobs/users-exports", {}).json()["id"] for _ in range(3)]
    for _ in range(3):
        answers = [api.get(f"/jobs/{job_id}") for job_id in ids]
    assert answers[0].json()["status"] == "pending"
    assert (answers[1].status_code, answers[1].json()["message"]) == (404, "Job not found.")
    assert answers[2].json()["status"] == "compacting"


def test_processing_and_progress_are_switches(api: Api, tenant: Any) -> None:
    tenant.switches.polls_processing = 1
    tenant.switches.progress = True
    job = api.post("/jobs/users-exports", {}).json()
    answers = [api.get(f"/jobs/{job['id']}").json() for _ in range(3)]
    assert [answer["status"] for answer in answers] == ["pending", "processing", "completed"]
    assert answers[2]["percentage_done"] == 100


@pytest.mark.parametrize("summary", [False, True])
def test_summary_of_a_completed_export_follows_the_switch(api: Api, tenant: Any, summary: bool) -> None:
    tenant.switches.summary = summary
    job = api.completed()
    assert job.get("summary") == ({"failed": 0, "updated": 0, "inserted": 0, "total": 200} if summary else None)


def test_lifetime_of_a_job_is_a_switch(api: Api, tenant: Any, clock: FakeClock) -> None:
    tenant.switches.job_ttl = 60
    job = api.completed()
    clock.advance(59)
    assert api.get(f"/jobs/{job['id']}").status_code == 200
    clock.advance(1)
    assert api.get(f"/jobs/{job['id']}").status_code == 404


def test_job_expires_after_a_day(api: Api, clock: FakeClock) -> None:
    job = api.completed()
    clock.advance(86400)
    api.session.headers["Authorization"] = f"Bearer {api.token(api.tenant.credentials()).json()['access_token']}"
    assert api.get(f"/jobs/{job['id']}").status_code == 404


def test_malformed_job_id_is_rejected(api: Api) -> None:
    answer = api.get("/jobs/nonsense")
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "invalid_uri")


def test_payload_over_the_limit_is_rejected(api: Api) -> None:
    answer = api.post("/jobs/users-exports", {"format": "x" * (1 << 20)})
    assert answer.status_code == 413


# -- locations


def test_location_is_on_another_origin_and_signed(api: Api, tenant: Any) -> None:
    location = urlsplit(api.completed(format="json")["location"])
    assert location.scheme == "https"
    assert location.netloc == tenant.file_host != tenant.domain
    assert re.fullmatch(r"/job_\w{16}/acme\.json\.gz", location.path)
    assert "X-Amz-Signature=" in location.query


def test_location_rejects_an_authorization_header(api: Api) -> None:
    answer = api.session.get(api.completed()["location"], timeout=10)
    assert answer.status_code == 400
    assert "Only one auth mechanism allowed" in answer.text


def test_expired_location_is_replaced_by_a_new_location(api: Api, clock: FakeClock) -> None:
    job = api.completed()
    clock.advance(60)
    late = api.download(job["location"])
    assert late.status_code == 403
    assert "<Message>Request has expired</Message>" in late.text
    again = api.get(f"/jobs/{job['id']}").json()["location"]
    assert api.download(again).status_code == 200


def test_modified_location_is_rejected(api: Api) -> None:
    location = api.completed()["location"]
    assert api.download(location.replace("X-Amz-Expires=60", "X-Amz-Expires=99")).status_code == 403
    assert api.download(location.partition("?")[0]).status_code == 403


@pytest.mark.parametrize(("scheme", "start"), [("none", "localhost:"), ("http", "http://localhost:")])
def test_location_scheme_is_a_switch(api: Api, tenant: Any, scheme: Any, start: str) -> None:
    tenant.switches.location_scheme = scheme
    assert api.completed()["location"].startswith(start)


def test_location_on_another_host_and_redirects(api: Api, tenant: Any) -> None:
    tenant.switches.redirect_files_to = "http://169.254.169.254/latest/meta-data/"
    answer = api.download(api.completed()["location"])
    assert (answer.status_code, answer.headers["Location"]) == (302, tenant.switches.redirect_files_to)
    tenant.switches.location_host = "files.example.invalid"
    assert api.completed()["location"].startswith("https://files.example.invalid/")


# -- files


def test_ranges_behave_like_s3(api: Api, tenant: Any) -> None:
    job = api.completed()
    whole = tenant.expected_file(job["id"]).read()
    part = api.download(job["location"], Range="bytes=10-19")
    assert (part.status_code, part.content) == (206, whole[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole)}"
    assert api.download(job["location"], Range="bytes=-5").content == whole[-5:]
    assert api.download(job["location"], Range=f"bytes={len(whole) - 3}-").content == whole[-3:]
    assert api.download(job["location"], Range=f"bytes={len(whole)}-").status_code == 416
    # A malformed range is ignored (RFC 9110, 14.2).
    for malformed in ("bytes=²-", "bytes=1-²", "bytes=" + "9" * 5000 + "-"):
        assert api.download(job["location"], Range=malformed).status_code == 200


def test_ranges_can_be_switched_off(api: Api, tenant: Any) -> None:
    tenant.switches.file_ranges = False
    answer = api.download(api.completed()["location"], Range="bytes=10-19")
    assert answer.status_code == 200
    assert "Accept-Ranges" not in answer.headers


def test_conditions_on_the_etag(api: Api) -> None:
    location = api.completed(format="json")["location"]
    etag, other = api.download(location).headers["ETag"], '"another"'
    assert api.download(location, **{"If-Match": other}).status_code == 412
    assert api.download(location, **{"If-None-Match": etag}).status_code == 304
    statuses = [api.download(location, Range="bytes=5-", **{"If-Range": tag}).status_code for tag in (etag, other)]
    assert statuses == [206, 200]


def test_content_encoding_is_a_switch(api: Api, tenant: Any) -> None:
    tenant.switches.file_content_encoding = "gzip"
    job = api.completed()
    assert api.download(job["location"]).content == tenant.expected_file(job["id"]).content()


def test_each_fault_breaks_the_file(api: Api, tenant: Any) -> None:
    job = api.completed(format="json")
    whole = tenant.expected_file(job["id"]).read()
    for action in (faults.truncate(100), faults.corrupt(50), faults.truncate(0), faults.html(503)):
        tenant.faults.add("GET /job_*", action)
    assert api.download(job["location"]).content == whole[:100]
    corrupted = api.download(job["location"]).content
    assert len(corrupted) == len(whole)
    assert corrupted != whole
    assert api.download(job["location"]).content == b""
    assert api.download(job["location"]).headers["Content-Type"].startswith("text/html")
    assert api.download(job["location"]).content == whole


def test_damaged_file_is_the_same_in_every_range(api: Api, tenant: Any) -> None:
    tenant.switches.file_damage = lambda data: data[:-8]
    job = api.completed(format="json")
    whole = api.download(job["location"]).content
    assert whole == tenant.expected_file(job["id"]).read()
    part = api.download(job["location"], Range="bytes=100-")
    assert (part.status_code, part.content) == (206, whole[100:])
    with pytest.raises(EOFError):
        gzip.decompress(whole)
