"""The rules of POST /jobs/users-imports: the schema of a row, and the users that the rows add or change."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from meibo_simulators.auth0.directory import Directory
from meibo_simulators.auth0.jobs import Job
from meibo_simulators.auth0.validation import type_name
from meibo_simulators.profiles import timestamp

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
        "picture",
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
# The documented limit is 10 KB. Auth0 accepts about ten times as much, and does not document how it computes the size.
_MAX_PROFILE_BYTES = 110 * 1024
_EMAIL = re.compile(r"^[^@\s]+@[^@\s]+$")


def import_users(directory: Directory, job: Job, connection_id: str, rows: list[Any], *, upsert: bool) -> None:
    """Import the rows of a job and set its summary and errors."""
    inserted = updated = 0
    for number, row in enumerate(rows):
        errors = list(_row_errors(row))
        if not errors:
            outcome = _import(directory, job, connection_id, row, number, upsert=upsert)
            inserted += outcome == "inserted"
            updated += outcome == "updated"
            if outcome == "duplicate":
                message = "The user already exist and upsert parameter is false"
                errors.append({"code": "DUPLICATED_USER", "message": message})
        if errors:
            job.errors.append({"user": row, "errors": errors})
    failed = len(job.errors)
    total = len(rows)
    job.summary = {"failed": failed, "updated": updated, "inserted": inserted, "total": total}


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
    profile = {name: value for name, value in row.items() if name not in _NEVER_SHOWN}
    if (
        len(json.dumps(profile, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))
        > _MAX_PROFILE_BYTES
    ):
        errors.append({"code": "PROFILE_SIZE_EXCEEDED", "message": "The user profile exceeds 10 KB"})
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
    directory: Directory, job: Job, connection_id: str, row: dict[str, Any], number: int, *, upsert: bool
) -> str:
    connection = directory.connections[connection_id]
    email = row["email"].lower()
    own_id = row.get("user_id") or hashlib.sha256(f"{job.id}:{number}".encode()).hexdigest()[:24]
    # The prefix is always added, even if the id already starts with it.
    user_id = f"auth0|{own_id}"
    existing = directory.get(user_id)
    if existing is None:
        matches = [profile for profile in directory.by_email(email) if _is_in(profile, connection.name)]
        existing = matches[0] if matches else None
    now = timestamp(job.finishes_at)
    if existing is not None:
        if not upsert:
            return "duplicate"
        changes = {name: value for name, value in row.items() if name in UPSERTED}
        directory.put(connection_id, {**existing, **changes, "updated_at": now})
        return "updated"
    identity = {"connection": connection.name, "user_id": own_id, "provider": "auth0", "isSocial": False}
    directory.secrets[user_id] = {name: row[name] for name in _NEVER_SHOWN if name in row}
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
