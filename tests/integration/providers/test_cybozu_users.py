"""The cybozu.com client against a simulated domain, over real HTTPS."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest

from meibo.errors import (
    CopyBrokenError,
    CredentialsRefusedError,
    ScopeMissingError,
)
from meibo.providers.cybozu.client import CybozuClient, CybozuCredentials
from meibo.providers.cybozu.directory import stream_users_ndjson
from meibo.providers.cybozu.pagination import PagingReport
from meibo_simulators import SimulatedDomain, faults
from tests.support.clock import FakeClock


def client_of(domain: SimulatedDomain, clock: FakeClock, secret: dict[str, str] | None = None) -> CybozuClient:
    credentials = CybozuCredentials.from_secret(secret or domain.credentials())
    return CybozuClient(domain.base_url, credentials, clock=clock)


@pytest.fixture
def client(domain: SimulatedDomain, clock: FakeClock) -> CybozuClient:
    return client_of(domain, clock)


def lines(client: CybozuClient, **options: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(stream_users_ndjson(client, **options)).splitlines()]


def test_domain_without_custom_items_is_read(domain: SimulatedDomain, client: CybozuClient) -> None:
    domain.switches.custom_items = False

    assert lines(client) == domain.expected_users()
    assert b"".join(client.stream_csv("users")) == domain.expected_csv()


@pytest.mark.parametrize("content_type", ["text/csv", "text/csv; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("delete_column", [True, False])
@pytest.mark.parametrize("new_code", ["empty", "same", "star"])
def test_columns_and_headers_of_a_csv_file_may_differ(
    domain: SimulatedDomain, client: CybozuClient, content_type: str, delete_column: bool, new_code: Any
) -> None:
    switches = domain.switches
    switches.csv_content_type, switches.csv_disposition = content_type, content_type == "text/csv"
    switches.csv_delete_column, switches.csv_new_code = delete_column, new_code
    switches.csv_password = "*" if delete_column else ""

    assert b"".join(client.stream_csv("users")) == domain.expected_csv()


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("bom", [True, False])
def test_csv_file_is_delivered_unchanged(domain: SimulatedDomain, client: CybozuClient, sized: bool, bom: bool) -> None:
    domain.switches.csv_sized, domain.switches.csv_bom = sized, bom

    assert b"".join(client.stream_csv("users")) == domain.expected_csv()


@pytest.mark.parametrize("unset", ["null", "empty"])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_every_user_is_a_line(domain: SimulatedDomain, client: CybozuClient, unset: Any, concurrency: int) -> None:
    domain.switches.unset = unset
    report = PagingReport()

    assert lines(client, concurrency=concurrency, report=report) == domain.expected_users()
    assert report.duplicates == 0


@pytest.mark.parametrize("size_over_limit", ["clamp", "refuse"])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_administrator_may_be_absent(
    domain: SimulatedDomain, client: CybozuClient, size_over_limit: Any, concurrency: int
) -> None:
    domain.switches.administrator_in_json, domain.switches.size_over_limit = False, size_over_limit

    users = lines(client, concurrency=concurrency)

    assert users == domain.expected_users()
    assert len(users) == 730


def test_pages_are_requested_concurrently_within_the_limit(domain: SimulatedDomain, client: CybozuClient) -> None:
    domain.switches.page_seconds = 0.05

    lines(client, concurrency=3)

    assert 2 <= domain.max_concurrent_requests <= 3


def test_too_many_concurrent_requests_are_retried(domain: SimulatedDomain, client: CybozuClient) -> None:
    domain.switches.concurrency_limit, domain.switches.page_seconds = 2, 0.02

    assert len(lines(client, concurrency=6)) == 731


@pytest.mark.parametrize("max_url_length", [4096, 8192])
@pytest.mark.parametrize("both", ["refuse", "ids"])
def test_filter_returns_the_named_users(
    domain: SimulatedDomain, client: CybozuClient, max_url_length: int, both: Any
) -> None:
    domain.switches.max_url_length, domain.switches.both_ids_and_codes = max_url_length, both
    users = domain.expected_users()
    selected = users[3:240]

    assert lines(client, ids=[user["id"] for user in selected]) == selected
    assert lines(client, codes=[user["code"] for user in selected]) == selected


def test_api_token_is_sufficient(domain: SimulatedDomain, clock: FakeClock) -> None:
    client = client_of(domain, clock, domain.token_credentials())

    assert b"".join(client.stream_csv("users")) == domain.expected_csv()


def test_basic_authentication_is_supported(domain: SimulatedDomain, clock: FakeClock) -> None:
    closed = client_of(domain, clock)
    domain.switches.basic = ("gate", "keeper")

    assert b"".join(client_of(domain, clock).stream_csv("users")) == domain.expected_csv()
    with pytest.raises(CredentialsRefusedError, match="basic_user"):
        next(closed.stream_csv("users"))


def test_token_on_a_domain_with_basic_authentication(domain: SimulatedDomain, clock: FakeClock) -> None:
    client = client_of(domain, clock, domain.token_credentials())
    domain.switches.basic = ("gate", "keeper")

    assert b"".join(client.stream_csv("users")) == domain.expected_csv()
    domain.switches.basic_with_token = False
    with pytest.raises(CredentialsRefusedError, match="basic_user"):
        next(client.stream_csv("users"))


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("message", [True, False])
@pytest.mark.parametrize("language", ["ja", "en"])
def test_wrong_password_is_reported(
    domain: SimulatedDomain, clock: FakeClock, legacy: bool, message: bool, language: Any
) -> None:
    switches = domain.switches
    switches.legacy_auth_520, switches.error_message, switches.language = legacy, message, language
    client = client_of(domain, clock, {**domain.credentials(), "password": "canary"})

    for read in (client.stream_csv("users"), stream_users_ndjson(client)):
        with pytest.raises(CredentialsRefusedError, match="CB_WA01") as caught:
            next(read)
        assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_expired_token_is_reported(domain: SimulatedDomain, clock: FakeClock) -> None:
    client = client_of(domain, clock, domain.token_credentials(lifetime=-1))

    with pytest.raises(CredentialsRefusedError, match="API token"):
        next(client.stream_csv("users"))


def test_address_restriction_is_reported(domain: SimulatedDomain, client: CybozuClient) -> None:
    domain.switches.allowed_ips = ("192.0.2.1",)

    with pytest.raises(ScopeMissingError, match="IP address"):
        next(client.stream_csv("users"))


def test_user_without_administrator_rights_reads_json_only(domain: SimulatedDomain, clock: FakeClock) -> None:
    client = client_of(domain, clock, domain.plain_credentials())

    with pytest.raises(ScopeMissingError, match="共通管理者"):
        next(client.stream_csv("users"))
    assert len(lines(client)) == 731


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("after", [1, 30_000])
def test_truncated_file_is_an_error(
    domain: SimulatedDomain, client: CybozuClient, sized: bool, reset: bool, after: int
) -> None:
    domain.switches.csv_sized = sized
    domain.faults.add("GET /v1/csv/user.csv", faults.break_body(after, reset=reset))

    with pytest.raises(CopyBrokenError, match=r"sent an incomplete /v1/csv/user\.csv \("):
        list(client.stream_csv("users"))


@pytest.mark.parametrize(
    "fault",
    [
        faults.html(502, "一時的な過負荷かメンテナンス"),
        faults.respond(503),
        faults.respond(429),
        faults.reset(),
        faults.break_body(50),
    ],
)
def test_faults_of_some_pages_are_retried(domain: SimulatedDomain, client: CybozuClient, fault: faults.Action) -> None:
    domain.faults.add("GET /v1/users.json", fault, times=4, after=2)

    assert lines(client) == domain.expected_users()
