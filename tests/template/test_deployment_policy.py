"""The policy of the person who deploys, compared with the permissions that CloudFormation needs for the resources.

The schema of each resource type lists the permissions of its handlers; cfn-lint contains these schemas:
https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import cfnlint
import pytest

from meibo_local.template import ROOT
from tests.support.template import Template

POLICY: dict[str, Any] = json.loads((ROOT / "docs/deployment-policy.json").read_text(encoding="utf-8"))
SCHEMAS = Path(cfnlint.__file__).parent / "data/schemas/resources"
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
MAX_POLICY_CHARACTERS = 6144
# Permissions that CloudFormation needs only for properties that the template does not use.
UNUSED = (
    # The handler of buckets lists these for ACLs, replication and emptying; objects are never written or deleted.
    *("s3:PutObjectAcl", "s3:PutObject", "s3:DeleteObject", "s3:REST.PUT.OBJECT", "s3:GetBucketMetadata*"),
    *("s3:CreateBucketMetadata*", "s3:UpdateBucketMetadata*", "s3tables:*"),
    # The functions have no file system, code signing, capacity provider or customer managed key.
    *("elasticfilesystem:*", "s3files:*", "kms:*", "lambda:PassCapacityProvider", "lambda:GetCodeSigningConfig"),
    "lambda:AssociateRuntimeAlias",
    # The roles have no managed policies and no permissions boundary.
    *("iam:AttachRolePolicy", "iam:DetachRolePolicy", "iam:*PermissionsBoundary"),
    # The log groups have no delivery, key or resource policy.
    *("firehose:*", "logs:CreateLogDelivery", "logs:AssociateKmsKey", "logs:DisassociateKmsKey"),
    *("glue:PassConnection", "glue:*Connection"),
)


@pytest.fixture(scope="module")
def everything(translate: Callable[..., Template]) -> Template:
    return translate(
        AlarmEmail="ops@example.com",
        HeartbeatSecret="meibo/heartbeat",
        AccessLogBucket="access-log-bucket",
        ObjectLockMode="GOVERNANCE",
        TransitionDays=30,
        RetentionDays=365,
        NoncurrentDays=30,
        SubnetIds="subnet-0123456789abcdef0",
        SecurityGroupIds="sg-0123456789abcdef0",
    )


def needed(template: Template) -> Iterator[tuple[str, str]]:
    """Yield each resource type with each permission that its handlers need, except the permissions in UNUSED."""
    types = {resource["Type"] for resource in template.resources.values()}
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        if schema.get("typeName") not in types:
            continue
        types.discard(schema["typeName"])
        for operation, handler in schema["handlers"].items():
            # CloudFormation calls the list handlers only for the IaC generator.
            for action in handler["permissions"] if operation != "list" else ():
                if not any(fnmatchcase(action, pattern) for pattern in UNUSED):
                    yield schema["typeName"], action
    assert types <= {"AWS::Lambda::Permission"}, f"no schema of {types}"


def patterns() -> list[str]:
    actions = [statement["Action"] for statement in POLICY["Statement"]]
    return [pattern for entry in actions for pattern in ([entry] if isinstance(entry, str) else entry)]


def test_policy_covers_every_resource_of_the_template(everything: Template) -> None:
    denied = {
        (kind, action)
        for kind, action in needed(everything)
        if not any(fnmatchcase(action, pattern) for pattern in patterns())
    }

    assert denied == set()


def test_policy_contains_no_permission_without_a_use(everything: Template) -> None:
    actions = {action for _, action in needed(everything)}
    # `sam deploy` itself: change sets, and the package bucket.
    used_by_sam = {"cloudformation", "s3"}

    unused = [
        pattern
        for pattern in patterns()
        if pattern.partition(":")[0] not in used_by_sam and not any(fnmatchcase(action, pattern) for action in actions)
    ]

    assert unused == []


def test_policy_fits_into_a_managed_policy() -> None:
    assert len("".join(json.dumps(POLICY).split())) <= MAX_POLICY_CHARACTERS


@pytest.mark.parametrize(
    "action",
    [
        *("s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:PutObjectRetention", "s3:DeleteObject"),
        *("s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:ReplicateObject"),
        "secretsmanager:GetSecretValue",
    ],
)
def test_policy_allows_no_access_to_archived_objects_and_secrets(action: str) -> None:
    allowed = [
        statement["Sid"]
        for statement in POLICY["Statement"]
        if any(fnmatchcase(action, pattern) for pattern in statement["Action"])
    ]

    assert set(allowed) <= {"PackageBucket"}


def test_policy_is_limited_to_the_resources_of_the_stack() -> None:
    (general,) = (statement for statement in POLICY["Statement"] if statement["Resource"] == "*")
    named = [statement for statement in POLICY["Statement"] if statement is not general]

    assert general["Sid"] == "WithoutResources"
    for statement in named:
        resources = [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        names = ("meibo", "aws-sam-cli-managed-default", "Serverless-2016-10-31", ":catalog")
        assert all(any(name in resource for name in names) for resource in resources)


def test_names_of_the_resources_begin_with_the_name_of_the_stack(everything: Template) -> None:
    """The policy's ARNs contain the name of the stack. CloudFormation generates all other names from it."""
    named = (
        "FunctionName",
        "LayerName",
        "LogGroupName",
        "QueueName",
        "TopicName",
        "RoleName",
        "DashboardName",
        "BucketName",
    )
    names = [
        str(properties[name]).removeprefix("/aws/lambda/").removeprefix("/aws/vendedlogs/states/")
        for kind in {resource["Type"] for resource in everything.resources.values()}
        for properties in everything.of_type(kind).values()
        for name in named
        if name in properties and not str(properties[name]).startswith(tuple(everything.resources))
    ]

    assert len(names) > 5
    assert [name for name in names if not name.startswith("meibo-")] == []
