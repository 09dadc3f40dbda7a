"""Map API calls to IAM actions, and find the statements that grant them."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Operations whose actions have other names:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
_ACTIONS = {
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "stepfunctions:StartExecution": "states:StartExecution",
    "stepfunctions:DescribeExecution": "states:DescribeExecution",
    "lambda:Invoke": "lambda:InvokeFunction",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
}
# Actions that a workflow needs for its logs: https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html
LOG_DELIVERY = frozenset(
    {
        "logs:CreateLogDelivery",
        "logs:GetLogDelivery",
        "logs:UpdateLogDelivery",
        "logs:DeleteLogDelivery",
        "logs:ListLogDeliveries",
        "logs:PutResourcePolicy",
        "logs:DescribeResourcePolicies",
        "logs:DescribeLogGroups",
    }
)


@dataclass(frozen=True)
class Need:
    """An action that a function needs on a resource, with the prefix if it lists objects."""

    function: str
    action: str
    resource: str
    prefix: str | None = None


def action_of(call: str) -> str:
    """Return the action of a call, given as ``service:Operation`` with the names of boto3."""
    return _ACTIONS.get(call, call)


def grants(statements: Iterable[Mapping[str, Any]], need: Need) -> tuple[str, str] | None:
    """Return the granted action and resource that match the need, or None."""
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
    assert (operator, key) == ("StringLikeIfExists", "s3:prefix"), f"unsupported condition: {tests}"
    if need.prefix is None:
        return True
    return any(fnmatch.fnmatchcase(need.prefix, pattern) for pattern in _list(patterns))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
