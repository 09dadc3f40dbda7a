from __future__ import annotations

from typing import Any

import pytest

from meibo.errors import ProviderBusyError, RequestRefusedError, WrongFormatError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.jobs import create_users_export, get_job
from meibo.providers.auth0.location import fresh_location
from meibo.providers.base import JobState
from tests.support.transport import Reply, Transport

EXPORTS = "/api/v2/jobs/users-exports"
CREATED = Reply(json={"type": "users_export", "status": "pending", "id": "job_1"})


def test_request_of_an_export_contains_every_configured_parameter(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("POST", EXPORTS, CREATED)

    job_id = create_users_export(
        client, connection_id="con_0000000000000001", format="ndjson", limit=5, fields=["user_id", "app_metadata.plan"]
    )

    assert job_id == "job_1"
    assert auth0.requests[-1].json == {
        "connection_id": "con_0000000000000001",
        "format": "json",
        "limit": 5,
        "fields": [{"name": "user_id"}, {"name": "app_metadata.plan", "export_as": "app_metadata.plan"}],
    }


def test_parameters_that_are_not_configured_are_not_sent(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("POST", EXPORTS, CREATED)

    create_users_export(client, connection_id=None, format="csv", limit=None, fields=["email"])

    assert auth0.requests[-1].json == {"format": "csv", "fields": [{"name": "email"}]}


def test_unknown_connection_is_named(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("POST", EXPORTS, Reply(400, json={"message": "The connection does not exist."}))

    with pytest.raises(RequestRefusedError, match=r"con_0000000000000009.*The connection does not exist") as caught:
        create_users_export(client, connection_id="con_0000000000000009", format="csv", limit=None, fields=["email"])

    assert caught.value.status == 400


@pytest.mark.parametrize("job_id", [None, 7, "", "somebody@people.example", "../users", "job 1", "j" * 101])
def test_response_without_a_job_is_an_error(auth0: Transport, client: Auth0Client, job_id: object) -> None:
    auth0.on("POST", EXPORTS, Reply(json={"status": "pending", "id": job_id}))

    # The message must not repeat the value, which may contain user data.
    with pytest.raises(WrongFormatError, match="expected the id of a job for an export of all connections, found none"):
        create_users_export(client, connection_id=None, format="csv", limit=None, fields=["email"])


@pytest.mark.parametrize(
    ("document", "status", "reason"),
    [
        ({"status": "pending"}, "pending", None),
        ({"status": "processing"}, "pending", None),
        ({"status": "queued for later"}, "pending", None),
        ({}, "pending", None),
        ({"status": None}, "pending", None),
        ({"status": "completed", "location": "https://x"}, "completed", None),
        ({"status": "failed"}, "gone", "failed"),
        ({"status": "expired"}, "gone", "expired"),
        ({"status": "error"}, "gone", "error"),
    ],
)
def test_status_of_a_job_maps_to_a_state(
    auth0: Transport, client: Auth0Client, document: dict[str, Any], status: str, reason: str | None
) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", Reply(json={"id": "job_1", **document}))

    job = get_job(client, "job_1")

    assert (job.status, job.reason) == (status, reason)


@pytest.mark.parametrize("status", [["completed"], {}, 7, True])
def test_status_that_is_not_a_string_is_an_error(auth0: Transport, client: Auth0Client, status: object) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", Reply(json={"status": status, "location": "https://x"}))

    with pytest.raises(WrongFormatError, match="expected a string as the status of the job job_1, found "):
        get_job(client, "job_1")
    with pytest.raises(WrongFormatError, match="expected a string as the status of the job job_1, found "):
        fresh_location(client, "job_1", ["x"])


def test_another_error_does_not_mean_that_the_job_is_gone(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", Reply(400, json={"errorCode": "invalid_uri"}))

    with pytest.raises(RequestRefusedError, match="invalid_uri"):
        get_job(client, "job_1")


@pytest.mark.parametrize("document", [{"message": "Job not found."}, {"errorCode": "inexistent_job"}])
def test_job_that_auth0_does_not_know_is_gone(auth0: Transport, client: Auth0Client, document: Any) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", Reply(404, json={"statusCode": 404, **document}))

    assert get_job(client, "job_1") == JobState("gone", "missing")


@pytest.mark.parametrize("reply", [Reply(404), Reply(404, body=b"<html>404 Not Found</html>"), Reply(404, json={})])
def test_404_of_a_proxy_does_not_mean_that_the_job_is_gone(auth0: Transport, client: Auth0Client, reply: Reply) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", reply)
    message = "expected the job job_1, found a 404 that is not from Auth0; the job is checked again later"

    with pytest.raises(ProviderBusyError, match=message):
        get_job(client, "job_1")
    with pytest.raises(ProviderBusyError, match=message):
        fresh_location(client, "job_1", ["x"])


def test_job_id_cannot_change_the_path(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", "/api/v2/jobs/..%2Fusers%3Fq%3Dx", Reply(404, json={"message": "Job not found."}))

    assert get_job(client, "../users?q=x").status == "gone"
    for dots in ("", ".", ".."):
        with pytest.raises(RequestRefusedError):
            get_job(client, dots)
