"""A simulated domain returns the responses of cybozu.com's User API, including errors."""

from __future__ import annotations

import base64
import csv
import io
import json
import threading
from typing import Any

import pytest

from meibo_simulators import faults
from tests.integration.simulators.conftest import Domain, password
from tests.support.clock import FakeClock


def pages(domain: Domain, size: int = 100) -> list[dict[str, Any]]:
    users: list[dict[str, Any]] = []
    while True:
        page = domain.get("/v1/users.json", params={"offset": len(users), "size": size}).json()["users"]
        if not page:
            return users
        users += page


def test_pages_contain_all_users_in_order(domain: Domain) -> None:
    users = pages(domain)
    assert users == domain.domain.expected_users()
    assert len(users) == 251
    assert [int(user["id"]) for user in users] == sorted(int(user["id"]) for user in users)
    assert len(users[0]) == 27


def test_ids_are_strings_and_may_exceed_the_precision_of_a_float(simulators: Any) -> None:
    domain = simulators.cybozu["example"]
    for _ in range(300):
        domain.directory.insert(domain.directory.count())
    last = domain.expected_users()[-1]["id"]
    assert isinstance(last, str)
    assert int(last) > 2**53


def test_administrator_is_in_json_and_not_in_csv(domain: Domain) -> None:
    users = domain.get("/v1/users.json", params={"codes[0]": "Administrator"}).json()["users"]
    assert [(user["code"], user["valid"], user["customItemValues"]) for user in users] == [("Administrator", False, [])]
    rows = list(csv.reader(io.StringIO(domain.get("/v1/csv/user.csv").text, newline="")))
    assert len(rows) == 250
    assert "Administrator" not in {row[0] for row in rows}


@pytest.mark.parametrize(
    "query",
    [
        "ids[0]=3&ids[1]=5",
        "ids%5B0%5D=3&ids%5B1%5D=5",
        "ids[1]=5&ids[0]=3&query=ignored",
        "codes[0]=u1-000001&codes[1]=u1-000003",
    ],
)
def test_filters_are_accepted_in_every_encoding(domain: Domain, query: str) -> None:
    users = domain.get(f"/v1/users.json?{query}").json()["users"]
    assert [user["id"] for user in users] == ["3", "5"]


def test_unindexed_id_is_accepted(domain: Domain) -> None:
    assert [user["id"] for user in domain.get("/v1/users.json?ids=3").json()["users"]] == ["3"]


def test_body_on_get_and_method_override_are_accepted(domain: Domain) -> None:
    body = {"ids": [], "codes": ["u1-000001"], "size": 100, "offset": 0}
    by_get = domain.get("/v1/users.json", json=body)
    url = f"{domain.domain.base_url}/v1/users.json"
    headers = {**password(domain.domain.credentials()), "X-HTTP-Method-Override": "GET"}
    by_post = domain.session.post(url, json={"ids": [3]}, headers=headers, timeout=10)
    assert [answer.json()["users"][0]["id"] for answer in (by_get, by_post)] == ["3", "3"]


def test_unknown_ids_are_ignored(domain: Domain) -> None:
    assert domain.get("/v1/users.json?ids[0]=3&ids[1]=99999").json()["users"][1:] == []


@pytest.mark.parametrize(("switch", "status"), [("refuse", 400), ("ids", 200)])
def test_both_filters_follow_the_switch(domain: Domain, switch: Any, status: int) -> None:
    domain.domain.switches.both_ids_and_codes = switch
    answer = domain.get("/v1/users.json?ids[0]=3&codes[0]=x")
    assert answer.status_code == status
    if status == 200:
        assert [user["id"] for user in answer.json()["users"]] == ["3"]


def test_both_filters_are_rejected(domain: Domain) -> None:
    answer = domain.get("/v1/users.json?ids[0]=3&codes[0]=x")
    assert (answer.status_code, answer.json()["code"]) == (400, "CB_VA01")
    assert answer.headers["X-Cybozu-Error"] == "CB_VA01"


def test_more_than_a_hundred_ids_are_rejected(domain: Domain) -> None:
    query = "&".join(f"ids[{n}]={n}" for n in range(101))
    assert domain.get(f"/v1/users.json?{query}").status_code == 400


def test_long_queries_require_the_method_override(domain: Domain) -> None:
    codes = [f"{'長' * 20}-{number}" for number in range(100)]
    query = {f"codes[{number}]": code for number, code in enumerate(codes)}
    assert domain.get("/v1/users.json", params=query).status_code == 414
    headers = {**password(domain.domain.credentials()), "X-HTTP-Method-Override": "GET"}
    url = f"{domain.domain.base_url}/v1/users.json"
    assert domain.session.post(url, json={"codes": codes}, headers=headers, timeout=10).json() == {"users": []}
    domain.domain.switches.max_url_length = 32_768
    assert domain.get("/v1/users.json", params=query).json() == {"users": []}


