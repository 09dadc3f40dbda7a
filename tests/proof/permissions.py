"""Which permission each call of a function needs, and whether a policy of the template grants it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .outside import Call, Invocation

# The action is not always named after the operation:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
_ACTIONS: dict[str, tuple[str, ...]] = {
    "s3:HeadObject": ("s3:GetObject",),
    "s3:ListObjectsV2": ("s3:ListBucket",),
    "s3:CreateMultipartUpload": ("s3:PutObject",),
    "s3:UploadPart": ("s3:PutObject",),
    "s3:CompleteMultipartUpload": ("s3:PutObject",),
    "stepfunctions:StartExecution": ("states:StartExecution",),
    "stepfunctions:DescribeExecution": ("states:DescribeExecution",),
    "lambda:Invoke": ("lambda:InvokeFunction",),
    "sqs:ChangeMessageVisibilityBatch": ("sqs:ChangeMessageVisibility",),
}
_WRITES = {"s3:PutObject", "s3:CreateMultipartUpload"}


@dataclass(frozen=True)
class Need:
    """One action on one resource, and the prefix where a list was asked for."""

    function: str
    action: str
    resource: str
    prefix: str | None = None


class Recorded:
    """Records what the functions' calls need."""

    def __init__(self, prefix_of: Mapping[str, str]) -> None:
        self.needs: set[Need] = set()
        self._prefix_of = prefix_of

    def before(self, invocation: Invocation, call: Call) -> None:
        """Note what a call of AWS needs; the providers' are not for IAM."""
        if "host" in call.details:
            return
        actions = _ACTIONS.get(call.name, (call.name,))
        if actions == ("s3:GetObject",) and "VersionId" in call.details:
            actions = ("s3:GetObjectVersion",)
        if call.name in _WRITES and "ObjectLockMode" in call.details:
            actions = (*actions, "s3:PutObjectRetention")
        for action in actions:
            prefix = call.details.get("Prefix") if action == "s3:ListBucket" else None
            self.needs.add(Need(call.function, action, self._resource(call), prefix))

    def seen_of_the_workflow(self, call: Call) -> None:
        """Note what a call needs that the workflow makes itself."""
        self.before(Invocation(call.function), call)

    def after(self, invocation: Invocation, call: Call) -> None:
        """An answer needs nothing."""

    def _resource(self, call: Call) -> str:
        service, _, operation = call.name.partition(":")
        details = call.details
        arn = "arn:aws:{}:eu-central-1:123456789012:{}"
        if service == "s3":
            assert details["Bucket"] == self._prefix_of["bucket"], "another bucket than the archive's"
            return "ArchiveBucket.Arn" + ("" if operation == "ListObjectsV2" else f"/{details['Key']}")
        if service == "lambda":
            return f"{self._prefix_of[details['FunctionName']]}.Arn"
        if service == "ssm":
            return arn.format("ssm", f"parameter{details['Name']}")
        if service == "secretsmanager":
            return arn.format("secretsmanager", f"secret:{details['SecretId']}-AbCdEf")
        if service == "events":
            (entry,) = details["Entries"]
            return arn.format("events", f"event-bus/{entry['EventBusName']}")
        if service == "stepfunctions":
            named = str(details.get("stateMachineArn") or details["executionArn"])
            return arn.format("states", named.split(":", 5)[5])
        if service == "sqs":
            return {self._prefix_of["queue"]: "ChangesQueue.Arn", self._prefix_of["dead"]: "ChangesDeadLetters.Arn"}[
                details["QueueUrl"]
            ]
        raise AssertionError(f"{call.function} calls {call.name}, of which nothing is known here")


def grants(statements: Iterable[Mapping[str, Any]], need: Need) -> tuple[str, str] | None:
    """Return the grant (action, resource) that allows what is needed, or None."""
    for statement in statements:
        if need.action not in statement["Action"] or not _condition(statement.get("Condition"), need):
            continue
        for resource in statement["Resource"]:
            if fnmatch.fnmatchcase(need.resource, resource):
                return need.action, resource
    return None


def _condition(condition: Mapping[str, Any] | None, need: Need) -> bool:
    if condition is None:
        return True
    ((operator, tests),) = condition.items()
    ((key, patterns),) = tests.items()
    assert (operator, key) == ("StringLikeIfExists", "s3:prefix"), f"a condition that nothing here can judge: {tests}"
    if need.prefix is None:
        return True
    return any(fnmatch.fnmatchcase(need.prefix, pattern) for pattern in _list(patterns))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
