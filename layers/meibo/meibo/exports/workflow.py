"""The export workflow: one execution of a Step Functions state machine for each attempt of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

ExecutionStatus = Literal["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE", "NEVER_STARTED"]


class Workflow(Protocol):
    """Starts executions and returns their status."""

    def status(self, run_id: str, attempt: int) -> ExecutionStatus:
        """Return the status of the attempt's execution, or ``NEVER_STARTED`` if it does not exist.

        Step Functions deletes an execution 90 days after its end, so the status of an older execution is also
        ``NEVER_STARTED``.
        """
        ...

    def start(self, run_id: str, attempt: int, *, bucket: str, items_key: str) -> None:
        """Start the attempt's execution. Has no effect if the execution exists."""
        ...


def execution_name(run_id: str, attempt: int) -> str:
    """Return the name of the attempt's execution."""
    return f"{run_id}-{attempt}"


@dataclass(frozen=True)
class StepFunctionsWorkflow:
    """The state machine of the template."""

    client: SFNClient
    state_machine_arn: str
    max_parallel_exports: int

    def status(self, run_id: str, attempt: int) -> ExecutionStatus:
        arn = f"{self.state_machine_arn.replace(':stateMachine:', ':execution:', 1)}:{execution_name(run_id, attempt)}"
        try:
            return self.client.describe_execution(executionArn=arn)["status"]
        except self.client.exceptions.ExecutionDoesNotExist:
            return "NEVER_STARTED"

    def start(self, run_id: str, attempt: int, *, bucket: str, items_key: str) -> None:
        document = {
            "run_id": run_id,
            "attempt": attempt,
            "items": {"bucket": bucket, "key": items_key},
            "max_parallel_exports": self.max_parallel_exports,
        }
        # While the execution runs, a second request with the same name and input has no effect. After the execution
        # has ended, the request is rejected:
        # https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
        try:
            self.client.start_execution(
                stateMachineArn=self.state_machine_arn, name=execution_name(run_id, attempt), input=json.dumps(document)
            )
        except self.client.exceptions.ExecutionAlreadyExists:
            return
