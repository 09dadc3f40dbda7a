"""Export and import jobs.

Exports end after a set number of polls, and imports after a set duration. All jobs expire after ``job_ttl``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from meibo_simulators.auth0.directory import Directory
from meibo_simulators.auth0.errors import CONNECTION_MISSING, ApiError, body_error, job_missing
from meibo_simulators.auth0.export_files import ExportFile, Files
from meibo_simulators.auth0.export_rows import EXPORTABLE, PREDEFINED, Field, Layout
from meibo_simulators.auth0.switches import Fate, Switches
from meibo_simulators.auth0.validation import check, connection_id_schema, object_schema
from meibo_simulators.profiles import timestamp
from meibo_simulators.site import Site

MAX_CSV_FIELDS = 30
JOB_ID = {"type": "string", "pattern": "^job_[A-Za-z0-9]{16}$"}

FIELDS_DESCRIPTION = "List of fields to be included in the CSV. Defaults to a predefined set of fields."
_FIELD = object_schema(
    {
        "name": {"type": "string", "maxLength": 100, "description": "Name of the field in the profile."},
        "export_as": {"type": "string", "maxLength": 100, "description": "Title of the column in the exported CSV."},
    },
    "name",
)
EXPORT_SCHEMA = object_schema(
    {
        "connection_id": connection_id_schema("connection_id of the connection from which users will be exported."),
        "format": {"type": "string", "enum": ["json", "csv"], "description": "Format of the file."},
        "limit": {"type": "integer", "minimum": 1, "description": "Limit the number of records."},
        "fields": {"type": "array", "items": _FIELD, "description": FIELDS_DESCRIPTION},
    }
)


@dataclass
class Job:
    """A job: its response body and its outcome (``fate``)."""

    id: str
    body: dict[str, Any]
    created: float
    fate: Fate
    pending_polls: int
    polls: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list, repr=False)

    # Exports only.
    file: ExportFile | None = field(default=None, repr=False)
    path: str = ""

    # Imports only.
    finishes_at: float = 0.0
    work: Callable[[Job], None] | None = field(default=None, repr=False)
    """The function that imports the users, or None if the import has finished."""
    summary: dict[str, int] | None = None


class Jobs:
    """The jobs of a tenant. ``fates`` maps job numbers, starting at 0, to outcomes."""

    def __init__(
        self, site: Site, switches: Switches, directory: Directory, files: Files, new_id: Callable[[str, int], str]
    ) -> None:
        self._site = site
        self._switches = switches
        self._directory = directory
        self._files = files
        self._new_id = new_id
        self._lock = threading.RLock()
        self.all: dict[str, Job] = {}
        self.fates: dict[int, Fate] = {}
        self.created = 0
        self.completion_emails = 0

    def _create(self, kind: str, properties: dict[str, Any]) -> Job:
        now = self._site.now()
        with self._lock:
            fate = self.fates.get(self.created, self._switches.job_fate)
            job_id = self._new_id("job", self.created)
            self.created += 1
            body = {"type": kind, "status": "pending", **properties, "created_at": timestamp(now), "id": job_id}
            job = Job(job_id, body, now, fate, self._switches.polls_until_completed)
            self.all[job_id] = job
        return job

    # -- exports

    def create_export(self, body: Any) -> dict[str, Any]:
        """Validate an export request and create its job."""
        check(body, EXPORT_SCHEMA)
        layout = self._layout(body)
        connection = None
        if "connection_id" in body:
            connection = self._directory.connections.get(body["connection_id"])
            if connection is None:
                raise body_error(CONNECTION_MISSING, "inexistent_connection")
        job = self._create(
            "users_export",
            {
                **({"connection_id": connection.id} if connection else {}),
                "format": body.get("format", "csv"),
                **{name: body[name] for name in ("limit", "fields") if name in body},
                **({"connection": connection.name} if connection else {}),
            },
        )
        suffix = ".gz" if self._switches.gzip_files else ""
        job.path = f"/{job.id}/{self._site.name}.{job.body['format']}{suffix}"
        job.file = self._files.build(layout, body.get("connection_id"), body.get("limit"))
        return job.body

    def _layout(self, body: dict[str, Any]) -> Layout:
        is_csv = body.get("format", "csv") == "csv"
        requested = body.get("fields")
        fields = tuple(
            Field(name) if isinstance(name, str) else Field(name["name"], name.get("export_as"))
            for name in (PREDEFINED if requested is None else requested)
        )
        if is_csv and len(fields) > MAX_CSV_FIELDS:
            raise _field_error(f"Array is too long ({len(fields)}), maximum {MAX_CSV_FIELDS}")
        for position, requested_field in enumerate(fields):
            name = requested_field.name
            if is_csv and name in ("app_metadata", "user_metadata"):
                raise _field_error(f"Cannot export {name} as CSV, name its properties", f"[{position}].name")
            if requested_field.root not in EXPORTABLE:
                raise _field_error(f"No enum match for: {name}", f"[{position}].name")
        switches = self._switches
        return Layout("csv" if is_csv else "ndjson", fields, switches.nested_subfields, switches.csv_booleans)

    def file(self, job_id: str, path: str | None = None) -> ExportFile:
        """Return the file of an export job. Raise KeyError if the job has no file, or if its file has another path."""
        job = self.all[job_id]
        if job.file is None or path not in (None, job.path):
            raise KeyError(job_id)
        return job.file

    # -- imports

    def create_import(self, properties: dict[str, Any], work: Callable[[Job], None]) -> dict[str, Any]:
        """Create an import job. ``work`` is called when the import finishes successfully."""
        with self._lock:
            active = len(self._pending_imports())
            if active >= self._switches.import_concurrency:
                message = f"There are {active} active import users jobs, please wait until some of them are finished"
                raise ApiError(429, f"{message} and try again", "too_many_requests")
            job = self._create("users_import", properties)
            job.finishes_at, job.work = job.created + self._switches.import_seconds, work
        return job.body

    def finish_imports(self) -> None:
        """Finish the imports whose duration has elapsed, in the order of creation.

        Each request to the API calls this method.
        """
        now = self._site.now()
        with self._lock:
            for job in self._pending_imports():
                if now < job.finishes_at or job.fate == "stuck" or job.work is None:
                    continue
                work, job.work = job.work, None
                if job.fate == "completed":
                    work(job)

    def _pending_imports(self) -> list[Job]:
        return [job for job in self.all.values() if job.work is not None]

    # -- all jobs

    def find(self, job_id: str) -> Job:
        """Return the job. Raise a 404 error if it does not exist, has vanished or has expired."""
        with self._lock:
            job = self.all.get(job_id)
            if job is None:
                raise job_missing()
            expired = self._site.now() - job.created >= self._switches.job_ttl
            if expired or (job.fate == "vanished" and job.polls >= job.pending_polls):
                raise job_missing()
            return job

    def get(self, job_id: str) -> dict[str, Any]:
        """Return the job as GET /jobs/{id} returns it, with a new location for a completed export."""
        check(job_id, JOB_ID, "Path")
        switches = self._switches
        with self._lock:
            job = self.find(job_id)
            job.polls += 1
            status = self._status(job)
            body = {**job.body, "status": status}
            completed = status == "completed"
            if completed and job.file is not None:
                body["location"] = self._files.location(job.path)
                if switches.summary:
                    body["summary"] = {"failed": 0, "updated": 0, "inserted": 0, "total": job.file.rows}
            elif completed:
                body["summary"] = job.summary
            if status == "failed":
                body["status_details"] = "The job could not be finished."
            if switches.progress:
                body["percentage_done"] = 100 if completed else min(99, 100 * job.polls // (job.pending_polls + 1))
                body["time_left_seconds"] = 0 if completed else max(1, job.pending_polls - job.polls)
            return body

    def _status(self, job: Job) -> str:
        if job.body["type"] == "users_import":
            if job.work is not None:
                return "pending"
        else:
            if job.polls <= job.pending_polls:
                return "pending"
            if job.polls <= job.pending_polls + self._switches.polls_processing:
                return "processing"
            if job.fate == "stuck":
                return "pending"
        return "compacting" if job.fate == "unknown_status" else job.fate


def _field_error(message: str, position: str = "") -> ApiError:
    return body_error(f"Payload validation error: '{message}' on property fields{position} ({FIELDS_DESCRIPTION}).")
