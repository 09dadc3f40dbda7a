"""POST /jobs/users-imports and GET /jobs/{id}/errors."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from flask import Response, request

from meibo_simulators.auth0.jobs import CONNECTION_PATTERN
from meibo_simulators.auth0.responses import CONNECTION_MISSING, ApiError, answer, body_error, no_content
from meibo_simulators.auth0.validation import Schema, check, type_name
from meibo_simulators.clock import timestamp

if TYPE_CHECKING:
    from meibo_simulators.auth0.jobs import Job
    from meibo_simulators.auth0.routing import Routes
    from meibo_simulators.auth0.tenant import SimulatedTenant
    from meibo_simulators.auth0.tokens import Grant

MAX_FILE = 512_000
#: Bytes allowed for the multipart encoding around the file.
_ENVELOPE = 4096
# https://auth0.com/docs/manage-users/user-migration/bulk-user-import-database-schema-and-examples
TYPES = {
    **dict.fromkeys(("email", "phone_number", "user_id", "username", "given_name", "family_name"), "string"),
    **dict.fromkeys(("name", "nickname", "picture", "password_hash"), "string"),
    **dict.fromkeys(("email_verified", "phone_verified", "blocked"), "boolean"),
    **dict.fromkeys(("custom_password_hash", "app_metadata", "user_metadata"), "object"),
    "mfa_factors": "array",
}
UPSERTED = frozenset(
    {
        *("app_metadata", "user_metadata", "email_verified", "family_name", "given_name", "name", "nickname"),
        *("picture", "custom_password_hash"),
    }
)
FORBIDDEN_APP_METADATA = frozenset(
    [
        "__tenant",
        "_id",
        "blocked",
        "clientID",
        "created_at",
        "email_verified",
        "email",
        "globalClientID",
        "global_client_id",
        "identities",
        "lastIP",
        "lastLogin",
        "loginsCount",
        "metadata",
        "multifactor_last_modified",
        "multifactor",
        "updated_at",
        "user_id",
    ]
)
_NEVER_SHOWN = frozenset({"password_hash", "custom_password_hash", "mfa_factors"})
_EMAIL = re.compile(r"^[^@\s]+@[^@\s]+$")
_CONNECTION: Schema = {
    "type": "object",
    "properties": {
        "connection_id": {
            "type": "string",
            "pattern": CONNECTION_PATTERN,
            "description": "connection_id of the connection to which users will be imported.",
        }
    },
}


def register(routes: Routes) -> None:
    """Add the routes."""
    tenant = routes.tenant

    @routes.add("POST", "/jobs/users-imports", "create:users", limit="jobs")
    def create_import(_grant: Grant) -> Response:
        rows = _read_file()
        connection_id = _connection(tenant)
        connection = tenant.directory.connections[connection_id]
        external = request.form.get("external_id")
        upsert, emailed = _flag("upsert", default=False), _flag("send_completion_email", default=True)

        def work(job: Job) -> None:
            _apply(tenant, job, connection_id, rows, upsert=upsert)
            tenant.jobs.completion_emails += emailed

        extra = {
            "connection_id": connection_id,
            "connection": connection.name,
            **({"external_id": external} if external else {}),
        }
        return answer(tenant.jobs.create_import(extra, work), 202)

    @routes.add("GET", "/jobs/<job_id>/errors", "create:users", "read:users", limit="jobs")
    def job_errors(_grant: Grant, job_id: str) -> Response:
        try:
            job = tenant.jobs.find(job_id)
        except ApiError:
            raise ApiError(404, "The job does not exist") from None
        if not job.errors:
            return no_content()
        response = answer(job.errors)
        # Recorded: this response, unlike all others, has no charset.
        response.headers["Content-Type"] = "application/json"
        return response


def _flag(name: str, *, default: bool) -> bool:
    return request.form.get(name, str(default)).lower() == "true"


def _read_file() -> list[Any]:
    if not (request.content_type or "").startswith("multipart/form-data"):
        raise body_error("Payload validation error: 'Invalid multipart payload format'.")
    if (request.content_length or 0) > MAX_FILE + _ENVELOPE:
        raise ApiError(413, f"Payload content length greater than maximum allowed: {MAX_FILE}")
    file = request.files.get("users")
    if file is None:
        raise body_error("Must provide 'users' file as multipart part.")
    data = file.read()
    if not data:
        raise body_error("Users file must not be empty.")
    if len(data) > MAX_FILE:
        raise ApiError(413, f"Payload content length greater than maximum allowed: {MAX_FILE}")
    try:
        rows = json.loads(data)
    except ValueError:
        rows = None
    # Auth0's response to a file that is not an array is not recorded; here the only row of the job fails.
    return rows if isinstance(rows, list) else [None]


def _connection(tenant: SimulatedTenant) -> str:
    connection_id = request.form.get("connection_id")
    if not connection_id:
        raise body_error("Must provide 'connection_id' as multipart part.")
    check({"connection_id": connection_id}, _CONNECTION)
    connection = tenant.directory.connections.get(connection_id)
    if connection is None:
        raise body_error(CONNECTION_MISSING)
    if connection.strategy != "auth0":
        raise body_error("Connection must be a database connection.")
    if not connection.enabled:
        raise body_error("Connection must be enabled.")
    return connection_id


def _apply(tenant: SimulatedTenant, job: Job, connection_id: str, rows: list[Any], *, upsert: bool) -> None:
    """Import the rows of a job and set its summary and errors."""
    inserted = updated = 0
    for number, row in enumerate(rows):
        errors = list(_row_errors(row))
        if not errors:
            outcome = _import(tenant, job, connection_id, row, number, upsert=upsert)
            inserted += outcome == "inserted"
            updated += outcome == "updated"
            if outcome == "duplicate":
                message = "The user already exist and upsert parameter is false"
                errors.append({"code": "DUPLICATED_USER", "message": message})
        if errors:
            job.errors.append({"user": row, "errors": errors})
    failed = len(job.errors)
    total = len(rows)
    job.completed_body["summary"] = {"failed": failed, "updated": updated, "inserted": inserted, "total": total}


def _row_errors(row: Any) -> list[dict[str, str]]:
    if not isinstance(row, dict):
        return [{"code": "INVALID_TYPE", "message": f"Expected type object but found type {type_name(row)}"}]
    errors = []
    if "email" not in row:
        errors.append({"code": "OBJECT_REQUIRED", "message": "Missing required property: email", "path": "email"})
    for name, value in row.items():
        if name not in TYPES:
            errors.append({"code": "NOT_PASSED", "message": f"Additional properties not allowed: {name}"})
        elif type_name(value) != TYPES[name]:
            message = f"Expected type {TYPES[name]} but found type {type_name(value)}"
            errors.append({"code": "INVALID_TYPE", "message": message, "path": name})
    email = row.get("email")
    if isinstance(email, str) and not _EMAIL.match(email):
        message = "Object didn't pass validation for format email"
        errors.append({"code": "FORMAT", "message": message, "path": "email"})
    metadata = row.get("app_metadata")
    if isinstance(metadata, dict):
        errors += [
            {"code": "NOT_PASSED", "message": f"Additional properties not allowed: {name}", "path": "app_metadata"}
            for name in metadata
            if name in FORBIDDEN_APP_METADATA
        ]
    return errors


def _import(
    tenant: SimulatedTenant, job: Job, connection_id: str, row: dict[str, Any], number: int, *, upsert: bool
) -> str:
    directory = tenant.directory
    connection = directory.connections[connection_id]
    email = row["email"].lower()
    own_id = row.get("user_id") or hashlib.sha256(f"{job.id}:{number}".encode()).hexdigest()[:24]
    # The prefix is always added, even if the id already starts with it.
    user_id = f"auth0|{own_id}"
    existing = directory.get(user_id)
    if existing is None:
        matches = [profile for profile in directory.by_email(email) if _is_in(profile, connection.name)]
        existing = matches[0] if matches else None
    now = timestamp(job.due)
    if existing is not None:
        if not upsert:
            return "duplicate"
        changes = {name: value for name, value in row.items() if name in UPSERTED and name not in _NEVER_SHOWN}
        directory.put(connection_id, {**existing, **changes, "updated_at": now})
        return "updated"
    identity = {"connection": connection.name, "user_id": own_id, "provider": "auth0", "isSocial": False}
    shown = {name: value for name, value in row.items() if name not in _NEVER_SHOWN}
    profile = {
        "created_at": now,
        "email_verified": False,
        "name": email,
        "nickname": email.partition("@")[0],
        "picture": f"https://cdn.example.invalid/avatars/{own_id}.png",
        **shown,
        "email": email,
        "identities": [identity],
        "updated_at": now,
        "user_id": user_id,
    }
    directory.put(connection_id, profile)
    return "inserted"


def _is_in(profile: dict[str, Any], connection: str) -> bool:
    return any(identity["connection"] == connection for identity in profile["identities"])
