"""The endpoints of users, of connections, and of export and import jobs."""

from __future__ import annotations

import itertools
import json
from typing import Any

from flask import Response, request

from meibo_simulators.auth0.directory import Connection
from meibo_simulators.auth0.errors import CONNECTION_MISSING, ApiError, body_error
from meibo_simulators.auth0.imports import import_users
from meibo_simulators.auth0.jobs import Job
from meibo_simulators.auth0.pagination import (
    CHECKPOINT_QUERY,
    FIELDS_QUERY,
    OFFSET_QUERY,
    list_body,
    read_page,
    with_fields,
)
from meibo_simulators.auth0.routing import Call, Endpoints, json_response, read_body
from meibo_simulators.auth0.validation import check, check_path, connection_id_schema, object_schema

#: Maximum size of the multipart body of an import, including the file.
MAX_BODY_BYTES = 512_000
_EMAIL_QUERY = object_schema(
    {"email": {"type": "string", "description": "Email address to search for (case-sensitive)."}},
    "email",
    additional=True,
)
_BLOCKED = object_schema(
    {"blocked": {"type": "boolean", "description": "Whether this user was blocked by an administrator."}}
)
_IMPORT_SCHEMA = object_schema(
    {"connection_id": connection_id_schema("connection_id of the connection to which users will be imported.")},
    additional=True,
)

endpoints = Endpoints("users", __name__)


@endpoints.add("GET", "/users-by-email", "read:users", limit="users")
def list_users_by_email(call: Call) -> Any:
    email = request.args.to_dict()
    check(email, _EMAIL_QUERY, "Query")
    query = call.query(FIELDS_QUERY)
    return [with_fields(profile, query) for profile in call.tenant.directory.by_email(email["email"])]


@endpoints.add("GET", "/users", "read:users", limit="users")
def list_users(call: Call) -> Any:
    query, directory = call.query({**OFFSET_QUERY, **FIELDS_QUERY}), call.tenant.directory
    page = read_page(
        query,
        "You can only page through the first 1000 records. See "
        "https://auth0.com/docs/users/search/v3/view-search-results-by-page#limitation.",
    )
    profiles = itertools.islice(directory.users(), page.start, page.start + page.size)
    users = [with_fields(profile, query) for profile in profiles]
    body = page.body("users", users, directory.count())
    return {**body, "length": len(users)} if page.totals else body


@endpoints.add("GET", "/users/<user_id>", "read:users", limit="users")
def get_user(call: Call) -> Any:
    query = call.query(FIELDS_QUERY)
    return with_fields(call.user, query)


@endpoints.add("PATCH", "/users/<user_id>", "update:users", limit="users")
def update_user(call: Call) -> Any:
    """Change the blocked state, the only field that Meibo changes with this endpoint."""
    body = call.body(_BLOCKED)
    profile = {**call.user, **body}
    call.tenant.directory.put("", profile)  # an existing user stays in the same connection
    return profile


@endpoints.add("DELETE", "/users/<user_id>", "delete:users", limit="users")
def delete_user(call: Call) -> None:
    # Recorded: deleting a user that does not exist also returns 204.
    call.tenant.directory.remove(call.path["user_id"])


@endpoints.add("GET", "/connections", "read:connections", limit="connections")
def list_connections(call: Call) -> Any:
    query = call.query({**OFFSET_QUERY, **CHECKPOINT_QUERY, **FIELDS_QUERY, "name": {"type": "string"}})
    strategies = request.args.getlist("strategy")
    rows = [
        _connection(call, connection, query)
        for connection in call.tenant.directory.connections.values()
        if (not strategies or connection.strategy in strategies)
        and query.get("name", connection.name) == connection.name
    ]
    return list_body(query, "connections", rows, "id")


