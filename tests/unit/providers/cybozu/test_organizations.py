from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from meibo.errors import ConfigurationError, CredentialsRefusedError, RequestRefusedError, WrongFormatError
from meibo.providers.cybozu.client import CSV_FILES, CybozuClient
from meibo.providers.cybozu.directory import GROUPS, ORGANIZATIONS, stream_list_ndjson, stream_members_ndjson
from meibo.providers.cybozu.pagination import PagingReport
from tests.support.transport import RecordedRequest, Reply, Transport

ORGANIZATION_USERS, GROUP_USERS = "/v1/organization/users.json", "/v1/group/users.json"


def paged(key: str, rows: list[Any]) -> Any:
    def answer(request: RecordedRequest) -> Reply:
        offset, size = int(request.query["offset"]), int(request.query["size"])
        return Reply(json={key: rows[offset : offset + size]})

    return answer


def by_code(key: str, rows: Mapping[str, list[Any] | Reply]) -> Any:
    def answer(request: RecordedRequest) -> Reply:
        result = rows[request.query["code"]]
        reply = result if isinstance(result, Reply) else paged(key, result)(request)
        assert isinstance(reply, Reply)
        return reply

    return answer


def owners(*codes: str) -> list[dict[str, Any]]:
    return [{"id": str(number), "code": code, "name": code} for number, code in enumerate(codes, 1)]


def title(number: int) -> dict[str, Any]:
    return {"user": {"id": str(number), "code": f"u{number}"}, "title": None}


def read(client: CybozuClient, **options: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(stream_members_ndjson(client, **options)).splitlines()]


@pytest.mark.parametrize("dataset", CSV_FILES)
def test_every_csv_file_is_delivered_unchanged(cybozu: Transport, client: CybozuClient, dataset: str) -> None:
    ragged = b'"yamada"\r\n"sato","sales","chief","hr",""\r\n'
    cybozu.on("GET", f"/v1/csv/{CSV_FILES[dataset]}.csv", Reply(body=ragged, headers={"content-type": "text/csv"}))

    assert b"".join(client.stream_csv(dataset)) == ragged


def test_dataset_without_a_csv_file_is_rejected(client: CybozuClient) -> None:
    with pytest.raises(ConfigurationError, match="members"):
        client.stream_csv("members")


def test_organizations_and_groups_are_unchanged(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", "/v1/organizations.json", paged("organizations", owners("a", "b", "a")))
    cybozu.on("GET", "/v1/groups.json", paged("groups", owners("everyone")))

    organizations = b"".join(stream_list_ndjson(client, ORGANIZATIONS))
    groups = b"".join(stream_list_ndjson(client, GROUPS))

    assert [json.loads(line) for line in organizations.splitlines()] == owners("a", "b", "a")
    assert groups == b'{"id": "1", "code": "everyone", "name": "everyone"}\n'


def test_member_rows_contain_their_organization_or_group(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", "/v1/organizations.json", paged("organizations", owners("営業", "empty")))
    cybozu.on("GET", ORGANIZATION_USERS, by_code("userTitles", {"営業": [title(1), title(2)], "empty": []}))
    cybozu.on("GET", "/v1/groups.json", paged("groups", owners("everyone")))
    cybozu.on("GET", GROUP_USERS, by_code("users", {"everyone": [{"id": "1", "code": "u1"}]}))
    report = PagingReport()

    assert read(client, report=report) == [
        {"organization": {"id": "1", "code": "営業"}, "member": title(1)},
        {"organization": {"id": "1", "code": "営業"}, "member": title(2)},
        {"group": {"id": "1", "code": "everyone"}, "member": {"id": "1", "code": "u1"}},
    ]
    assert report.skipped == []


@pytest.mark.parametrize("concurrency", [1, 4])
def test_large_and_small_organizations_are_read_in_order(
    cybozu: Transport, client: CybozuClient, concurrency: int
) -> None:
    sizes = {"a": 3, "b": 450, "c": 100, "d": 0, "e": 101, "f": 1}
    members = {code: [title(number) for number in range(size)] for code, size in sizes.items()}
    cybozu.on("GET", "/v1/organizations.json", paged("organizations", owners(*sizes)))
    cybozu.on("GET", ORGANIZATION_USERS, by_code("userTitles", members))
    cybozu.on("GET", "/v1/groups.json", paged("groups", []))

    result = read(client, concurrency=concurrency)

    assert [(row["organization"]["code"], row["member"]) for row in result] == [
        (code, member) for code, rows in members.items() for member in rows
    ]


def test_duplicate_member_is_dropped_only_within_its_organization(cybozu: Transport, client: CybozuClient) -> None:
    members: dict[str, list[Any] | Reply] = {"a": [title(1), title(1)], "b": [title(1)]}
    cybozu.on("GET", "/v1/organizations.json", paged("organizations", owners("a", "b")))
    cybozu.on("GET", ORGANIZATION_USERS, by_code("userTitles", members))
    cybozu.on("GET", "/v1/groups.json", paged("groups", []))
    report = PagingReport()

    assert len(read(client, report=report)) == 2
    assert report.duplicates == 1


@pytest.mark.parametrize("gone", [Reply(404, json={"code": "CB_XX01"}), Reply(400, json={"code": "CB_VA01"})])
def test_organization_that_was_deleted_meanwhile_is_skipped_and_named(
    cybozu: Transport, client: CybozuClient, gone: Reply
) -> None:
    cybozu.on("GET", "/v1/organizations.json", paged("organizations", owners("a", "b")))
    cybozu.on("GET", ORGANIZATION_USERS, by_code("userTitles", {"a": gone, "b": [title(1)]}))
    cybozu.on("GET", "/v1/groups.json", paged("groups", []))
    report = PagingReport()

    assert [row["organization"]["code"] for row in read(client, report=report)] == ["b"]
    assert report.skipped == ["1"]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(401), CredentialsRefusedError),
        (Reply(404, body=b"<html>no such page</html>"), RequestRefusedError),
        (Reply(400, json={"code": "CB_IJ01"}), RequestRefusedError),
        (Reply(body=b"<html></html>"), WrongFormatError),
    ],
)
def test_another_error_does_not_count_as_a_deletion(
    cybozu: Transport, client: CybozuClient, reply: Reply, error: type[Exception]
) -> None:
    cybozu.on("GET", "/v1/organizations.json", paged("organizations", owners("a")))
    cybozu.on("GET", ORGANIZATION_USERS, reply)

    with pytest.raises(error):
        read(client)


def test_organization_without_a_code_is_an_error(cybozu: Transport, client: CybozuClient) -> None:
    cybozu.on("GET", "/v1/organizations.json", paged("organizations", [{"id": "1"}]))

    with pytest.raises(WrongFormatError, match="organization 1"):
        read(client)


@pytest.mark.parametrize("identity", ["yamada@example.com", "山田", "1\n2", "../1", "1" * 101])
def test_malformed_id_is_not_in_the_message(cybozu: Transport, client: CybozuClient, identity: str) -> None:
    # given: an organization that is deleted before its members are requested
    cybozu.on("GET", "/v1/organizations.json", paged("organizations", [{"id": identity, "code": "a"}]))
    cybozu.on("GET", ORGANIZATION_USERS, Reply(404, json={"code": "CB_XX01"}))
    report = PagingReport()

    with pytest.raises(
        WrongFormatError, match=r"expected an id in each row of /v1/organizations\.json, found other text"
    ) as caught:
        read(client, report=report)

    assert report.skipped == []
    assert identity not in str(caught.value)
