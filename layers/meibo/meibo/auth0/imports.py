"""Import jobs, which bring archived users back. https://auth0.com/docs/manage-users/user-migration/bulk-user-imports"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from meibo.auth0.client import Auth0Client
from meibo.auth0.jobs import Job, read_job
from meibo.errors import RequestRefusedError, WrongFormatError
from meibo.exchange import error_code, segment

SCOPE: Final = "create:users"
# Of a users file; two jobs of a tenant run at once, a third is answered 429 until one has ended.
LARGEST_FILE_BYTES: Final = 512_000
MOST_JOBS: Final = 2


@dataclass(frozen=True)
class ImportSummary:
    """What became of the users of a finished import."""

    inserted: int
    updated: int
    failed: int


@dataclass(frozen=True)
class ImportFault:
    """Why one user was not imported: codes and paths, and the place of the user in the job's answer."""

    position: int
    codes: tuple[str, ...]


def create_users_import(client: Auth0Client, *, connection_id: str, users: bytes, upsert: bool) -> Job:
    """Import a JSON array of users into a database connection, without an e-mail to the tenant's owners.

    Asking twice would import twice, so a request with an unknown outcome is not repeated: it raises
    ProviderBusyError with ``uncertain``. Two jobs that run already are waited for.
    """
    if len(users) > LARGEST_FILE_BYTES:
        raise ValueError(f"a file of users has at most {LARGEST_FILE_BYTES} bytes, not {len(users)}")
    subject = f"an import into connection {connection_id}"
    document = client.post(
        "jobs/users-imports",
        multipart={
            "users": ("users.json", users, "application/json"),
            "connection_id": (None, connection_id.encode(), "text/plain"),
            "upsert": (None, b"true" if upsert else b"false", "text/plain"),
            # Auth0's default is to write to every owner of the tenant.
            "send_completion_email": (None, b"false", "text/plain"),
        },
        subject=subject,
        scope=SCOPE,
        bucket="jobs",
        repeatable=False,
    )
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        raise WrongFormatError(f"{client.name} answered {subject} without the id of a job")
    created_at = document.get("created_at")
    return Job(document["id"], created_at if isinstance(created_at, str) else None, str(document.get("status")))


def import_summary(client: Auth0Client, job_id: str) -> ImportSummary | None:
    """Return the counts of a finished import, or None where Auth0 tells none.

    A job may be completed and have failed users.
    """
    document = read_job(client, job_id)
    summary = document.get("summary") if document is not None else None
    if not isinstance(summary, dict):
        return None
    return ImportSummary(*(_count(summary.get(name)) for name in ("inserted", "updated", "failed")))


def import_faults(client: Auth0Client, job_id: str) -> list[ImportFault]:
    """Return why users were not imported, in the order that Auth0 tells; without the users themselves.

    Raises RequestRefusedError where the job failed as a whole.
    """
    document: Any = client.get(
        f"jobs/{segment(job_id)}/errors", subject=f"the errors of the job {job_id}", scope=SCOPE, bucket="jobs"
    )
    if document is None:
        return []
    if isinstance(document, dict):
        raise RequestRefusedError(f"{client.name} could not import the file of the job {job_id} as a whole")
    if not isinstance(document, list):
        raise WrongFormatError(f"{client.name} answered something other than the errors of the job {job_id}")
    return [ImportFault(position, _codes(row)) for position, row in enumerate(document)]


def _codes(row: object) -> tuple[str, ...]:
    errors: Sequence[Any] = row.get("errors", ()) if isinstance(row, dict) else ()
    found = [error_code(one.get("code")) for one in errors if isinstance(one, dict)]
    return tuple(code for code in found if code is not None)


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
