"""Organizations, groups and their members, read from a simulated domain over real HTTPS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import pytest

from meibo.errors import CredentialsRefusedError, MeiboError, RequestRefusedError, ScopeMissingError, WrongFormatError
from meibo.providers.cybozu.client import CSV_FILES, CybozuClient, CybozuCredentials
from meibo.providers.cybozu.directory import GROUPS, ORGANIZATIONS, stream_list_ndjson, stream_members_ndjson
from meibo.providers.cybozu.pagination import PagingReport
from meibo_simulators import SimulatedDomain, faults
from tests.support.clock import FakeClock

Reading = Callable[[CybozuClient], Iterator[bytes]]
READINGS: dict[str, Reading] = {
    **{f"{name}.csv": partial(CybozuClient.stream_csv, dataset=name) for name in CSV_FILES},
    "organizations": partial(stream_list_ndjson, listing=ORGANIZATIONS),
    "groups": partial(stream_list_ndjson, listing=GROUPS),
    "members": stream_members_ndjson,
}


@pytest.fixture
def client(domain: SimulatedDomain, clock: FakeClock) -> CybozuClient:
    return CybozuClient(domain.base_url, CybozuCredentials.from_secret(domain.credentials()), clock=clock)


def rows(pieces: Iterator[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(pieces).splitlines()]


def expected_members(domain: SimulatedDomain) -> list[dict[str, Any]]:
    structure, directory = domain.structure, domain.directory
    members: list[dict[str, Any]] = []
    for row in structure.organizations:
        head = {"id": row["id"], "code": row["code"]}
        for index, title in structure.in_organization(row["code"]):
            members.append({"organization": head, "member": {"user": directory.user(index), "title": title}})
    for group in structure.groups:
        head = {"id": group["id"], "code": group["code"]}
        members.extend({"group": head, "member": directory.user(index)} for index in structure.in_group(group))
    return members


@pytest.mark.parametrize("dataset", CSV_FILES)
@pytest.mark.parametrize("bom", [True, False])
def test_every_file_is_delivered_unchanged(
    domain: SimulatedDomain, client: CybozuClient, dataset: str, bom: bool
) -> None:
    domain.switches.csv_bom = bom

    assert b"".join(client.stream_csv(dataset)) == domain.expected_csv(CSV_FILES[dataset])


def test_organizations_and_groups_are_lines(domain: SimulatedDomain, client: CybozuClient) -> None:
    groups = [{key: value for key, value in row.items() if key != "type"} for row in domain.structure.groups]

    assert rows(stream_list_ndjson(client, ORGANIZATIONS)) == domain.structure.organizations
    assert rows(stream_list_ndjson(client, GROUPS)) == groups


@pytest.mark.parametrize("concurrency", [1, 4])
def test_every_member_is_a_line(domain: SimulatedDomain, client: CybozuClient, concurrency: int) -> None:
    report = PagingReport()

    members = rows(stream_members_ndjson(client, concurrency=concurrency, report=report))

    assert members == expected_members(domain)
    assert (report.duplicates, report.skipped) == (0, [])


def test_organization_that_was_deleted_meanwhile_is_skipped_and_named(
    domain: SimulatedDomain, client: CybozuClient
) -> None:
    gone = domain.structure.organizations[2]
    body = json.dumps({"code": "CB_VA01", "message": "x"})

    def asks_for_it(environ: Any) -> bool:
        return gone["code"] in parse_qs(environ["QUERY_STRING"]).get("code", [])

    domain.faults.add(asks_for_it, faults.respond(400, body, {"Content-Type": "application/json"}), times=None)
    report = PagingReport()

    members = rows(stream_members_ndjson(client, report=report))

    assert members == [row for row in expected_members(domain) if row.get("organization", {}).get("id") != gone["id"]]
    assert report.skipped == [gone["id"]]


@pytest.mark.parametrize("dataset", READINGS)
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.respond(401), CredentialsRefusedError),
        (faults.respond(520), CredentialsRefusedError),
        (faults.html(403), ScopeMissingError),
        (faults.html(404), RequestRefusedError),
        (faults.html(200), WrongFormatError),
    ],
)
def test_error_response_to_any_request_is_raised(
    domain: SimulatedDomain, client: CybozuClient, dataset: str, fault: faults.Action, error: type[MeiboError]
) -> None:
    domain.faults.add("GET *", fault, times=None)

    with pytest.raises(error):
        list(READINGS[dataset](client))


@pytest.mark.parametrize("dataset", READINGS)
@pytest.mark.parametrize("fault", [faults.html(502), faults.respond(429), faults.reset()])
def test_any_request_to_a_busy_domain_is_retried(
    domain: SimulatedDomain, client: CybozuClient, dataset: str, fault: faults.Action
) -> None:
    expected = b"".join(READINGS[dataset](client))
    met = domain.faults.add("GET *", fault, times=2)

    assert b"".join(READINGS[dataset](client)) == expected
    assert met.hits == 2
