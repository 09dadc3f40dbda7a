"""Every response of Auth0 leads to a result or a MeiboError, regardless of the types of its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.credentials import Auth0Credentials
from meibo.providers.auth0.jobs import create_users_export, get_job
from meibo.providers.auth0.location import fresh_location
from meibo.providers.auth0.membership import (
    InvitationTerms,
    add_members,
    create_invitation,
    list_invitations,
    user_exists,
    users_by_email,
)
from meibo.providers.auth0.organizations import OrganizationApi
from meibo.providers.auth0.roles import RoleApi
from meibo_cli.restore.auth0_imports import create_users_import, import_faults, import_summary
from tests.support.clock import FakeClock
from tests.support.json_values import JSON, WRONG_VALUES, altered, assert_ends, replaced, value_paths
from tests.support.transport import Reply, Transport
from tests.unit.providers.auth0.conftest import TOKEN

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ORGANIZATION = "org_0000000000000001"
TERMS = InvitationTerms(client_id="app", inviter="HR")
OF_ORGANIZATION = f"/api/v2/organizations/{ORGANIZATION}"
JOB = {
    "id": "job_1",
    "type": "users_export",
    "status": "completed",
    "created_at": "2026-11-21T18:00:00.000Z",
    "location": "https://x.s3.us-east-2.amazonaws.com/job_1/acme.json.gz?X-Amz-Signature=x",
    "percentage_done": 100,
    "time_left_seconds": 0,
    "summary": {"failed": 1, "updated": 2, "inserted": 3, "total": 6},
}
INVITATION = {
    "id": "uinv_0000000000000001",
    "client_id": "app",
    "invitee": {"email": "a@example.com"},
    "roles": ["rol_1"],
    "connection_id": "con_1",
    "created_at": "2026-11-21T18:00:00.000Z",
    "expires_at": "2026-11-28T18:00:00.000Z",
}
REFUSAL = {
    "statusCode": 403,
    "error": "Forbidden",
    "message": "Insufficient scope, expected any of: read:users",
    "errorCode": "insufficient_scope",
    "attributes": {"error": "x"},
}


@dataclass(frozen=True)
class Reading:
    """A call of the client, and the documented response to its request."""

    method: str
    path: str
    response: Any
    call: Callable[[Auth0Client], Any]


def _import(client: Auth0Client) -> Any:
    return create_users_import(client, connection_id="con_1", users=b"[]", upsert=False)


def _export(client: Auth0Client) -> Any:
    return create_users_export(client, connection_id="con_1", format="csv", limit=None, fields=["email"])


def _invite(client: Auth0Client) -> Any:
    return create_invitation(client, ORGANIZATION, "a@example.com", TERMS)


READINGS = {
    "a job": Reading("GET", "/api/v2/jobs/job_1", JOB, lambda client: get_job(client, "job_1")),
    "a location": Reading(
        "GET",
        "/api/v2/jobs/job_1",
        JOB,
        lambda client: fresh_location(client, "job_1", ["*.s3.us-east-2.amazonaws.com"]),
    ),
    "a new export": Reading("POST", "/api/v2/jobs/users-exports", JOB, _export),
    "a new import": Reading("POST", "/api/v2/jobs/users-imports", JOB, _import),
    "a summary": Reading("GET", "/api/v2/jobs/job_1", JOB, lambda client: import_summary(client, "job_1")),
    "errors of an import": Reading(
        "GET",
        "/api/v2/jobs/job_1/errors",
        [{"user": {"email": "a@example.com"}, "errors": [{"code": "FORMAT", "message": "x", "path": "email"}]}],
        lambda client: import_faults(client, "job_1"),
    ),
    "organizations": Reading(
        "GET",
        "/api/v2/organizations",
        {"organizations": [{"id": ORGANIZATION, "name": "a"}], "next": "c"},
        lambda client: OrganizationApi(client).items(None),
    ),
    "members": Reading(
        "GET",
        f"{OF_ORGANIZATION}/members",
        {"members": [{"user_id": "auth0|1", "roles": [{"id": "rol_1"}]}], "next": "c"},
        lambda client: OrganizationApi(client).members(ORGANIZATION, None),
    ),
    "enabled connections": Reading(
        "GET",
        f"{OF_ORGANIZATION}/enabled_connections",
        {"enabled_connections": [{"connection_id": "con_1"}], "start": 0, "limit": 1, "total": 1},
        lambda client: OrganizationApi(client).connection_ids(ORGANIZATION),
    ),
    "roles": Reading(
        "GET",
        "/api/v2/roles",
        {"roles": [{"id": "rol_1", "name": "a"}], "start": 0, "limit": 100, "total": 1},
        lambda client: RoleApi(client).roles(),
    ),
    "new members": Reading(
        "POST", f"{OF_ORGANIZATION}/members", None, lambda client: add_members(client, ORGANIZATION, ["auth0|1"])
    ),
    "a new invitation": Reading("POST", f"{OF_ORGANIZATION}/invitations", INVITATION, _invite),
    "invitations": Reading(
        "GET",
        f"{OF_ORGANIZATION}/invitations",
        {"invitations": [INVITATION], "start": 0, "limit": 1},
        lambda client: [
            (invitation.has_expired(NOW), invitation.differences(TERMS, roles=[]))
            for invitations in list_invitations(client, ORGANIZATION).values()
            for invitation in invitations
        ],
    ),
    "a user": Reading(
        "GET", "/api/v2/users/auth0%7C1", {"user_id": "auth0|1"}, lambda client: user_exists(client, "auth0|1")
    ),
    "users by e-mail": Reading(
        "GET",
        "/api/v2/users-by-email",
        [{"user_id": "auth0|1"}],
        lambda client: users_by_email(client, "a@example.com"),
    ),
}


def client_of(auth0: Transport) -> Auth0Client:
    return Auth0Client(
        "acme.jp.auth0.com", lambda: Auth0Credentials("client", "s3cret"), session=auth0.session(), clock=FakeClock()
    )


@pytest.mark.parametrize("case", READINGS)
def test_each_value_of_a_response_may_have_any_type(case: str) -> None:
    reading = READINGS[case]
    document: Any = None
    auth0 = Transport().on("POST", "/oauth/token", TOKEN)
    auth0.on(reading.method, reading.path, lambda _: Reply(json=document, body=b"null"))
    client = client_of(auth0)
    for path in value_paths(reading.response):
        for value in WRONG_VALUES:
            document = replaced(reading.response, path, value)
            assert_ends(lambda: reading.call(client))


@pytest.mark.parametrize("case", READINGS)
@settings(max_examples=40)
@given(data=st.data())
def test_response_with_wrong_types_raises_only_meibo_errors(case: str, data: st.DataObject) -> None:
    reading = READINGS[case]
    document = data.draw(altered(reading.response) | JSON)
    auth0 = Transport().on("POST", "/oauth/token", TOKEN).on(reading.method, reading.path, Reply(json=document))

    assert_ends(lambda: reading.call(client_of(auth0)))


@pytest.mark.parametrize("case", READINGS)
@settings(max_examples=40)
@given(document=altered(REFUSAL), status=st.sampled_from([302, 400, 401, 403, 404, 409]))
def test_error_response_with_wrong_types_raises_only_meibo_errors(case: str, document: Any, status: int) -> None:
    reading = READINGS[case]
    auth0 = Transport().on("POST", "/oauth/token", TOKEN).on(reading.method, reading.path, Reply(status, json=document))

    assert_ends(lambda: reading.call(client_of(auth0)))


@given(document=altered(TOKEN.json), status=st.sampled_from([200, 400, 401, 403]))
@example(document={**TOKEN.json, "expires_in": 10**400}, status=200)
def test_token_with_wrong_types_raises_only_meibo_errors(document: Any, status: int) -> None:
    auth0 = Transport().on("POST", "/oauth/token", Reply(status, json=document))
    auth0.on("GET", "/api/v2/jobs/job_1", Reply(json=JOB))

    assert_ends(lambda: get_job(client_of(auth0), "job_1"))
