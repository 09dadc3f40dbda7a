"""Export and import jobs: created by a request, completed later, deleted after a day."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from meibo_simulators.auth0.export_rows import EXPORTABLE, PREDEFINED, Field, Layout
from meibo_simulators.auth0.responses import CONNECTION_MISSING, ApiError, body_error, job_missing
from meibo_simulators.auth0.validation import check
from meibo_simulators.clock import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from meibo_simulators.auth0.export_files import ExportFile
    from meibo_simulators.auth0.tenant import SimulatedTenant

CSV_FIELDS = 30
CONNECTION_PATTERN = "^con_[A-Za-z0-9]{16}$"
JOB_PATTERN = "^job_[A-Za-z0-9]{16}$"
#: Files with at least this many users are written by a background thread; the job is pending until then.
WRITE_ASIDE = 100_000

FIELDS_DESCRIPTION = "List of fields to be included in the CSV. Defaults to a predefined set of fields."
_FIELD = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 100, "description": "Name of the field in the profile."},
        "export_as": {
            "type": "string",
            "maxLength": 100,
            "description": "Title of the column in the exported CSV.",
        },
    },
}
EXPORT_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "connection_id": {
            "type": "string",
            "pattern": CONNECTION_PATTERN,
            "description": "connection_id of the connection from which users will be exported.",
        },
        "format": {"type": "string", "enum": ["json", "csv"], "description": "Format of the file."},
        "limit": {"type": "integer", "minimum": 1, "description": "Limit the number of records."},
        "fields": {
            "type": "array",
            "items": _FIELD,
            "description": FIELDS_DESCRIPTION,
        },
    },
}


@dataclass
class Job:
    """A job: its response body and its outcome (``fate``)."""

    id: str
    body: dict[str, Any]
    created: float
    fate: str
    file: Future[ExportFile] | None = field(default=None, repr=False)
    path: str | None = None
    layout: Layout | None = field(default=None, repr=False)
    polls: int = 0
    pending_polls: int = 0
    processing_polls: int = 0
    due: float = 0.0
    work: Callable[[Job], None] | None = field(default=None, repr=False)
    """The function that imports the users of a pending import; None for exports and for finished imports."""
    completed_body: dict[str, Any] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list, repr=False)


class Jobs:
    """The jobs of a tenant. ``fates`` maps the number of a job, in the order of creation from 0, to its outcome."""

    def __init__(self, tenant: SimulatedTenant) -> None:
        self._tenant = tenant
        self._lock = threading.RLock()
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="export-files")
        self.all: dict[str, Job] = {}
        self.fates: dict[int, str] = {}
        self.created = 0
        self.completion_emails = 0

    def create_export(self, body: Any) -> dict[str, Any]:
        """Validate an export request and create its job."""
        check(body, EXPORT_SCHEMA)
        tenant = self._tenant
        layout = self._layout(body)
        connection = None
        if "connection_id" in body:
            connection = tenant.directory.connections.get(body["connection_id"])
            if connection is None:
                raise ApiError(400, CONNECTION_MISSING, "inexistent_connection", rate_headers=False)
        job = self.new(
            "users_export",
            {
                **({"connection_id": connection.id} if connection else {}),
                "format": body.get("format", "csv"),
                **{name: body[name] for name in ("limit", "fields") if name in body},
                **({"connection": connection.name} if connection else {}),
            },
        )
        job.layout = layout
        job.path = f"/{job.id}/{tenant.name}.{job.body['format']}" + (".gz" if tenant.switches.gzip_files else "")
        self._write(job, body)
        return job.body

    def _layout(self, body: dict[str, Any]) -> Layout:
        form = body.get("format", "csv")
        requested = body.get("fields")
        fields = tuple(
            Field(name) if isinstance(name, str) else Field(name["name"], name.get("export_as"))
            for name in (PREDEFINED if requested is None else requested)
        )
        if form == "csv" and len(fields) > CSV_FIELDS:
            raise body_error(
                f"Payload validation error: 'Array is too long ({len(fields)}), maximum {CSV_FIELDS}' "
                f"on property fields ({FIELDS_DESCRIPTION})."
            )
        for position, requested_field in enumerate(fields):
            if form == "csv" and requested_field.name in ("app_metadata", "user_metadata"):
                raise body_error(
                    f"Payload validation error: 'Cannot export {requested_field.name} as CSV, name its properties' "
                    f"on property fields[{position}].name ({FIELDS_DESCRIPTION})."
                )
            if self._tenant.switches.unknown_field == "refuse" and requested_field.root not in EXPORTABLE:
                raise body_error(
                    f"Payload validation error: 'No enum match for: {requested_field.name}' "
                    f"on property fields[{position}].name ({FIELDS_DESCRIPTION})."
                )
        switches = self._tenant.switches
        return Layout(
            "csv" if form == "csv" else "ndjson",
            fields,
            switches.nested_subfields,
            switches.csv_booleans,
            switches.csv_line_end,
        )

    def new(self, kind: str, extra: dict[str, Any]) -> Job:
        """Create a job of any type."""
        tenant = self._tenant
        now = tenant.clock()
        with self._lock:
            fate = self.fates.get(self.created, tenant.switches.job_fate)
            job_id = tenant.new_id("job", self.created)
            self.created += 1
            body = {"type": kind, "status": "pending", **extra, "created_at": timestamp(now), "id": job_id}
            job = Job(job_id, body, now, fate)
            job.pending_polls = tenant.switches.polls_until_completed
            job.processing_polls = tenant.switches.polls_processing
            self.all[job_id] = job
        return job

    def create_import(self, extra: dict[str, Any], work: Callable[[Job], None]) -> dict[str, Any]:
        """Create an import job; ``work`` runs when the duration of the import is over."""
        switches = self._tenant.switches
        with self._lock:
            active = len(self.pending_imports())
            if active >= switches.import_concurrency:
                raise ApiError(
                    429,
                    f"There are {active} active import users jobs, please wait until some of them are finished "
                    "and try again",
                    "too_many_requests",
                )
            job = self.new("users_import", extra)
            job.due, job.work = job.created + switches.import_seconds, work
        return job.body

    def settle(self) -> None:
        """Finish the imports whose duration is over, in the order of creation; no polling is needed."""
        now = self._tenant.clock()
        with self._lock:
            for job in self.pending_imports():
                if now < job.due or job.fate == "stuck" or job.work is None:
                    continue
                work, job.work = job.work, None
                if job.fate == "completed":
                    work(job)

    def pending_imports(self) -> list[Job]:
        """Return the unfinished imports."""
        with self._lock:
            return [job for job in self.all.values() if job.work is not None]

    def _write(self, job: Job, body: dict[str, Any]) -> None:
        directory = self._tenant.directory
        connection_id, limit = body.get("connection_id"), body.get("limit")
        layout = job.layout
        if layout is None:
            raise ValueError(f"{job.id}: expected an export job with a layout, got none")

        def build() -> ExportFile:
            return self._tenant.files.build(layout, connection_id, limit)

        if min(directory.count(connection_id), limit or WRITE_ASIDE) >= WRITE_ASIDE:
            job.file = self._aside.submit(build)
        else:
            job.file = Future()
            job.file.set_result(build())

    def get(self, job_id: str) -> dict[str, Any]:
        """Return the job as GET /jobs/{id} returns it, with a new location if it is completed."""
        check(job_id, {"type": "string", "pattern": JOB_PATTERN}, "Path")
        with self._lock:
            job = self.find(job_id)
            job.polls += 1
            status = self._status(job)
            body = {**job.body, "status": status}
            if status == "completed":
                body |= job.completed_body
            if status == "completed" and job.path is not None and job.file is not None:
                file = job.file.result()
                if self._tenant.files.deposited(job.path) is None:
                    damage = self._tenant.switches.file_damage
                    self._tenant.files.deposit(
                        job.path, file if damage is None else self._tenant.files.damaged(file, damage)
                    )
                body["location"] = self._tenant.location(job.path)
                if self._tenant.switches.summary:
                    body["summary"] = {"failed": 0, "updated": 0, "inserted": 0, "total": file.rows}
            if status == "failed":
                body["status_details"] = "The job could not be finished."
            if self._tenant.switches.progress:
                done = status == "completed"
                body["percentage_done"] = 100 if done else min(99, 100 * job.polls // (job.pending_polls + 1))
                body["time_left_seconds"] = 0 if done else max(1, job.pending_polls - job.polls)
            return body

    def find(self, job_id: str) -> Job:
        """Return the job. Raise the 404 if it never existed, vanished or expired."""
        tenant = self._tenant
        with self._lock:
            job = self.all.get(job_id)
            if job is None:
                raise job_missing()
            expired = tenant.clock() - job.created >= tenant.switches.job_ttl
            if expired or (job.fate == "vanished" and job.polls >= job.pending_polls):
                if job.path is not None:
                    tenant.files.remove(job.path)
                raise job_missing()
            return job

    def _status(self, job: Job) -> str:
        if job.body["type"] == "users_import":
            if job.work is not None:
                return "pending"
        else:
            if job.polls <= job.pending_polls:
                return "pending"
            if job.polls <= job.pending_polls + job.processing_polls:
                return "processing"
            early = self._tenant.clock() - job.created < self._tenant.switches.job_seconds
            unwritten = job.fate == "completed" and job.file is not None and not job.file.done()
            if early or unwritten or job.fate == "stuck":
                return "pending"
        return "compacting" if job.fate == "unheard_of" else job.fate

    def file(self, job_id: str) -> ExportFile:
        """Return the job's file; wait until it is written."""
        job = self.all[job_id]
        if job.file is None:
            raise ValueError(f"{job_id}: expected an export job with a file, got a job without one")
        return (self._tenant.files.deposited(job.path) if job.path else None) or job.file.result()

    def exchange_file(self, job_id: str, edition: int = 1) -> ExportFile:
        """Replace the file of the job's location by the same rows in different bytes and with a different ETag."""
        job = self.all[job_id]
        if job.layout is None or job.path is None:
            raise ValueError(f"{job_id}: expected an export job with a file, got a job without one")
        body = job.body
        file = self._tenant.files.build(job.layout, body.get("connection_id"), body.get("limit"), edition=edition)
        self._tenant.files.deposit(job.path, file)
        return file

    def damage_file(self, job_id: str, change: Callable[[bytes], bytes]) -> ExportFile:
        """Replace the file of a completed job's location by the result of ``change``."""
        job = self.all[job_id]
        if job.path is None:
            raise ValueError(f"{job_id}: expected an export job with a file, got a job without one")
        file = self._tenant.files.damaged(self.file(job_id), change)
        self._tenant.files.deposit(job.path, file)
        return file

    def close(self) -> None:
        """Wait for the files that are being written."""
        self._aside.shutdown(wait=True, cancel_futures=True)
