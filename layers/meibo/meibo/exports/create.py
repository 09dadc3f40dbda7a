"""Start a run, repair a run, or create the job of one export.

The Lambda function ``create_exports`` runs this code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import meibo
from meibo import aws
from meibo.archive.keys import (
    ExportAddress,
    RunDocument,
    attempt_key,
    attempt_of,
    plan_key,
    run_documents,
    run_id_of,
    run_moment,
)
from meibo.archive.runs import find_run
from meibo.archive.storage import ArchiveStorage, S3Storage
from meibo.clock import Clock, SystemClock, TimeLeft
from meibo.configuration import Configuration, parse_documents
from meibo.errors import JobsExhaustedError, MeiboError, OutOfTimeError, UnexpectedError
from meibo.exports.plan import Attempt, ExportJob, Plan, PlannedExport, Preparation
from meibo.exports.resolve import resolve, resolve_again
from meibo.exports.workflow import ExecutionStatus, StepFunctionsWorkflow, Workflow
from meibo.observability import logger, safe_description
from meibo.providers import provider
from meibo.providers.base import ProviderContext
from meibo.secrets import read_configuration
from meibo.settings import CreateExportsSettings, ObjectLock

# Maximum number of jobs for one export in one attempt. Jobs rarely end without a file. If three jobs of an export end
# without a file, an operator must find the cause.
MAX_JOBS = 3
# Reserved for writing the list of exports and starting the workflow.
RESERVED_SECONDS = 60.0
# Interval between status checks of an attempt that another invocation is preparing.
POLL_SECONDS = 5.0

_RUNNING: frozenset[ExecutionStatus] = frozenset({"RUNNING", "PENDING_REDRIVE"})


@dataclass(frozen=True, kw_only=True)
class RunCreator:
    """Creates runs and their jobs. Each invocation creates its own instance.

    The invocation that wrote the plan of an attempt prepares the attempt: it creates jobs, writes the list of exports
    and starts the workflow. Other invocations wait until the list exists or ``preparation.until`` has passed. If the
    workflow was not started, they start it without creating jobs. A repair after ``preparation.until`` starts another
    attempt.
    """

    storage: ArchiveStorage
    workflow: Workflow
    bucket: str
    configuration: Callable[[], Configuration]
    context: ProviderContext
    clock: Clock
    invocation: str = field(default_factory=lambda: uuid4().hex)

    def begin(self, scheduled_time: datetime) -> dict[str, Any]:
        """Start the run of a schedule tick, or complete its preparation if an earlier invocation did not.

        If the run has already started, the tick has no effect. The plan is written first. Then jobs are created while
        time remains, and the workflow creates the remaining jobs. ``not_created`` in the response lists exports that
        were refused or whose job could not be created, with the reason. Raises OutOfTimeError if another invocation is
        still preparing the run when this invocation runs out of time.
        """
        run_id = run_id_of(scheduled_time)
        plan = Plan.read(self.storage, plan_key(run_id))
        if plan is None:
            exports = resolve(self.configuration(), self.context)
            plan = self._write_plan(run_id, 1, scheduled_time.isoformat(), exports)
            if self._is_mine(plan):
                return self._prepare(plan, 1, plan.exports)
        if self._status_once_prepared(plan, 1) != "NEVER_STARTED" or self._attempts(run_id, "manifest"):
            logger.info("the run has already started", extra={"run_id": run_id})
            return {"run_id": run_id, "attempt": 1, "status": "already_started"}
        return self._take_over(plan, 1)

    def repair(self, run_id: str) -> dict[str, Any]:
        """Start another attempt of a run, with the exports of its plan that are not archived.

        If an attempt is still running or the run is complete, the repair has no effect. If another invocation is
        preparing an attempt, the repair waits, and starts this attempt if the other invocation does not. If all exports
        are archived but the newest run manifest is missing or incomplete, the new attempt has no exports. Raises
        OutOfTimeError if another invocation is still preparing an attempt when this invocation runs out of time, and
        EventError if the id is invalid or the run has no plan.
        """
        run_moment(run_id)
        attempt, plan, plan_is_newest = self._newest_attempt(run_id)
        prepared = plan_is_newest and self._is_prepared(plan)
        status = self._status_once_prepared(plan, attempt) if prepared else self.workflow.status(run_id, attempt)
        if status in _RUNNING:
            logger.info("an attempt of this run is still running", extra={"run_id": run_id, "attempt": attempt})
            return {"run_id": run_id, "attempt": attempt, "status": "running"}
        if status == "NEVER_STARTED" and prepared:
            return self._take_over(plan, attempt)
        # The attempt has ended or was never started. A new attempt is required, because the list of the ended attempt
        # may contain an outdated domain or secret name, or jobs that no longer exist.
        exports, planned = plan.exports, {export.address for export in plan.exports}
        archived = self._archived(run_id, planned)
        if archived != planned:
            exports = resolve_again(exports, self.configuration(), self.context)
            archived |= self._archived(run_id, {export.address for export in exports} - planned)
        missing = [export for export in exports if export.address not in archived]
        run = None if missing else find_run(self.storage, run_id)
        if run is not None and run.manifest.complete:
            return {"run_id": run_id, "attempt": attempt, "status": "complete", "exports": 0}
        attempt += 1
        plan = self._write_plan(run_id, attempt, plan.scheduled_time, exports)
        if self._is_mine(plan):
            return self._prepare(plan, attempt, missing)
        logger.info("another invocation is repairing this run", extra={"run_id": run_id, "attempt": attempt})
        return self.repair(run_id)

    def create_job(self, export: PlannedExport) -> PlannedExport:
        """Create the next job of an export, and return the export with this job.

        An export that needs no job is returned unchanged. Raises JobsExhaustedError after ``MAX_JOBS`` jobs.
        """
        if not export.has_job:
            return export
        number = export.job.number + 1 if export.job else 1
        if number > MAX_JOBS:
            raise JobsExhaustedError(
                f"{export.export_id}: expected a file from one of {MAX_JOBS} jobs, found none; check the provider's"
                " log, then repair the run"
            )
        job_id = provider(export.provider).create_job(export, self.context)
        logger.info("job created", extra={"export_id": export.export_id, "job_id": job_id, "number": number})
        return export.with_job(ExportJob(id=job_id, created_at=self._now(), number=number))

    def _prepare(self, plan: Plan, attempt: int, exports: Iterable[PlannedExport]) -> dict[str, Any]:
        with_jobs: list[PlannedExport] = []
        failures: list[dict[str, str]] = []
        for export in exports:
            created = export
            if export.has_job and not export.refused and self.context.time_left() >= RESERVED_SECONDS:
                try:
                    created = self.create_job(export)
                except Exception as error:  # noqa: BLE001  # a failed export must not stop the others; the workflow retries it
                    failures.append(_failure(export, error))
            with_jobs.append(created)
        return self._start(plan.run_id, attempt, with_jobs, failures)

    def _take_over(self, plan: Plan, attempt: int) -> dict[str, Any]:
        """Start an attempt whose preparation is incomplete. The workflow creates the missing jobs."""
        archived = self._archived(plan.run_id, (export.address for export in plan.exports))
        missing = [export for export in plan.exports if export.address not in archived]
        return self._start(plan.run_id, attempt, missing, [])

    def _start(
        self, run_id: str, attempt: int, exports: list[PlannedExport], failures: list[dict[str, str]]
    ) -> dict[str, Any]:
        key = attempt_key(run_id, attempt)
        if not self.storage.put_json(key, Attempt(exports=tuple(exports)).to_json()):
            # The workflow reads the existing list, which may already contain jobs.
            exports = list(Attempt.from_json(self.storage.read_json(key)).exports)
        self.workflow.start(run_id, attempt, bucket=self.bucket, items_key=key)
        jobs = sum(export.job is not None for export in exports)
        refusals = [
            {"export_id": export.export_id, "error": export.refused.error, "reason": export.refused.message}
            for export in exports
            if export.refused
        ]
        not_created = refusals + failures
        for failure in not_created:
            logger.warning("export refused or job not created", extra={"run_id": run_id, **failure})
        counts = {"exports": len(exports), "jobs": jobs}
        logger.info(
            "run started",
            extra={"run_id": run_id, "attempt": attempt, **counts, "not_created": len(not_created)},
        )
        return {"run_id": run_id, "attempt": attempt, "status": "started", **counts, "not_created": not_created}

    def _write_plan(self, run_id: str, attempt: int, scheduled_time: str, exports: Iterable[PlannedExport]) -> Plan:
        """Write the plan of an attempt, and return the stored plan, which another invocation may have written."""
        plan = Plan(
            run_id=run_id,
            scheduled_time=scheduled_time,
            meibo_version=meibo.__version__,
            exports=tuple(exports),
            preparation=Preparation(
                invocation=self.invocation, until=self._now() + timedelta(seconds=self.context.time_left())
            ),
        )
        return plan.write(self.storage, plan_key(run_id, attempt))

    def _is_mine(self, plan: Plan) -> bool:
        return plan.preparation is not None and plan.preparation.invocation == self.invocation

    def _is_prepared(self, plan: Plan) -> bool:
        return plan.preparation is not None and self._now() < plan.preparation.until

    def _status_once_prepared(self, plan: Plan, attempt: int) -> ExecutionStatus:
        """Wait while another invocation prepares the attempt, and return the status of the attempt's execution.

        Raises OutOfTimeError if the attempt is still being prepared when this invocation runs out of time.
        """
        while True:
            status = self.workflow.status(plan.run_id, attempt)
            if (
                status != "NEVER_STARTED"
                or not self._is_prepared(plan)
                or self.storage.exists(attempt_key(plan.run_id, attempt))
            ):
                return status
            if self.context.time_left() < RESERVED_SECONDS:
                raise OutOfTimeError(
                    f"another invocation is still creating the jobs of run {plan.run_id}, attempt {attempt}; if the run"
                    " has not started in 15 minutes, invoke the function again"
                )
            self.clock.sleep(POLL_SECONDS)

    def _newest_attempt(self, run_id: str) -> tuple[int, Plan, bool]:
        """Return the number of the newest attempt, the newest plan, and whether the plan belongs to that attempt.

        The bucket and Step Functions are both read, because an execution can exist without a list of exports, and Step
        Functions deletes executions after 90 days.
        """
        attempt = max(self._attempts(run_id, "plan", "attempt", "manifest"), default=0)
        planned, plan = Plan.newest(self.storage, run_id, attempt)
        while self.workflow.status(run_id, attempt + 1) != "NEVER_STARTED":
            attempt += 1
        return attempt, plan, attempt == planned

    def _attempts(self, run_id: str, *kinds: RunDocument) -> set[int]:
        return {attempt_of(key) or 0 for kind in kinds for key in self.storage.keys(run_documents(run_id, kind))}

    def _archived(self, run_id: str, addresses: Iterable[ExportAddress]) -> set[ExportAddress]:
        return {address for address in addresses if self.storage.exists(address.manifest_key(run_id))}

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)


def _failure(export: PlannedExport, error: Exception) -> dict[str, str]:
    error = aws.busy_error(error) or error
    if isinstance(error, MeiboError):
        return {"export_id": export.export_id, "error": type(error).__name__, "reason": str(error)}
    # The message of any other error may contain sensitive data, so only its type is reported.
    reason = (
        f"{safe_description(error)}; the workflow tries to create the job again and, if this fails, records the"
        " error in the run manifest"
    )
    return {"export_id": export.export_id, "error": UnexpectedError.__name__, "reason": reason}


def run_creator(settings: CreateExportsSettings, object_lock: ObjectLock, time_left: TimeLeft) -> RunCreator:
    """Return a RunCreator for the archive bucket and the workflow in the settings."""
    return RunCreator(
        storage=S3Storage(aws.s3(), settings.bucket, object_lock=object_lock),
        workflow=StepFunctionsWorkflow(
            aws.step_functions(), settings.state_machine_arn, max_parallel_exports=settings.max_parallel_exports
        ),
        bucket=settings.bucket,
        configuration=lambda: parse_documents(read_configuration(settings.configuration_parameter)),
        context=ProviderContext(time_left),
        clock=SystemClock(),
    )