@pytest.mark.parametrize("included", [True, False])
def test_administrator_in_json_follows_the_switch(domain: Domain, included: bool) -> None:
    domain.domain.switches.administrator_in_json = included
    for size in (1, 7, 100):
        assert pages(domain, size) == domain.domain.expected_users()
    assert len(domain.domain.expected_users()) == domain.domain.expected_rows()["ndjson"]["users"] == 250 + included
    for query in ("codes[0]=Administrator", "ids[0]=1"):
        assert len(domain.get(f"/v1/users.json?{query}").json()["users"]) == included


@pytest.mark.parametrize(("switch", "status"), [("clamp", 200), ("refuse", 400)])
def test_size_over_the_limit_follows_the_switch(domain: Domain, switch: Any, status: int) -> None:
    domain.domain.switches.size_over_limit = switch
    answer = domain.get("/v1/users.json?size=10000")
    assert answer.status_code == status
    if status == 200:
        assert len(answer.json()["users"]) == 100


@pytest.mark.parametrize(
    "query", ["size=0", "size=x", "size=²", "size=٣", "size=1_0", "offset=-1", "offset=" + "9" * 5000]
)
def test_invalid_paging_is_rejected(domain: Domain, query: str) -> None:
    assert domain.get(f"/v1/users.json?{query}").status_code == 400


def test_directory_can_change_between_pages(domain: Domain) -> None:
    directory = domain.domain.directory
    domain.domain.between_pages.extend([lambda: directory.insert(0), lambda: directory.remove(0)])
    ids = [user["id"] for user in pages(domain)]
    assert len(ids) - len(set(ids)) == 1


def test_unset_strings_follow_the_switch(domain: Domain) -> None:
    domain.domain.switches.unset = "empty"
    user = domain.get("/v1/users.json?ids[0]=1").json()["users"][0]
    assert (user["phone"], user["birthDate"]) == ("", None)


# -- CSV


def test_csv_equals_the_expected_file(domain: Domain) -> None:
    answer = domain.get("/v1/csv/user.csv")
    assert answer.content == domain.domain.expected_csv()
    rows = list(csv.reader(io.StringIO(answer.content.decode(), newline="")))
    assert {len(row) for row in rows} == {27}
    assert {(row[3], row[24]) for row in rows} == {("*", "")}
    assert answer.content.startswith(b'"u1-000000@example.jp",')
    assert answer.content.endswith(b'"\r\n')


def test_csv_format_follows_the_switches(domain: Domain) -> None:
    switches = domain.domain.switches
    switches.csv_bom, switches.csv_quoting, switches.csv_line_end = True, "minimal", "\n"
    switches.csv_delete_column, switches.csv_new_code, switches.csv_sized = False, "same", False
    switches.csv_password, switches.csv_content_type, switches.csv_disposition = "", "application/octet-stream", False
    answer = domain.get("/v1/csv/user.csv")
    assert answer.content.startswith(b"\xef\xbb\xbfu1-000000@example.jp,")
    assert "Content-Length" not in answer.headers
    assert "Content-Disposition" not in answer.headers
    assert answer.headers["Content-Type"] == "application/octet-stream"
    row = next(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))
    assert (len(row), row[2], row[3]) == (26, row[0], "")


@pytest.mark.parametrize(("switch", "value"), [("empty", ""), ("same", "org-0000"), ("star", "*")])
def test_column_of_new_codes_follows_the_switch(domain: Domain, switch: Any, value: str) -> None:
    domain.domain.switches.csv_new_code = switch
    answer = domain.get("/v1/csv/organization.csv")
    assert next(csv.reader(io.StringIO(answer.content.decode(), newline="")))[2] == value


def test_csv_requires_an_administrator(domain: Domain) -> None:
    answer = domain.get("/v1/csv/user.csv", password(domain.domain.plain_credentials()))
    assert (answer.status_code, answer.json()["code"]) == (403, "CB_NO02")
    assert domain.get("/v1/users.json", password(domain.domain.plain_credentials())).status_code == 200


def test_domain_without_csv_api_returns_html(domain: Domain) -> None:
    domain.domain.switches.csv_api = False
    answer = domain.get("/v1/csv/user.csv")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/html; charset=utf-8")


# -- access


