"""Begin a run, repair one, or create the job of one export: the work of ``create_exports``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import meibo
from meibo import aws
from meibo.archive.keys import attempt_key, plan_key, run_folder, run_id_of, run_moment
from meibo.archive.storage import ArchiveStore, S3ArchiveStore
from meibo.configuration import Configuration, parse_documents
from meibo.errors import EventError, JobsExhaustedError, MeiboError
from meibo.exports.plan import ExportJob, PlannedExport, plan_document
from meibo.exports.resolve import resolve, resolve_again
from meibo.exports.workflow import StepFunctionsWorkflow, Workflow
from meibo.http.ratelimit import Deadline
from meibo.observability import logger
from meibo.providers import provider
from meibo.providers.base import ProviderContext
from meibo.secrets import read_configuration
from meibo.settings import CreateExportsSettings, Retention

# Jobs that are created for one export in one attempt. Auth0 loses a job rarely; a third loss has a cause to look into.
MAX_JOBS = 3
# Reserved for writing the attempt's list and starting the workflow.
RESERVED_SECONDS = 60.0

_ATTEMPT = re.compile(r"_attempt-(\d+)\.json$")


@dataclass(frozen=True, kw_only=True)
class RunCreator:
    """Creates runs and their jobs.

    ``configuration`` reads the configuration, which only the resolution of exports needs. ``context.deadline`` returns
    the seconds that the invocation has left.
    """

    store: ArchiveStore
    workflow: Workflow
    bucket: str
    configuration: Callable[[], Configuration]
    context: ProviderContext
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def begin(self, scheduled_time: datetime) -> dict[str, Any]:
        """Begin the run of a schedule tick; delivered again, the tick changes nothing.

        Writes the plan before anything is fetched, creates as many jobs as the time allows and leaves the rest to
        the workflow. Whoever finds the plan written does not create jobs: it only sees to it that the workflow runs.
        """
        run_id = run_id_of(scheduled_time)
        plan = self.store.get_json(plan_key(run_id))
        first = plan is None
        if plan is None:
            exports = resolve(self.configuration(), self.context)
            plan = plan_document(run_id, scheduled_time.isoformat(), exports, version=meibo.__version__)
            first = self.store.put_json(plan_key(run_id), plan)
            plan = plan if first else self.store.get_json(plan_key(run_id))
        if not first and self.workflow.status(run_id, 1) != "NEVER_STARTED":
            logger.info("this run was begun already", extra={"run_id": run_id})
            return {"run_id": run_id, "attempt": 1, "status": "already_started"}
        exports = _exports_of(plan)
        return self._start(run_id, 1, self._with_jobs(exports) if first else exports)

    def repair(self, run_id: str) -> dict[str, Any]:
        """Start another attempt of a run that fetches only what the plan lacks."""
        run_moment(run_id)
        plan = self.store.get_json(plan_key(run_id))
        if plan is None:
            raise EventError(f"there is no plan of a run {run_id}; repair a run that a schedule tick began")
        last = self._last_attempt(run_id)
        status = self.workflow.status(run_id, max(last, 1))
        if status in ("RUNNING", "PENDING_REDRIVE"):
            logger.info("an attempt of this run is still under way", extra={"run_id": run_id, "attempt": last})
            return {"run_id": run_id, "attempt": last, "status": "running"}
        if status == "NEVER_STARTED" and last:
            # The function ended between the list and the start: the list stands, so this attempt is started now.
            self.workflow.start(run_id, last, bucket=self.bucket, items_key=attempt_key(run_id, last))
            return {"run_id": run_id, "attempt": last, "status": "started"}
        missing = self._missing(run_id, _exports_of(plan))
        if not missing:
            return {"run_id": run_id, "attempt": last, "status": "complete", "exports": 0}
        return self._start(run_id, last + 1, self._with_jobs(missing))

    def create(self, export: PlannedExport) -> dict[str, Any]:
        """Create the job of one export, the first or the next one, within the bounded number."""
        if not export.has_job:
            return export.to_json()
        number = export.job.number + 1 if export.job else 1
        if number > MAX_JOBS:
            raise JobsExhaustedError(
                f"{MAX_JOBS} jobs were created for {export.export_id} and none delivered its file; see the"
                " provider's own log, then repair the run"
            )
        job_id = provider(export.provider).create_job(export, self.context)
        logger.info("job created", extra={"export_id": export.export_id, "job_id": job_id, "number": number})
        return export.with_job(ExportJob(id=job_id, created_at=self.now().isoformat(), number=number)).to_json()

    def _with_jobs(self, exports: list[PlannedExport]) -> list[PlannedExport]:
        created: list[PlannedExport] = []
        for export in exports:
            if not export.has_job or export.refused or self.context.deadline() < RESERVED_SECONDS:
                created.append(export)
                continue
            try:
                created.append(PlannedExport.from_json(self.create(export)))
            except MeiboError as error:
                # One export that fails never stops the others: the workflow tries this one again and records why.
                logger.warning(
                    "job not created yet", extra={"export_id": export.export_id, "error": type(error).__name__}
                )
                created.append(export)
        return created

    def _start(self, run_id: str, attempt: int, exports: list[PlannedExport]) -> dict[str, Any]:
        key = attempt_key(run_id, attempt)
        self.store.put_json(key, [export.to_json() for export in exports])
        self.workflow.start(run_id, attempt, bucket=self.bucket, items_key=key)
        jobs = sum(export.job is not None for export in exports)
        logger.info(
            "run started", extra={"run_id": run_id, "attempt": attempt, "exports": len(exports), "jobs_created": jobs}
        )
        return {"run_id": run_id, "attempt": attempt, "status": "started", "exports": len(exports), "jobs": jobs}

    def _last_attempt(self, run_id: str) -> int:
        found = (_ATTEMPT.search(key) for key in self.store.keys(f"{run_folder(run_id)}_attempt-"))
        return max((int(match.group(1)) for match in found if match), default=0)

    def _missing(self, run_id: str, planned: list[PlannedExport]) -> list[PlannedExport]:
        # Endpoints and secrets' names come from today's configuration: a wrong one may be why the run failed.
        configuration = self.configuration()
        missing: dict[str, PlannedExport] = {}
        for export in planned:
            again = (
                resolve_again(export, configuration, self.context)
                if export.refused
                else [_as_configured_now(export, configuration)]
            )
            for one in again:
                if not self.store.exists(one.address.manifest_key(run_id)):
                    missing.setdefault(one.export_id, one)
        return list(missing.values())


def _as_configured_now(export: PlannedExport, configuration: Configuration) -> PlannedExport:
    source = configuration.source(export.source)
    if source is None or source.provider != export.provider:
        return export
    return replace(export, endpoint=source.endpoint, secret=source.secret)


def _exports_of(plan: Any) -> list[PlannedExport]:
    return [PlannedExport.from_json(export) for export in plan["exports"]]


def run_creator(settings: CreateExportsSettings, retention: Retention | None, time_left: Deadline) -> RunCreator:
    """Return the creator that the settings describe, on the real bucket, workflow and providers."""
    return RunCreator(
        store=S3ArchiveStore(aws.s3(), settings.bucket, retention=retention),
        workflow=StepFunctionsWorkflow(
            aws.step_functions(), settings.state_machine_arn, max_parallel_exports=settings.max_parallel_exports
        ),
        bucket=settings.bucket,
        configuration=lambda: parse_documents(read_configuration(settings.configuration_parameter)),
        context=ProviderContext(time_left),
    )
