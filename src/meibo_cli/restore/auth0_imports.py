"""Create import jobs in Auth0 and read their results. https://auth0.com/docs/manage-users/user-migration/bulk-user-imports"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.http.transport import error_code, segment
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.jobs import created_job_id, read_job

SCOPE: Final = "create:users"
# Auth0 documents this maximum for the file, but applies it to the complete multipart body.
MAX_BODY_BYTES: Final = 512_000
# The other parts and the boundaries have about 600 bytes, plus 100 bytes for the longest connection id.
MAX_FILE_BYTES: Final = MAX_BODY_BYTES - 1_000
# A tenant runs two jobs at a time. Auth0 rejects a third job with 429 until one of them has ended.
MAX_JOBS: Final = 2
# The fields of ImportSummary, in this order.
_COUNTS: Final = ("inserted", "updated", "failed")


@dataclass(frozen=True)
class ImportSummary:
    """The numbers of users of a finished import."""

    inserted: int
    updated: int
    failed: int


@dataclass(frozen=True)
class ImportFault:
    """A user who was not imported.

    ``codes`` are safe to print. ``user`` and ``errors`` contain user data.
    """

    codes: tuple[str, ...]
    user: dict[str, Any] = field(default_factory=dict, repr=False)
    errors: list[dict[str, Any]] = field(default_factory=list, repr=False)


def create_users_import(client: Auth0Client, *, connection_id: str, users: bytes, upsert: bool) -> str:
    """Create a job that imports a JSON array of users into a database connection, and return its id.

    A second request would import the users again, so a request with an unknown result is not retried but raises
    ProviderBusyError with ``uncertain``. Raises ProviderBusyError, without a retry, if two jobs are running.
    """
    if len(users) > MAX_FILE_BYTES:
        raise ValueError(f"expected a users file of at most {MAX_FILE_BYTES} bytes, found {len(users)}")
    subject = f"an import into connection {connection_id}"
    document = client.request(
        "POST",
        "jobs/users-imports",
        multipart={
            "users": ("users.json", users, "application/json"),
            "connection_id": (None, connection_id.encode(), "text/plain"),
            "upsert": (None, b"true" if upsert else b"false", "text/plain"),
            # By default, Auth0 sends an e-mail to every owner of the tenant.
            "send_completion_email": (None, b"false", "text/plain"),
        },
        subject=subject,
        scope=SCOPE,
        bucket="jobs",
        repeatable=False,
        max_retry_seconds=0.0,
    )
    return created_job_id(client, document, subject)


def import_summary(client: Auth0Client, job_id: str) -> ImportSummary | None:
    """Return the numbers of users of a finished import, or None if the job does not exist or has no summary.

    A completed job can contain users who were not imported. Raises WrongFormatError if a count is not an integer ≥ 0.
    """
    document = read_job(client, job_id)
    summary = document.get("summary") if document is not None else None
    if summary is None:
        return None
    counts = [summary.get(name) for name in _COUNTS] if isinstance(summary, dict) else []
    if not counts or not all(count is None or _is_count(count) for count in counts):
        raise WrongFormatError(
            f"{client.name}: expected a summary of the job {job_id} with integers ≥ 0 as {', '.join(_COUNTS)}, found"
            f" {', '.join(type(count).__name__ for count in counts) or type(summary).__name__}; check the domain"
        )
    return ImportSummary(*(count or 0 for count in counts))


def import_faults(client: Auth0Client, job_id: str) -> list[ImportFault]:
    """Return the users that a job did not import, in the order of the response.

    Raises RequestRefusedError if Auth0 rejected the whole file, and WrongFormatError if the response is malformed.
    """
    document: Any = client.request(
        "GET", f"jobs/{segment(job_id)}/errors", subject=f"the errors of the job {job_id}", scope=SCOPE, bucket="jobs"
    )
    if document is None:
        return []
    if isinstance(document, dict):
        raise RequestRefusedError(
            f"{client.name} rejected the whole file of job {job_id}; check that the file is unchanged"
        )
    if not isinstance(document, list):
        raise _malformed_errors(client, job_id, document)
    faults = []
    for row in document:
        errors = row.get("errors", []) if isinstance(row, dict) else None
        if not isinstance(errors, list) or not all(isinstance(error, dict) for error in errors):
            raise _malformed_errors(client, job_id, errors if isinstance(row, dict) else row)
        codes = [error_code(error.get("code")) for error in errors]
        user = row.get("user")
        known_codes = tuple(code for code in codes if code is not None)
        faults.append(ImportFault(known_codes, user if isinstance(user, dict) else {}, errors))
    return faults


def _malformed_errors(client: Auth0Client, job_id: str, found: object) -> WrongFormatError:
    return WrongFormatError(
        f"{client.name}: expected the errors of the job {job_id} as lists of objects, found"
        f" {type(found).__name__}; check the domain"
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
