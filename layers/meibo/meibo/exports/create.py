"""Start a run, repair a run, or create the job of one export (function ``create_exports``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

import meibo
from meibo import aws
from meibo.archive.keys import attempt_key, attempt_of, plan_key, run_documents, run_id_of, run_manifest_key, run_moment
from meibo.archive.manifest import RunManifest
from meibo.archive.storage import ArchiveStorage, S3Storage
from meibo.configuration import Configuration, parse_documents
from meibo.errors import EventError, JobsExhaustedError, MeiboError, OutOfTimeError, UnexpectedError
from meibo.exports.plan import Attempt, ExportJob, Plan, PlannedExport, Preparation
from meibo.exports.resolve import resolve, resolve_again
from meibo.exports.workflow import ExecutionStatus, StepFunctionsWorkflow, Workflow
from meibo.http.ratelimit import Clock, SystemClock, TimeLeft
from meibo.observability import logger, safe_description
from meibo.providers import provider
from meibo.providers.base import ProviderContext
from meibo.secrets import read_configuration
from meibo.settings import CreateExportsSettings, Retention

# Maximum number of jobs for one export in one attempt. Auth0 jobs rarely end without a file. If three jobs of an
# export do, an operator must find the cause.
MAX_JOBS = 3
# Reserved for writing the attempt's list of exports and starting the workflow.
RESERVED_SECONDS = 60.0
# Interval between status checks of an attempt that another invocation is preparing.
POLL_SECONDS = 5.0

_RUNNING: frozenset[ExecutionStatus] = frozenset({"RUNNING", "PENDING_REDRIVE"})


@dataclass(frozen=True, kw_only=True)
class RunCreator:
    """Creates runs and their jobs. Each invocation creates its own instance.

    ``configuration`` returns the configuration. It is called only to resolve exports. ``context.time_left`` returns the
    remaining seconds of the invocation.

    An attempt is prepared by the invocation that wrote its plan: only this invocation creates jobs, writes the list
    of exports and starts the workflow. Other invocations wait for it. After ``preparation.until`` they start the
    workflow without creating jobs.
    """

    storage: ArchiveStorage
    workflow: Workflow
    bucket: str
    configuration: Callable[[], Configuration]
    context: ProviderContext
    clock: Clock
    invocation: str = field(default_factory=lambda: uuid4().hex)

    def begin(self, scheduled_time: datetime) -> dict[str, Any]:
        """Start the run of a schedule tick, or an attempt that was prepared only in part.

        If the run has already started, the tick has no effect. Writes the plan first, then creates as many jobs as the
        time allows; the workflow creates the others. The response lists in ``not_created`` the exports whose job could
        not be created, with the reason. Raises OutOfTimeError if another invocation is still preparing the run when
        this invocation runs out of time.
        """
        run_id = run_id_of(scheduled_time)
        plan = Plan.read(self.storage, run_id, 1)
        if plan is None:
            exports = resolve(self.configuration(), self.context)
            plan = self._new_plan(run_id, scheduled_time.isoformat(), exports)
            plan = self._write_plan(plan, 1)
            if self._is_mine(plan):
                return self._prepare(plan, 1, plan.exports)
        if self._status_once_prepared(plan, 1) != "NEVER_STARTED" or self._has_ended(run_id):
            logger.info("the run has already started", extra={"run_id": run_id})
            return {"run_id": run_id, "attempt": 1, "status": "already_started"}
        return self._take_over(plan, 1)

    def repair(self, run_id: str) -> dict[str, Any]:
        """Start another attempt of a run, with the exports of its plan that are not archived.

        If all exports are archived but the newest run manifest is missing or incomplete, the new attempt has no
        exports. Raises OutOfTimeError if another invocation is still preparing an attempt when this invocation runs out
        of time.
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
        # The attempt has ended (Step Functions deletes its history after 90 days) or was never started. In both cases a
        # new attempt is required: the old list may contain an outdated domain or secret, and jobs that no longer exist.
        exports = plan.exports
        missing = self._missing(run_id, exports)
        if missing:
            exports = resolve_again(exports, self.configuration(), self.context)
            missing = self._missing(run_id, exports)
        if not missing and self._is_complete(run_id, attempt):
            return {"run_id": run_id, "attempt": attempt, "status": "complete", "exports": 0}
        attempt += 1
        plan = self._write_plan(self._new_plan(run_id, plan.scheduled_time, exports), attempt)
        if self._is_mine(plan):
            return self._prepare(plan, attempt, missing)
        logger.info("another invocation is repairing this run", extra={"run_id": run_id, "attempt": attempt})
        return self.repair(run_id)

    def create_job(self, export: PlannedExport) -> PlannedExport:
        """Create the next job of one export and return the export with this job.

        An export that does not require a job is returned unchanged. Raises JobsExhaustedError after ``MAX_JOBS`` jobs.
        """
        if not export.has_job:
            return export
        number = export.job.number + 1 if export.job else 1
        if number > MAX_JOBS:
            raise JobsExhaustedError(
                f"{export.export_id}: expected a file from one of {MAX_JOBS} jobs, got none; check the provider's log,"
                " then repair the run"
            )
        job_id = provider(export.provider).create_job(export, self.context)
        logger.info("job created", extra={"export_id": export.export_id, "job_id": job_id, "number": number})
        return export.with_job(ExportJob(id=job_id, created_at=self._now(), number=number))

    # -- Preparation of an attempt

    def _prepare(self, plan: Plan, attempt: int, exports: Iterable[PlannedExport]) -> dict[str, Any]:
        """Create the jobs of the exports, write the attempt's list of exports, and start the workflow."""
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
        """Start a partially prepared attempt; the workflow creates the jobs that are missing from its list."""
        return self._start(plan.run_id, attempt, self._missing(plan.run_id, plan.exports), [])

    def _start(
        self, run_id: str, attempt: int, exports: list[PlannedExport], failures: list[dict[str, str]]
    ) -> dict[str, Any]:
        key = attempt_key(run_id, attempt)
        if not self.storage.put_json(key, Attempt(exports=tuple(exports)).to_json()):
            # Use the existing list: the workflow reads it, and it may already contain jobs.
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
            logger.warning("export not created", extra={"run_id": run_id, **failure})
        counts = {"exports": len(exports), "jobs": jobs}
        logger.info(
            "run started",
            extra={"run_id": run_id, "attempt": attempt, **counts, "not_created": len(not_created)},
        )
        return {"run_id": run_id, "attempt": attempt, "status": "started", **counts, "not_created": not_created}

    # -- Existing plans and attempts

    def _new_plan(self, run_id: str, scheduled_time: str, exports: Iterable[PlannedExport]) -> Plan:
        return Plan(
            run_id=run_id,
            scheduled_time=scheduled_time,
            meibo_version=meibo.__version__,
            exports=tuple(exports),
            preparation=Preparation(
                invocation=self.invocation, until=self._now() + timedelta(seconds=self.context.time_left())
            ),
        )

    def _write_plan(self, plan: Plan, attempt: int) -> Plan:
        """Write the plan unless it exists, and return the plan in the bucket."""
        if self.storage.put_json(plan_key(plan.run_id, attempt), plan.to_json()):
            return plan
        # This invocation may have written the existing plan, if the response to its write request was lost.
        written = Plan.read(self.storage, plan.run_id, attempt)
        if written is None:
            raise UnexpectedError(
                f"expected to read the existing plan of run {plan.run_id}, attempt {attempt}, found none; invoke again"
            )
        return written

    def _is_mine(self, plan: Plan) -> bool:
        return plan.preparation is not None and plan.preparation.invocation == self.invocation

    def _is_prepared(self, plan: Plan) -> bool:
        return plan.preparation is not None and self._now() < plan.preparation.until

    def _status_once_prepared(self, plan: Plan, attempt: int) -> ExecutionStatus:
        """Wait while another invocation prepares the attempt, then return the status of the attempt's execution."""
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
                    " has not started in 15 minutes, invoke again"
                )
            self.clock.sleep(POLL_SECONDS)

    def _newest_attempt(self, run_id: str) -> tuple[int, Plan, bool]:
        """Return the run's highest attempt number, the newest plan, and whether the plan belongs to that attempt.

        Both the bucket and Step Functions are read: an execution may exist without a list, and Step Functions deletes
        executions after 90 days.
        """
        plans = self._attempts(run_id, "plan")
        others = self._attempts(run_id, "attempt") | self._attempts(run_id, "manifest")
        planned = max(plans, default=0)
        plan = Plan.read(self.storage, run_id, planned) if planned else None
        if plan is None:
            raise EventError(
                f"run {run_id}: expected a run with a plan, found none; check the id (`meibo ls` lists finished runs)"
            )
        attempt = max(plans | others)
        while self.workflow.status(run_id, attempt + 1) != "NEVER_STARTED":
            attempt += 1
        return attempt, plan, attempt == planned

    def _attempts(self, run_id: str, kind: Literal["plan", "attempt", "manifest"]) -> set[int]:
        return {attempt_of(key) or 0 for key in self.storage.keys(run_documents(run_id, kind))}

    def _has_ended(self, run_id: str) -> bool:
        """Return whether an attempt of the run wrote a run manifest.

        The result does not depend on Step Functions, which deletes the history of an execution after 90 days.
        """
        return bool(self._attempts(run_id, "manifest"))

    def _is_complete(self, run_id: str, newest_attempt: int) -> bool:
        """Return whether the newest run manifest is complete."""
        for attempt in range(newest_attempt, 0, -1):
            manifest = RunManifest.read(self.storage, run_manifest_key(run_id, attempt))
            if manifest is not None:
                return manifest.complete
        return False

    def _missing(self, run_id: str, exports: Iterable[PlannedExport]) -> list[PlannedExport]:
        return [export for export in exports if not self.storage.exists(export.address.manifest_key(run_id))]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)


def _failure(export: PlannedExport, error: Exception) -> dict[str, str]:
    error = aws.busy_error(error) or error
    if isinstance(error, MeiboError):
        return {"export_id": export.export_id, "error": type(error).__name__, "reason": str(error)}
    # Not a Meibo error: its message may contain sensitive data, so only its type is reported.
    reason = (
        f"{safe_description(error)}; the workflow retries the job and, if it fails again, records the error in the run"
        " manifest"
    )
    return {"export_id": export.export_id, "error": UnexpectedError.__name__, "reason": reason}


def run_creator(settings: CreateExportsSettings, retention: Retention | None, time_left: TimeLeft) -> RunCreator:
    """Return a RunCreator for the archive bucket and the workflow in the settings."""
    return RunCreator(
        storage=S3Storage(aws.s3(), settings.bucket, retention=retention),
        workflow=StepFunctionsWorkflow(
            aws.step_functions(), settings.state_machine_arn, max_parallel_exports=settings.max_parallel_exports
        ),
        bucket=settings.bucket,
        configuration=lambda: parse_documents(read_configuration(settings.configuration_parameter)),
        context=ProviderContext(time_left),
        clock=SystemClock(),
    )