@endpoints.add("GET", "/connections/<connection_id>", "read:connections", limit="connections")
def get_connection(call: Call) -> Any:
    query = call.query(FIELDS_QUERY)
    check_path("id", call.path["connection_id"], connection_id_schema())
    connection = call.tenant.directory.connections.get(call.path["connection_id"])
    if connection is None:
        raise ApiError(404, CONNECTION_MISSING.rstrip("."), "inexistent_connection")
    return _connection(call, connection, query)


def _connection(call: Call, connection: Connection, query: dict[str, Any]) -> dict[str, Any]:
    with_options = not call.tenant.switches.hide_connection_options or "read:connections_options" in call.grant.scopes
    options = {"options": {"brute_force_protection": True, **connection.options}} if with_options else {}
    body = {
        "id": connection.id,
        "name": connection.name,
        "display_name": connection.name,
        "strategy": connection.strategy,
        **options,
        "realms": [connection.name],
        "is_domain_connection": False,
        "show_as_button": True,
        "authentication": {"active": True},
        "connected_accounts": {"active": False},
    }
    # Recorded: these two are always included, even if ``fields`` excludes them.
    return with_fields(body, query, ("id", "is_domain_connection"))


# -- jobs


@endpoints.add("POST", "/jobs/users-exports", "read:users", limit="jobs")
def create_export(call: Call) -> Any:
    return call.tenant.jobs.create_export(read_body())


@endpoints.add("GET", "/jobs/<job_id>", "create:users", "read:users", limit="jobs")
def get_job(call: Call) -> Any:
    return call.tenant.jobs.get(call.path["job_id"])


@endpoints.add("GET", "/jobs/<job_id>/errors", "create:users", "read:users", limit="jobs")
def list_job_errors(call: Call) -> Response | None:
    try:
        job = call.tenant.jobs.find(call.path["job_id"])
    except ApiError:
        raise ApiError(404, "The job does not exist") from None
    if not job.errors:
        return None
    response = json_response(job.errors)
    # Recorded: this response, unlike all others, has no charset.
    response.headers["Content-Type"] = "application/json"
    return response


@endpoints.add("POST", "/jobs/users-imports", "create:users", limit="jobs")
def create_import(call: Call) -> Response:
    rows = _uploaded_rows()
    connection = _import_connection(call)
    external_id = request.form.get("external_id")
    upsert, emailed = _flag("upsert", default=False), _flag("send_completion_email", default=True)

    def work(job: Job) -> None:
        import_users(call.tenant.directory, job, connection.id, rows, upsert=upsert)
        call.tenant.jobs.completion_emails += emailed

    properties = {
        "connection_id": connection.id,
        "connection": connection.name,
        **({"external_id": external_id} if external_id else {}),
    }
    return json_response(call.tenant.jobs.create_import(properties, work), 202)


def _flag(name: str, *, default: bool) -> bool:
    return request.form.get(name, str(default)).lower() == "true"


def _uploaded_rows() -> list[Any]:
    if request.mimetype != "multipart/form-data":
        raise body_error("Payload validation error: 'Invalid multipart payload format'.")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise ApiError(413, f"Payload content length greater than maximum allowed: {MAX_BODY_BYTES}")
    file = request.files.get("users")
    if file is None:
        raise body_error("Must provide 'users' file as multipart part.")
    data = file.read()
    if not data:
        raise body_error("Users file must not be empty.")
    try:
        rows = json.loads(data)
    except ValueError:
        rows = None
    # Auth0's response to a file that is not an array is not recorded. Here, the job has one row, which fails.
    return rows if isinstance(rows, list) else [None]


def _import_connection(call: Call) -> Connection:
    connection_id = request.form.get("connection_id")
    if not connection_id:
        raise body_error("Must provide 'connection_id' as multipart part.")
    check({"connection_id": connection_id}, _IMPORT_SCHEMA)
    connection = call.tenant.directory.connections.get(connection_id)
    if connection is None:
        raise body_error(CONNECTION_MISSING)
    if connection.strategy != "auth0":
        raise body_error("Connection must be a database connection.")
    if not connection.enabled:
        raise body_error("Connection must be enabled.")
    return connection
