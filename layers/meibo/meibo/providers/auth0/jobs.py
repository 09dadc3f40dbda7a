"""Auth0's asynchronous export jobs. https://auth0.com/docs/api/management/v2/jobs/post-users-exports"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.http.transport import is_id, segment
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.fields import wire_fields
from meibo.providers.base import JobState

SCOPE: Final = "read:users"
# Any other state, also one that is not documented, counts as "still running" until the caller's own deadline.
GONE_STATES: Final = frozenset({"failed", "expired", "error"})
WIRE_FORMATS: Final = {"ndjson": "json", "csv": "csv"}


@dataclass(frozen=True)
class Job:
    """A job as Auth0 confirmed its creation."""

    id: str
    created_at: str | None
    status: str | None


def create_users_export(
    client: Auth0Client,
    *,
    connection_id: str | None,
    format: Literal["ndjson", "csv"],  # noqa: A002 - the design's word
    limit: int | None,
    fields: Sequence[str | Mapping[str, str]],
) -> Job:
    """Ask for an export of one connection's users, or of all users where ``connection_id`` is None.

    Not idempotent: asked twice, Auth0 makes two jobs. After a 5xx or a reset it is asked again all the same,
    because a second job does no harm; it is never read and vanishes after 24 hours.
    """
    body: dict[str, Any] = {"format": WIRE_FORMATS[format], "fields": wire_fields(fields)}
    if connection_id is not None:
        body["connection_id"] = connection_id
    if limit is not None:
        body["limit"] = limit
    subject = f"an export of connection {connection_id}" if connection_id else "an export of all connections"
    document = client.post("jobs/users-exports", json=body, subject=subject, scope=SCOPE, bucket="jobs")
    return created_job(client, document, subject)


def created_job(client: Auth0Client, document: object, subject: str) -> Job:
    """Return the job of an answer that confirms its creation; raises WrongFormatError if it has no id."""
    if not isinstance(document, dict) or not is_id(document.get("id")):
        raise WrongFormatError(f"{client.name} answered {subject} without the id of a job")
    created_at, status = document.get("created_at"), document.get("status")
    return Job(
        document["id"],
        created_at if isinstance(created_at, str) else None,
        status if isinstance(status, str) else None,
    )


def get_job(client: Auth0Client, job_id: str) -> JobState:
    """Return the state of a job, without its location; a deleted job is gone with the reason ``missing``."""
    document = read_job(client, job_id)
    if document is None:
        return JobState("gone", "missing")
    state = job_state(client, job_id, document)
    if state in GONE_STATES:
        return JobState("gone", state)
    return JobState("completed" if state == "completed" else "pending")


def read_job(client: Auth0Client, job_id: str) -> dict[str, Any] | None:
    """Return a job as Auth0 describes it, or None where there is none (any more). It may hold a location."""
    try:
        document = client.get(f"jobs/{segment(job_id)}", subject=f"the job {job_id}", scope=SCOPE, bucket="jobs")
    except RequestRefusedError as error:
        if error.status == 404:
            return None
        raise
    if not isinstance(document, dict):
        raise WrongFormatError(f"{client.name} answered something other than an object for the job {job_id}")
    return document


def job_state(client: Auth0Client, job_id: str, document: dict[str, Any]) -> str | None:
    """Return the state of a job, or None if the response has none; raises WrongFormatError if it is not a string."""
    state = document.get("status")
    if state is None or isinstance(state, str):
        return state
    raise WrongFormatError(
        f"{client.name} returned the job {job_id} with a status of type {type(state).__name__}; expected a string"
    )
