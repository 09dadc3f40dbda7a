"""Begin a run, repair one, or create the job of one export: the work of ``create_exports``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import meibo
from meibo import aws
from meibo.archive.keys import attempt_key, attempt_of, plan_key, run_folder, run_id_of, run_manifest_key, run_moment
from meibo.archive.storage import ArchiveStore, S3ArchiveStore
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

# Jobs that are created for one export in one attempt. Auth0 loses a job rarely; a third loss has a cause to look into.
MAX_JOBS = 3
# Reserved for writing the attempt's list and starting the workflow.
RESERVED_SECONDS = 60.0
# Between two looks at an attempt that another invocation prepares.
POLL_SECONDS = 5.0

_RUNNING: frozenset[ExecutionStatus] = frozenset({"RUNNING", "PENDING_REDRIVE"})


@dataclass(frozen=True, kw_only=True)
class RunCreator:
    """Creates runs and their jobs. One object serves one invocation.

    ``configuration`` reads the configuration, which only the resolution of exports needs. ``context.time_left`` returns
    the seconds that the invocation has left.

    An attempt is prepared by the invocation that wrote its plan: it alone creates jobs, writes the attempt's list of
    exports and starts the workflow. Every other invocation waits for it, and takes over without creating jobs once
    that invocation's time is over.
    """

    store: ArchiveStore
    workflow: Workflow
    bucket: str
    configuration: Callable[[], Configuration]
    context: ProviderContext
    clock: Clock
    invocation: str = field(default_factory=lambda: uuid4().hex)

    def begin(self, scheduled_time: datetime) -> dict[str, Any]:
        """Begin the run of a schedule tick; delivered again, the tick changes nothing.

        Writes the plan before anything is fetched, creates as many jobs as the time allows and leaves the rest to
        the workflow. The answer lists in ``not_created`` which exports could not be created, and why. Raises
        OutOfTimeError if another invocation still prepares the run when this one ends.
        """
        run_id = run_id_of(scheduled_time)
        plan = self._plan(run_id, 1)
        if plan is None:
            exports = resolve(self.configuration(), self.context)
            plan = self._new_plan(run_id, scheduled_time.isoformat(), exports)
            plan = self._write_plan(plan, 1)
            if self._is_mine(plan):
                return self._prepare(plan, 1, plan.exports)
        if self._status_once_prepared(plan, 1) != "NEVER_STARTED" or self._has_ended(run_id):
            logger.info("this run was begun already", extra={"run_id": run_id})
            return {"run_id": run_id, "attempt": 1, "status": "already_started"}
        return self._take_over(plan, 1)

    def repair(self, run_id: str) -> dict[str, Any]:
        """Start another attempt of a run that fetches only what the plan lacks.

        A run whose exports are all archived gets an attempt without exports if it lacks the run manifest that says
        so. Raises OutOfTimeError if another invocation still prepares an attempt when this one ends.
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
        # Either the attempt ended, also if Step Functions has forgotten it after 90 days, or it was never started. A
        # new attempt is right for both; the old list may name another domain or secret, and jobs that are gone.
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
        logger.info("another invocation repairs this run", extra={"run_id": run_id, "attempt": attempt})
        return self.repair(run_id)

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
        return export.with_job(ExportJob(id=job_id, created_at=self._now().isoformat(), number=number)).to_json()

    # -- preparing an attempt

    def _prepare(self, plan: Plan, attempt: int, exports: Iterable[PlannedExport]) -> dict[str, Any]:
        """Create the jobs of the exports, write the attempt's list and start its workflow."""
        with_jobs: list[PlannedExport] = []
        failures: list[dict[str, str]] = []
        for export in exports:
            created = export
            if export.has_job and not export.refused and self.context.time_left() >= RESERVED_SECONDS:
                try:
                    created = PlannedExport.from_json(self.create(export))
                except Exception as error:  # noqa: BLE001  # one export never stops the others; the workflow tries again
                    failures.append(_failure(export, error))
            with_jobs.append(created)
        return self._start(plan.run_id, attempt, with_jobs, failures)

    def _take_over(self, plan: Plan, attempt: int) -> dict[str, Any]:
        """Start an attempt that was left prepared in part; the workflow creates the jobs that its list lacks."""
        return self._start(plan.run_id, attempt, self._missing(plan.run_id, plan.exports), [])

    def _start(
        self, run_id: str, attempt: int, exports: list[PlannedExport], failures: list[dict[str, str]]
    ) -> dict[str, Any]:
        key = attempt_key(run_id, attempt)
        if not self.store.put_json(key, Attempt(exports=tuple(exports)).to_json()):
            # The list that is there counts: it may have jobs, and the workflow reads it.
            exports = list(Attempt.from_json(self.store.get_json(key) or []).exports)
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

    # -- what is there already

    def _plan(self, run_id: str, attempt: int) -> Plan | None:
        document = self.store.get_json(plan_key(run_id, attempt))
        return None if document is None else Plan.from_json(document)

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
        """Write the plan unless there is one, and return the one that is there."""
        if self.store.put_json(plan_key(plan.run_id, attempt), plan.to_json()):
            return plan
        # It may be this invocation's own, if the answer to the request that wrote it was lost.
        written = self._plan(plan.run_id, attempt)
        if written is None:
            raise UnexpectedError(f"S3 refused the plan of run {plan.run_id}, attempt {attempt}, but there is none")
        return written

    def _is_mine(self, plan: Plan) -> bool:
        return plan.preparation is not None and plan.preparation.invocation == self.invocation

    def _is_prepared(self, plan: Plan) -> bool:
        return plan.preparation is not None and self._now() < plan.preparation.until

    def _status_once_prepared(self, plan: Plan, attempt: int) -> ExecutionStatus:
        """Return the status of the attempt's execution, waiting while the plan's writer still prepares it."""
        while True:
            status = self.workflow.status(plan.run_id, attempt)
            if (
                status != "NEVER_STARTED"
                or not self._is_prepared(plan)
                or self.store.exists(attempt_key(plan.run_id, attempt))
            ):
                return status
            if self.context.time_left() < RESERVED_SECONDS:
                raise OutOfTimeError(
                    f"another invocation still creates the jobs of run {plan.run_id}, attempt {attempt}; if the run"
                    " has not started in 15 minutes, invoke again"
                )
            self.clock.sleep(POLL_SECONDS)

    def _newest_attempt(self, run_id: str) -> tuple[int, Plan, bool]:
        """Return the run's highest attempt, the newest plan, and whether that plan is the attempt's own.

        What is in the bucket and what Step Functions remembers are both looked at: a list may be missing though its
        execution's name is taken, and executions are forgotten after 90 days.
        """
        plans, others = (
            {attempt_of(key) or 0 for prefix in prefixes for key in self.store.keys(run_folder(run_id) + prefix)}
            for prefixes in (("_plan",), ("_attempt-", "_manifest"))
        )
        planned = max(plans, default=0)
        plan = self._plan(run_id, planned) if planned else None
        if plan is None:
            raise EventError(f"there is no plan of a run {run_id}; repair a run that a schedule tick began")
        attempt = max(plans | others)
        while self.workflow.status(run_id, attempt + 1) != "NEVER_STARTED":
            attempt += 1
        return attempt, plan, attempt == planned

    def _has_ended(self, run_id: str) -> bool:
        """Tell whether an attempt wrote its run manifest, also if Step Functions has forgotten it."""
        return next(self.store.keys(f"{run_folder(run_id)}_manifest"), None) is not None

    def _is_complete(self, run_id: str, newest_attempt: int) -> bool:
        """Tell whether the newest run manifest says that nothing is missing."""
        for attempt in range(newest_attempt, 0, -1):
            document = self.store.get_json(run_manifest_key(run_id, attempt))
            if document is not None:
                return document["complete"] is True
        return False

    def _missing(self, run_id: str, exports: Iterable[PlannedExport]) -> list[PlannedExport]:
        return [export for export in exports if not self.store.exists(export.address.manifest_key(run_id))]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)


def _failure(export: PlannedExport, error: Exception) -> dict[str, str]:
    error = aws.busy_error(error) or error
    if isinstance(error, MeiboError):
        return {"export_id": export.export_id, "error": type(error).__name__, "reason": str(error)}
    # Not a Meibo error: its message may contain sensitive data, so only its kind is reported.
    reason = f"{safe_description(error)}; the workflow tries again and records the failure"
    return {"export_id": export.export_id, "error": UnexpectedError.__name__, "reason": reason}


def run_creator(settings: CreateExportsSettings, retention: Retention | None, time_left: TimeLeft) -> RunCreator:
    """Return the creator that the settings describe, on the real bucket, workflow and providers."""
    return RunCreator(
        store=S3ArchiveStore(aws.s3(), settings.bucket, retention=retention),
        workflow=StepFunctionsWorkflow(
            aws.step_functions(), settings.state_machine_arn, max_parallel_exports=settings.max_parallel_exports
        ),
        bucket=settings.bucket,
        configuration=lambda: parse_documents(read_configuration(settings.configuration_parameter)),
        context=ProviderContext(time_left),
        clock=SystemClock(),
    )
