"""A deployed stack: its resources, its checks and its queues of changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import boto3
import typer
from botocore.exceptions import ClientError

from meibo.changes.messages import Change
from meibo.changes.queue import encode_message
from meibo.configuration import Configuration, parse_documents
from meibo.errors import ConfigurationError, SecretError
from meibo.formatting import format_count
from meibo.providers.checks import Check, CheckResult
from meibo.secrets import read_configuration, read_secret

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

StackOption = Annotated[str, typer.Option("--stack", envvar="MEIBO_STACK", help="Name of the CloudFormation stack.")]
DEFAULT_STACK = "meibo"

# A stack in these states works, but was not updated as intended.
_ROLLED_BACK = frozenset({"UPDATE_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"})
_COMPLETE = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"})


@dataclass(frozen=True)
class Stack:
    """A stack: its parameters, and the names of its resources by their logical ids."""

    name: str
    status: str
    parameters: Mapping[str, str] = field(repr=False)
    resources: Mapping[str, str] = field(repr=False)

    def parameter(self, name: str) -> str:
        """Return the value of a parameter. Raises ConfigurationError if the stack has no parameter with this name."""
        if name not in self.parameters:
            raise ConfigurationError(
                f"--stack: the stack {self.name} has no parameter {name}, so it is not a stack of this version of Meibo"
            )
        return self.parameters[name]

    def resource(self, logical_id: str) -> str:
        """Return the name of a resource. Raises ConfigurationError if the stack does not contain this logical id."""
        if logical_id not in self.resources:
            raise ConfigurationError(f"the stack {self.name} has no resource {logical_id}; deploy it again")
        return self.resources[logical_id]


def find_stack(name: str) -> Stack:
    """Return the stack with a name. Raises ConfigurationError if it does not exist in the region."""
    client: Any = boto3.client("cloudformation")
    try:
        (description,) = client.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise ConfigurationError(
            f"--stack: no stack named {name!r} in the region {client.meta.region_name}; correct the name or the region"
        ) from None
    resources = client.describe_stack_resources(StackName=name)["StackResources"]
    return Stack(
        name=name,
        status=description["StackStatus"],
        parameters={entry["ParameterKey"]: entry["ParameterValue"] for entry in description.get("Parameters", [])},
        # A resource has no name before it is created.
        resources={
            entry["LogicalResourceId"]: entry["PhysicalResourceId"]
            for entry in resources
            if entry.get("PhysicalResourceId")
        },
    )


class StackChecks:
    """The checks of a stack. ``configuration`` is None until its check has succeeded."""

    def __init__(self, stack: Stack) -> None:
        self.configuration: Configuration | None = None
        self._stack = stack
        self._parameter = stack.parameter("ConfigurationParameter")
        self._secret_prefix = stack.parameter("SecretPrefix")

    def checks(self) -> Iterator[Check]:
        """Yield the checks in order."""
        yield Check("status", self._check_status)
        yield Check(f"parameter {self._parameter}", self._check_configuration)
        yield Check("bucket", self._check_bucket)
        yield Check("schedule", self._check_schedule)
        yield Check("alarm target", self._check_alarm_target)

    def read_secret(self, name: str) -> Mapping[str, Any]:
        """Return a secret. Raises SecretError if the functions of the stack are not allowed to read it."""
        if not name.startswith(self._secret_prefix):
            raise SecretError(
                f"the secret {name!r}: expected a name that begins with {self._secret_prefix!r} (parameter"
                " SecretPrefix), because the functions can read no other secret"
            )
        return read_secret(name)

    def _check_status(self) -> CheckResult:
        status = self._stack.status
        if status in _COMPLETE:
            return CheckResult(detail=status)
        if status in _ROLLED_BACK:
            return CheckResult(detail=f"{status}: the last update failed; see the events of the stack", warning=True)
        if status.endswith("_IN_PROGRESS") and not status.startswith("DELETE"):
            return CheckResult(
                detail=f"{status}: the results of other checks may change until the stack is updated", warning=True
            )
        raise ConfigurationError(f"the stack is in the state {status}; see its events, and deploy it again")

    def _check_configuration(self) -> CheckResult:
        self.configuration = parse_documents(read_configuration(self._parameter))
        exports = sum(len(entry) for source in self.configuration.sources for entry in source.exports_by_entry())
        sources = format_count(len(self.configuration.sources), "source")
        return CheckResult(detail=f"{sources} with {format_count(exports, 'export')}")

    def _check_bucket(self) -> CheckResult:
        client: Any = boto3.client("s3")
        bucket = self._stack.resource("ArchiveBucket")
        with _allow("s3:ListBucket", f"the bucket {bucket}"):
            client.head_bucket(Bucket=bucket)
        with _allow("s3:GetBucketVersioning", f"the bucket {bucket}"):
            versioning = client.get_bucket_versioning(Bucket=bucket).get("Status")
        if versioning != "Enabled":
            raise ConfigurationError(
                f"the bucket {bucket}: expected versioning to be Enabled, found {versioning or 'no versioning'}; enable"
                " it, because it protects archived objects"
            )
        return CheckResult(detail=f"{bucket}, with versioning")

    def _check_schedule(self) -> CheckResult:
        client: Any = boto3.client("scheduler")
        with _allow("scheduler:GetSchedule", "the schedule"):
            schedule = client.get_schedule(Name=self._stack.resource("Schedule"))
        state, intended = schedule["State"], self._stack.parameter("ScheduleState")
        if state != intended:
            raise ConfigurationError(
                f"the schedule is {state}, but the parameter ScheduleState is {intended}, so the schedule was changed"
                " outside the stack; set its state in EventBridge Scheduler, or change the parameter and deploy the"
                " stack"
            )
        if state != "ENABLED":
            return CheckResult(
                detail=f"{state}, so no runs are scheduled; set the parameter ScheduleState to ENABLED after a first"
                " manual run is complete",
                warning=True,
            )
        zone = schedule.get("ScheduleExpressionTimezone", "UTC")
        return CheckResult(detail=f"{state}: {schedule['ScheduleExpression']}, {zone}")

    def _check_alarm_target(self) -> CheckResult:
        topic = self._stack.parameter("AlarmTopicArn")
        if self._stack.parameter("AlarmEmail"):
            topic = self._stack.resource("AlarmTopic")
        if not topic:
            return CheckResult(
                detail="alarms send no notifications; set the parameter AlarmEmail or AlarmTopicArn", warning=True
            )
        pages = boto3.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
        with _allow("sns:ListSubscriptionsByTopic", f"the topic {topic}"):
            arns = [subscription["SubscriptionArn"] for page in pages for subscription in page["Subscriptions"]]
        # A subscription without a confirmation has the ARN "PendingConfirmation".
        confirmed = sum(arn.startswith("arn:") for arn in arns)
        if confirmed:
            return CheckResult(detail=format_count(confirmed, "confirmed subscription"))
        if arns:
            raise ConfigurationError(
                "the subscription of the alarm topic is not confirmed; open the link in the e-mail that AWS sent"
            )
        raise ConfigurationError(f"the topic {topic} has no subscription; subscribe an address to it")


@contextmanager
def _allow(action: str, subject: str) -> Iterator[None]:
    """Translate an AWS error into a ConfigurationError that names the required IAM action."""
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        raise ConfigurationError(
            f"{subject} cannot be read: AWS returned {code} for {error.operation_name}; check that it exists, and allow"
            f" {action}"
        ) from None


@dataclass(frozen=True)
class Queues:
    """The queue of changes and the DLQ of a stack. ``changes`` and ``dead_letters`` are their URLs."""

    client: SQSClient
    changes: str
    dead_letters: str

    def count_dead_letters(self) -> int:
        """Return the approximate number of DLQ messages, including hidden messages."""
        attributes = self.client.get_queue_attributes(QueueUrl=self.dead_letters, AttributeNames=["All"])["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"]) + int(attributes["ApproximateNumberOfMessagesNotVisible"])

    def send(self, change: Change, *, deduplication_id: str) -> str:
        """Send a change and return the message id. SQS drops a message if its deduplication id was used before."""
        return self.client.send_message(
            QueueUrl=self.changes,
            MessageBody=encode_message(change),
            MessageGroupId=change.organization_id,
            MessageDeduplicationId=deduplication_id,
        )["MessageId"]


def queues_of(stack: str) -> Queues:
    """Return the queues of a stack. Raises ClientError if they do not exist."""
    client = boto3.client("sqs")
    return Queues(
        client,
        client.get_queue_url(QueueName=f"{stack}-changes.fifo")["QueueUrl"],
        client.get_queue_url(QueueName=f"{stack}-changes-dead-letters.fifo")["QueueUrl"],
    )
