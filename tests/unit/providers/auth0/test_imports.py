from __future__ import annotations

from typing import Any

import pytest

from meibo.errors import ProviderBusyError, RequestRefusedError, WrongFormatError
from meibo.providers.auth0.client import Auth0Client
from meibo_cli.restore.auth0_imports import (
    MAX_FILE_BYTES,
    create_users_import,
    import_faults,
    import_summary,
)
from tests.support.transport import Reply, Transport

PATH = "/api/v2/jobs/users-imports"
ERRORS = "/api/v2/jobs/job_1/errors"


def test_import_sends_no_e_mail_to_the_owners(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("POST", PATH, Reply(202, json={"id": "job_1", "status": "pending"}))

    job = create_users_import(client, connection_id="con_1", users=b'[{"email":"a@example.com"}]', upsert=True)

    sent = auth0.requests[-1]
    assert job == "job_1"
    assert sent.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    for name, content in (("users", b"[{"), ("connection_id", b"con_1"), ("upsert", b"true")):
        assert f'name="{name}"'.encode() in sent.body
        assert content in sent.body
    assert b'name="send_completion_email"\r\nContent-Type: text/plain\r\n\r\nfalse\r\n' in sent.body


def test_third_import_is_rejected_at_once(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("POST", PATH, Reply(429), Reply(202, json={"id": "job_1"}))

    with pytest.raises(ProviderBusyError) as caught:
        create_users_import(client, connection_id="con_1", users=b"[]", upsert=False)

    assert not caught.value.uncertain
    assert create_users_import(client, connection_id="con_1", users=b"[]", upsert=False) == "job_1"


def test_file_that_is_too_large_is_not_sent(auth0: Transport, client: Auth0Client) -> None:
    with pytest.raises(ValueError, match="511000"):
        create_users_import(client, connection_id="con_1", users=b" " * 511_001, upsert=False)

    assert auth0.requests == []


def test_body_of_the_largest_file_is_within_the_limit(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("POST", PATH, Reply(202, json={"id": "job_1"}))

    create_users_import(client, connection_id="con_" + 96 * "x", users=b" " * MAX_FILE_BYTES, upsert=False)

    assert 512_000 - 1_000 < len(auth0.requests[-1].body) <= 512_000


@pytest.mark.parametrize(
    ("document", "counts"),
    [
        ({"summary": {"failed": 1, "updated": 2, "inserted": 3, "total": 6}}, (3, 2, 1)),
        ({"summary": {"failed": None}}, (0, 0, 0)),
        ({}, None),
    ],
)
def test_counts_of_an_import_are_optional(
    auth0: Transport, client: Auth0Client, document: dict[str, Any], counts: tuple[int, ...] | None
) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", Reply(json=document))

    summary = import_summary(client, "job_1")

    assert counts == (None if summary is None else (summary.inserted, summary.updated, summary.failed))


@pytest.mark.parametrize("summary", [[], "x", 7, {"failed": "3"}, {"failed": -1}, {"failed": True}, {"failed": []}])
def test_malformed_summary_is_an_error(auth0: Transport, client: Auth0Client, summary: Any) -> None:
    auth0.on("GET", "/api/v2/jobs/job_1", Reply(json={"summary": summary}))

    with pytest.raises(
        WrongFormatError,
        match="expected a summary of the job job_1 with integers ≥ 0 as inserted, updated, failed, found",
    ):
        import_summary(client, "job_1")


@pytest.mark.parametrize(
    "row", [{"errors": None}, {"errors": 7}, {"errors": "FORMAT"}, {"errors": ["FORMAT"]}, None, []]
)
def test_malformed_errors_of_a_user_are_an_error(auth0: Transport, client: Auth0Client, row: Any) -> None:
    auth0.on("GET", ERRORS, Reply(json=[{"errors": [{"code": "FORMAT"}]}, row]))

    with pytest.raises(WrongFormatError, match="the errors of the job job_1"):
        import_faults(client, "job_1")


@pytest.mark.parametrize("job_id", [None, 7, "", "somebody@people.example"])
def test_import_without_the_id_of_a_job_is_an_error(auth0: Transport, client: Auth0Client, job_id: object) -> None:
    auth0.on("POST", PATH, Reply(202, json={"id": job_id}))

    with pytest.raises(
        WrongFormatError, match=r"expected the id of a job for an import into connection con_1, found none$"
    ):
        create_users_import(client, connection_id="con_1", users=b"[]", upsert=False)


def test_faults_contain_codes_but_no_user_data(auth0: Transport, client: Auth0Client) -> None:
    rows = [
        {"user": {"email": "canary@example.com"}, "errors": [{"code": "DUPLICATED_USER", "message": "canary"}]},
        {"user": {}, "errors": [{"code": "FORMAT", "path": "email"}, {"code": "not a code"}]},
        {},
    ]
    auth0.on("GET", ERRORS, Reply(json=rows))

    faults = import_faults(client, "job_1")

    assert [fault.codes for fault in faults] == [("DUPLICATED_USER",), ("FORMAT",), ()]
    assert "canary" not in repr(faults)


def test_no_content_means_no_faults(auth0: Transport, client: Auth0Client) -> None:
    auth0.on("GET", ERRORS, Reply(204))

    assert import_faults(client, "job_1") == []


@pytest.mark.parametrize(("answer", "error"), [({"id": "job_1"}, RequestRefusedError), ("x", WrongFormatError)])
def test_failure_of_the_whole_file_is_an_error(
    auth0: Transport, client: Auth0Client, answer: Any, error: type[Exception]
) -> None:
    auth0.on("GET", ERRORS, Reply(json=answer))

    with pytest.raises(error, match="job_1"):
        import_faults(client, "job_1")