@pytest.mark.parametrize(("legacy", "status"), [(False, 401), (True, 520)])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "CB_AU01"),
        (password({"login": "hr-export", "password": "wrong"}), "CB_WA01"),
        ({"X-Cybozu-Authorization": "not base64!"}, "CB_WA01"),
        ({"Authorization": "Bearer cy.s.api1.a.b.c"}, "CB_AU01"),
    ],
    ids=["nothing", "password", "garbage", "token"],
)
def test_failed_authentication_is_rejected(
    domain: Domain, headers: dict[str, str], code: str, legacy: bool, status: int
) -> None:
    domain.domain.switches.legacy_auth_520 = legacy
    answer = domain.get("/v1/users.json", headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_token_is_accepted_for_csv_until_it_expires(domain: Domain, clock: FakeClock) -> None:
    token = domain.domain.token_credentials(lifetime=60)["api_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert domain.get("/v1/csv/user.csv", headers).status_code == 200
    clock.advance(60)
    assert domain.get("/v1/csv/user.csv", headers).status_code == 401


def test_token_takes_precedence_over_the_password(domain: Domain) -> None:
    headers = {**password(domain.domain.credentials()), "Authorization": "Bearer nonsense"}
    assert domain.get("/v1/users.json", headers).status_code == 401


def test_unnecessary_basic_authentication_is_ignored(domain: Domain) -> None:
    headers = {**password(domain.domain.credentials()), "Authorization": "Basic eDp5"}
    assert domain.get("/v1/users.json", headers).status_code == 200


def test_missing_basic_authentication_returns_html(domain: Domain) -> None:
    domain.domain.switches.basic = ("shared", "gate:word")
    credentials = domain.domain.credentials()
    assert credentials["basic_user"] == "shared"
    answer = domain.get("/v1/users.json", password(credentials))
    assert answer.status_code == 401
    assert "<title>Unauthorized</title>" in answer.text
    basic = base64.b64encode(b"shared:gate:word").decode()
    headers = {**password(credentials), "Authorization": f"Basic {basic}"}
    assert domain.get("/v1/users.json", headers).status_code == 200


@pytest.mark.parametrize(("accepted", "status"), [(True, 200), (False, 401)])
def test_token_instead_of_basic_authentication_follows_the_switch(domain: Domain, accepted: bool, status: int) -> None:
    domain.domain.switches.basic, domain.domain.switches.basic_with_token = ("shared", "gate:word"), accepted
    headers = {"Authorization": f"Bearer {domain.domain.token_credentials()['api_token']}"}
    assert domain.get("/v1/users.json", headers).status_code == status


@pytest.mark.parametrize(("addresses", "status"), [(("127.0.0.1",), 200), (("192.0.2.1",), 403)])
def test_address_restriction(domain: Domain, addresses: tuple[str, ...], status: int) -> None:
    domain.domain.switches.allowed_ips = addresses
    answer = domain.get("/v1/users.json")
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html" if status == 403 else "application/json")


def test_login_redirect(domain: Domain) -> None:
    domain.domain.switches.login_redirect = True
    answer = domain.get("/v1/users.json", {})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/login?saml=on")


def test_messages_follow_the_language_and_may_be_absent(domain: Domain) -> None:
    domain.domain.switches.language = "en"
    assert domain.get("/v1/users.json", {}).json()["message"] == "Please login."
    domain.domain.switches.error_message = False
    assert "message" not in domain.get("/v1/users.json", {}).json()


def test_malformed_json_is_rejected(domain: Domain) -> None:
    headers = {**password(domain.domain.credentials()), "Content-Type": "application/json"}
    answer = domain.get("/v1/users.json", headers, data=b"{")
    assert (answer.status_code, answer.json()["code"]) == (400, "CB_IJ01")


def test_too_many_concurrent_requests_are_rejected(domain: Domain) -> None:
    domain.domain.switches.concurrency_limit = 1
    domain.domain.switches.page_seconds = 0.3
    statuses: list[int] = []

    def ask() -> None:
        other = Domain(domain.domain, domain.session.verify)  # type: ignore[arg-type]  # a path either way
        statuses.append(other.get("/v1/users.json").status_code)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 429, 429]
    assert domain.domain.max_concurrent_requests >= 2


def test_overload_page_and_truncated_csv(domain: Domain) -> None:
    domain.domain.faults.add("GET /v1/*", faults.html(502, "一時的な過負荷かメンテナンス"))
    assert domain.get("/v1/users.json").status_code == 502
    domain.domain.faults.add("GET /v1/csv/*", faults.truncate(10))
    assert len(domain.get("/v1/csv/user.csv").content) == 10


def test_record_contains_no_query_and_no_credentials(domain: Domain) -> None:
    domain.get("/v1/users.json?codes[0]=somebody@example.jp")
    record = json.dumps([vars(request) for request in domain.domain.requests])
    assert "somebody" not in record
    assert domain.domain.account.password not in record
    assert json.loads(record)[0]["path"] == "/v1/users.json"


@pytest.mark.parametrize(("delete_column", "columns"), [(True, 25), (False, 24)])
def test_domain_without_custom_items(domain: Domain, delete_column: bool, columns: int) -> None:
    domain.domain.switches.custom_items = False
    domain.domain.switches.csv_delete_column = delete_column
    users = domain.get("/v1/users.json").json()["users"]
    assert {len(user) for user in users} == {27}
    assert [user["customItemValues"] for user in users] == [[]] * 100
    group = domain.get("/v1/group/users.json?code=everyone").json()["users"]
    assert [user["customItemValues"] for user in group] == [[]] * 100
    organization = domain.get("/v1/organization/users.json?code=org-0001").json()["userTitles"]
    assert {str(entry["user"]["customItemValues"]) for entry in organization} == {"[]"}
    answer = domain.get("/v1/csv/user.csv")
    assert answer.content == domain.domain.expected_csv()
    rows = list(csv.reader(io.StringIO(answer.content.decode(), newline="")))
    assert {len(row) for row in rows} == {columns}
