"""Create and read export jobs of Auth0. https://auth0.com/docs/api/management/v2/jobs/post-users-exports"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from meibo.errors import ProviderBusyError, RequestRefusedError, WrongFormatError
from meibo.http.transport import is_id, segment
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.fields import wire_fields
from meibo.providers.base import JobState

USERS_SCOPE: Final = "read:users"
# A job in any other state except "completed" is pending until its deadline.
FAILED_STATES: Final = frozenset({"failed", "expired", "error"})
WIRE_FORMATS: Final = {"ndjson": "json", "csv": "csv"}


def create_users_export(
    client: Auth0Client,
    *,
    connection_id: str | None,
    format: Literal["ndjson", "csv"],  # noqa: A002 - the term of the configuration
    limit: int | None,
    fields: Sequence[str | Mapping[str, str]],
) -> str:
    """Create an export job and return its id.

    The job exports the users of a connection, or all users if ``connection_id`` is None. The request is not idempotent,
    but it is retried after a 5xx or a reset: an additional job has no effect, and Auth0 deletes it after 24 hours.
    """
    body: dict[str, Any] = {"format": WIRE_FORMATS[format], "fields": wire_fields(fields)}
    if connection_id is not None:
        body["connection_id"] = connection_id
    if limit is not None:
        body["limit"] = limit
    subject = f"an export of connection {connection_id}" if connection_id else "an export of all connections"
    document = client.request(
        "POST", "jobs/users-exports", json=body, subject=subject, scope=USERS_SCOPE, bucket="jobs"
    )
    return created_job_id(client, document, subject)


def created_job_id(client: Auth0Client, document: object, subject: str) -> str:
    """Return the id in the response for a new job, raising WrongFormatError if it contains no id."""
    job_id = document.get("id") if isinstance(document, dict) else None
    if not is_id(job_id):
        raise WrongFormatError(f"{client.name}: expected the id of a job for {subject}, found none")
    return job_id


def get_job(client: Auth0Client, job_id: str) -> JobState:
    """Return the state of a job, without its location. A job that failed, expired or does not exist is ``gone``."""
    document = read_job(client, job_id)
    if document is None:
        return JobState("gone", "missing")
    state = job_state(client, job_id, document)
    if state in FAILED_STATES:
        return JobState("gone", state)
    return JobState("completed" if state == "completed" else "pending")


def read_job(client: Auth0Client, job_id: str) -> dict[str, Any] | None:
    """Return the JSON object of a job, which may contain its location, or None if the job does not exist.

    Raises ProviderBusyError if a 404 is not from Auth0 but, for example, from a proxy, because the job may exist.
    """
    try:
        document = client.request(
            "GET", f"jobs/{segment(job_id)}", subject=f"the job {job_id}", scope=USERS_SCOPE, bucket="jobs"
        )
    except RequestRefusedError as error:
        if error.is_missing:
            return None
        if error.status == 404:
            raise ProviderBusyError(
                f"{client.name}: expected the job {job_id}, found a 404 that is not from Auth0; the job is checked"
                " again later"
            ) from error
        raise
    if not isinstance(document, dict):
        raise WrongFormatError(
            f"{client.name}: expected an object for the job {job_id}, found {type(document).__name__}"
        )
    return document


def job_state(client: Auth0Client, job_id: str, document: dict[str, Any]) -> str | None:
    """Return the state that Auth0 reports, or None if it is missing. Raises WrongFormatError if it is not a string."""
    state = document.get("status")
    if state is None or isinstance(state, str):
        return state
    raise WrongFormatError(
        f"{client.name}: expected a string as the status of the job {job_id}, found {type(state).__name__}"
    )
