"""Every response of cybozu.com leads to a result or a MeiboError, regardless of the types of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meibo.providers.cybozu.client import CybozuClient, CybozuCredentials
from meibo.providers.cybozu.directory import (
    GROUPS,
    ORGANIZATIONS,
    stream_list_ndjson,
    stream_members_ndjson,
    stream_users_ndjson,
)
from tests.support.clock import FakeClock
from tests.support.json_values import JSON, WRONG_VALUES, altered, assert_ends, replaced, value_paths
from tests.support.transport import RecordedRequest, Reply, Transport

OWNERS = [{"id": "1", "code": "a", "name": "a", "parentCode": None}]
USER = {"id": "1", "code": "u1", "name": "a", "valid": True, "customItemValues": []}
REFUSAL = {"message": "x", "id": "1", "code": "CB_VA01", "errors": {"users.code": {"messages": ["x"]}}}
PATHS = {
    "/v1/users.json": {"users": [USER]},
    "/v1/organizations.json": {"organizations": OWNERS},
    "/v1/groups.json": {"groups": OWNERS},
    "/v1/organization/users.json": {"userTitles": [{"user": USER, "title": None}]},
    "/v1/group/users.json": {"users": [USER]},
}


@dataclass(frozen=True)
class Reading:
    """A call of the client, and the request whose response is altered."""

    path: str
    call: Callable[[CybozuClient], Iterable[bytes]]


READINGS = {
    "users": Reading("/v1/users.json", lambda client: stream_users_ndjson(client, concurrency=1)),
    "some users": Reading("/v1/users.json", lambda client: stream_users_ndjson(client, ids=["1"])),
    "organizations": Reading(
        "/v1/organizations.json", lambda client: stream_list_ndjson(client, ORGANIZATIONS, concurrency=1)
    ),
    "groups": Reading("/v1/groups.json", lambda client: stream_list_ndjson(client, GROUPS, concurrency=1)),
    "organizations with members": Reading(
        "/v1/organizations.json", lambda client: stream_members_ndjson(client, concurrency=1)
    ),
    "members of organizations": Reading(
        "/v1/organization/users.json", lambda client: stream_members_ndjson(client, concurrency=1)
    ),
    "members of groups": Reading("/v1/group/users.json", lambda client: stream_members_ndjson(client, concurrency=1)),
}


def domain(reading: Reading, document: Any, status: int = 200) -> CybozuClient:
    """Return a client of a domain whose lists have a single page; this document is one of the pages."""
    cybozu = Transport()

    def page(answer: Any) -> Callable[[RecordedRequest], Reply]:
        def first_only(request: RecordedRequest) -> Reply:
            if request.query["offset"] == "0":
                return Reply(status if answer is document else 200, json=answer, body=b"null")
            return Reply(json={key: [] for key in ("users", "organizations", "groups", "userTitles")})

        return first_only

    for path, answer in PATHS.items():
        cybozu.on("GET", path, page(document if path == reading.path else answer))
    cybozu.on("GET", "/v1/csv/user.csv", Reply(status, json=document, body=b"null"))
    return CybozuClient(
        "https://example.cybozu.com", CybozuCredentials("a", "b"), session=cybozu.session(), clock=FakeClock()
    )


@pytest.mark.parametrize("case", READINGS)
def test_each_value_of_a_response_may_have_any_type(case: str) -> None:
    reading = READINGS[case]
    valid = PATHS[reading.path]
    for path in value_paths(valid):
        for value in WRONG_VALUES:
            client = domain(reading, replaced(valid, path, value))
            assert_ends(lambda client=client: list(reading.call(client)))  # type: ignore[misc] # mypy infers no default


@pytest.mark.parametrize("case", READINGS)
@settings(max_examples=40)
@given(data=st.data())
def test_response_with_wrong_types_raises_only_meibo_errors(case: str, data: st.DataObject) -> None:
    reading = READINGS[case]
    client = domain(reading, data.draw(altered(PATHS[reading.path]) | JSON))

    assert_ends(lambda: list(reading.call(client)))


@pytest.mark.parametrize("case", READINGS)
@settings(max_examples=40)
@given(document=altered(REFUSAL), status=st.sampled_from([302, 400, 401, 403, 404, 520]))
def test_error_response_with_wrong_types_raises_only_meibo_errors(case: str, document: Any, status: int) -> None:
    reading = READINGS[case]
    client = domain(reading, document, status)

    assert_ends(lambda: list(reading.call(client)))
    assert_ends(lambda: list(client.stream_csv("users")))
