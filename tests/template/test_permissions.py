"""Least privilege, function by function, on the translated template."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.iam import LOG_DELIVERY
from tests.template.conftest import Template

KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
OLD_KEY = "arn:aws:kms:eu-central-1:123456789012:key/00000000-2222-3333-4444-555555555555"
OTHER_KEY = "arn:aws:kms:eu-central-1:210987654321:key/99999999-2222-3333-4444-555555555555"
ROLES = (
    "CreateExportsRole",
    "CheckExportRole",
    "ArchiveExportRole",
    "FinishRunRole",
    "ChangeMembersRole",
    "ExportWorkflowRole",
    "ScheduleRole",
    "VerifyArchiveRole",
)
# Actions that know no resources: https://docs.aws.amazon.com/service-authorization/latest/reference/
WITHOUT_RESOURCES = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    *LOG_DELIVERY,
}
# What each role may do beside writing its logs and traces, without a customer's key and without Object Lock.
GRANTED = {
    "CreateExportsRole": {
        "ssm:GetParameter": ["arn:aws:ssm:eu-central-1:123456789012:parameter/meibo/sources"],
        "ssm:GetParametersByPath": ["arn:aws:ssm:eu-central-1:123456789012:parameter/meibo/sources"],
        "secretsmanager:GetSecretValue": ["arn:aws:secretsmanager:eu-central-1:123456789012:secret:meibo/*"],
        "s3:PutObject": ["ArchiveBucket.Arn/runs/*"],
        "s3:GetObject": ["ArchiveBucket.Arn/runs/*", "ArchiveBucket.Arn/archive/*/_manifest.json"],
        "s3:ListBucket": ["ArchiveBucket.Arn"],
        "states:StartExecution": ["arn:aws:states:eu-central-1:123456789012:stateMachine:meibo-export"],
        "states:DescribeExecution": ["arn:aws:states:eu-central-1:123456789012:execution:meibo-export:*"],
        "sqs:SendMessage": ["ScheduleDeadLetters.Arn"],
    },
    "CheckExportRole": {
        "secretsmanager:GetSecretValue": ["arn:aws:secretsmanager:eu-central-1:123456789012:secret:meibo/*"],
    },
    "ArchiveExportRole": {
        "secretsmanager:GetSecretValue": ["arn:aws:secretsmanager:eu-central-1:123456789012:secret:meibo/*"],
        "s3:PutObject": ["ArchiveBucket.Arn/archive/*", "ArchiveBucket.Arn/parts/*"],
        "s3:AbortMultipartUpload": ["ArchiveBucket.Arn/archive/*"],
        "s3:GetObject": ["ArchiveBucket.Arn/archive/*", "ArchiveBucket.Arn/parts/*"],
        "s3:ListBucket": ["ArchiveBucket.Arn"],
    },
    "FinishRunRole": {
        "s3:PutObject": ["ArchiveBucket.Arn/runs/*", "ArchiveBucket.Arn/reports/*"],
        "s3:GetObject": [
            "ArchiveBucket.Arn/runs/*",
            "ArchiveBucket.Arn/archive/*/_manifest.json",
            "ArchiveBucket.Arn/changes/*",
            "ArchiveBucket.Arn/verifications/*",
        ],
        "s3:ListBucket": ["ArchiveBucket.Arn"],
        "events:PutEvents": ["arn:aws:events:eu-central-1:123456789012:event-bus/default"],
    },
    "ExportWorkflowRole": {
        "lambda:InvokeFunction": ["CreateExports.Arn", "CheckExport.Arn", "ArchiveExport.Arn", "FinishRun.Arn"],
        "s3:GetObject": ["ArchiveBucket.Arn/runs/*"],
        "states:StartExecution": ["arn:aws:states:eu-central-1:123456789012:stateMachine:meibo-export"],
        "states:DescribeExecution": [
            "arn:aws:states:eu-central-1:123456789012:execution:meibo-export:*",
            "arn:aws:states:eu-central-1:123456789012:execution:meibo-export/*",
        ],
        "states:StopExecution": [
            "arn:aws:states:eu-central-1:123456789012:execution:meibo-export:*",
            "arn:aws:states:eu-central-1:123456789012:execution:meibo-export/*",
        ],
        "states:RedriveExecution": ["arn:aws:states:eu-central-1:123456789012:execution:meibo-export/*"],
    },
    "ChangeMembersRole": {
        "ssm:GetParameter": ["arn:aws:ssm:eu-central-1:123456789012:parameter/meibo/sources"],
        "ssm:GetParametersByPath": ["arn:aws:ssm:eu-central-1:123456789012:parameter/meibo/sources"],
        "secretsmanager:GetSecretValue": ["arn:aws:secretsmanager:eu-central-1:123456789012:secret:meibo/*"],
        "s3:PutObject": ["ArchiveBucket.Arn/changes/*"],
        "s3:GetObject": ["ArchiveBucket.Arn/changes/*"],
        "s3:ListBucket": ["ArchiveBucket.Arn"],
        "sqs:ReceiveMessage": ["ChangesQueue.Arn"],
        "sqs:DeleteMessage": ["ChangesQueue.Arn"],
        "sqs:ChangeMessageVisibility": ["ChangesQueue.Arn"],
        "sqs:GetQueueAttributes": ["ChangesQueue.Arn"],
        "sqs:SendMessage": ["ChangesDeadLetters.Arn"],
    },
    "ScheduleRole": {
        "lambda:InvokeFunction": ["CreateExports.Arn", "VerifyArchive.Arn"],
        "sqs:SendMessage": ["ScheduleDeadLetters.Arn"],
    },
    "VerifyArchiveRole": {
        "s3:PutObject": ["ArchiveBucket.Arn/verifications/*"],
        "s3:GetObject": ["ArchiveBucket.Arn/runs/*", "ArchiveBucket.Arn/archive/*"],
        "s3:GetObjectVersion": ["ArchiveBucket.Arn/archive/*"],
        "s3:ListBucket": ["ArchiveBucket.Arn"],
        "sqs:SendMessage": ["ScheduleDeadLetters.Arn"],
    },
}
LOGS = {"logs:CreateLogStream", "logs:PutLogEvents"}


def _granted(template: Template, role: str) -> dict[str, list[str]]:
    granted: dict[str, list[str]] = {}
    for statement in template.statements(role):
        for action in statement["Action"]:
            granted.setdefault(action, []).extend(statement["Resource"])
    return granted


@pytest.fixture(scope="module")
def everything_on(translate: Callable[..., Template]) -> Template:
    """The template with every optional grant in it."""
    return translate(CustomerKeyArn=KEY, DecryptKeyArns=OLD_KEY, ObjectLockMode="GOVERNANCE")


def test_these_are_all_the_roles(template: Template) -> None:
    # SAM makes a role of its own where a function names none, with managed policies for every log group there is.
    assert set(template.of_type("AWS::IAM::Role")) == set(ROLES)
    assert not any(role.get("ManagedPolicyArns") for role in template.of_type("AWS::IAM::Role").values())


@pytest.mark.parametrize("role", ROLES)
def test_role_may_do_this_and_no_more(template: Template, role: str) -> None:
    granted = _granted(template, role)

    assert {name: granted[name] for name in granted.keys() - WITHOUT_RESOURCES - LOGS} == GRANTED[role]


@pytest.mark.parametrize("role", ROLES)
def test_every_resource_is_used_only_where_there_are_no_resources(everything_on: Template, role: str) -> None:
    unbounded = {
        action
        for statement in everything_on.statements(role)
        if "*" in statement["Resource"]
        for action in statement["Action"]
    }

    assert unbounded <= WITHOUT_RESOURCES


@pytest.mark.parametrize("role", ROLES)
def test_no_action_is_a_wildcard_and_none_deletes(everything_on: Template, role: str) -> None:
    actions = set(_granted(everything_on, role))

    assert [action for action in actions if "*" in action] == []
    # A log delivery is where Step Functions sends its logs; it holds none. Lambda deletes a message that is done.
    allowed = {"logs:DeleteLogDelivery", "sqs:DeleteMessage"}
    assert [action for action in actions if "Delete" in action and action not in allowed] == []
    assert actions.isdisjoint({"s3:BypassGovernanceRetention", "s3:PutLifecycleConfiguration", "s3:PutBucketPolicy"})


@pytest.mark.parametrize("function", ["CreateExports", "CheckExport", "ArchiveExport", "FinishRun", "ChangeMembers"])
def test_function_writes_its_own_log_group_only(template: Template, function: str) -> None:
    granted = _granted(template, f"{function}Role")

    assert {action: granted[action] for action in LOGS} == {action: [f"{function}Logs.Arn"] for action in LOGS}
    assert template.properties(function)["Role"] == f"{function}Role.Arn"


@pytest.mark.parametrize("role", ["CreateExportsRole", "ArchiveExportRole", "FinishRunRole", "ChangeMembersRole"])
def test_listing_is_bounded_to_the_prefixes_in_use(template: Template, role: str) -> None:
    (statement,) = (found for found in template.statements(role) if "s3:ListBucket" in found["Action"])

    ((operator, condition),) = statement["Condition"].items()
    prefixes = condition["s3:prefix"]

    assert operator == "StringLikeIfExists"
    assert set([prefixes] if isinstance(prefixes, str) else prefixes) <= {
        "runs/*",
        "archive/*",
        "changes/*",
        "verifications/*",
    }


@pytest.mark.parametrize("role", ROLES)
def test_the_key_is_granted_only_where_there_is_one(template: Template, everything_on: Template, role: str) -> None:
    # given
    keys = [found for found in everything_on.statements(role) if any(a.startswith("kms:") for a in found["Action"])]

    # then
    assert not any(action.startswith("kms:") for action in _granted(template, role))
    for statement in keys:
        assert statement["Resource"] in ([KEY], [OLD_KEY])
        assert "kms:ViaService" in statement["Condition"]["StringEquals"]
    assert bool(keys) == (role != "ScheduleRole")


def _decrypting(template: Template, role: str) -> dict[str, Any]:
    """Return the services through which a role may decrypt, by key."""
    return {
        key: statement["Condition"]["StringEquals"]["kms:ViaService"]
        for statement in template.statements(role)
        if "kms:Decrypt" in statement["Action"]
        for key in statement["Resource"]
    }


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("new_key", [KEY, ""], ids=["another key", "no key"])
def test_objects_of_a_former_key_stay_readable_and_nothing_is_encrypted_with_it(
    translate: Callable[..., Template], role: str, new_key: str
) -> None:
    # given: what the role reads while the former key is the archive's key
    before = _decrypting(translate(CustomerKeyArn=OLD_KEY), role)

    # when
    template = translate(CustomerKeyArn=new_key, DecryptKeyArns=f"{OLD_KEY},{OTHER_KEY}")

    # then
    after = _decrypting(template, role)
    assert after.keys() == ({OLD_KEY, OTHER_KEY, new_key} - {""} if before else set())
    for services in after.values():
        assert services == before[OLD_KEY]
    encrypting = {
        key
        for statement in template.statements(role)
        for action in statement["Action"]
        if action.startswith("kms:") and action != "kms:Decrypt"
        for key in statement["Resource"]
    }
    assert encrypting <= {new_key}


@pytest.mark.parametrize("role", ROLES)
def test_retention_is_granted_only_where_objects_are_written_and_locked(
    template: Template, everything_on: Template, role: str
) -> None:
    assert "s3:PutObjectRetention" not in _granted(template, role)
    granted = _granted(everything_on, role)
    # Parts of exports that outlast an invocation are never locked: a lifecycle rule expires them. Nor are pages, which
    # can be written again, or records of verifications.
    unlocked = ("/parts/*", "/reports/*", "/verifications/*")
    kept = [resource for resource in granted.get("s3:PutObject", []) if not resource.endswith(unlocked)]
    assert granted.get("s3:PutObjectRetention", []) == kept


@pytest.mark.parametrize(
    ("role", "service"),
    [
        ("CreateExportsRole", "lambda.amazonaws.com"),
        ("CheckExportRole", "lambda.amazonaws.com"),
        ("ArchiveExportRole", "lambda.amazonaws.com"),
        ("FinishRunRole", "lambda.amazonaws.com"),
        ("ChangeMembersRole", "lambda.amazonaws.com"),
        ("ExportWorkflowRole", "states.amazonaws.com"),
        ("ScheduleRole", "scheduler.amazonaws.com"),
    ],
)
def test_role_is_assumed_by_its_service_only(template: Template, role: str, service: str) -> None:
    (statement,) = template.properties(role)["AssumeRolePolicyDocument"]["Statement"]

    assert statement["Principal"] == {"Service": service}


def test_every_statement_says_why(source_text: str) -> None:
    lines = source_text.splitlines()

    unexplained = []
    for number, line in enumerate(lines):
        if not re.match(r"\s+- Sid: ", line):
            continue
        above = number - 1
        # An optional statement is explained above its condition.
        while lines[above].strip().startswith(("- !If", "- Has")):
            above -= 1
        if not lines[above].strip().startswith("#"):
            unexplained.append(f"line {number + 1}: {line.strip()}")

    assert unexplained == []


def _sids(document: Any) -> list[str]:
    if isinstance(document, dict):
        own = [document["Sid"]] if "Sid" in document else []
        return own + [sid for value in document.values() for sid in _sids(value)]
    if isinstance(document, list):
        return [sid for value in document for sid in _sids(value)]
    return []


def test_every_iam_statement_has_a_name(source: dict[str, Any]) -> None:
    policies = [
        policy["PolicyDocument"]["Statement"]
        for resource in source["Resources"].values()
        if resource["Type"] == "AWS::IAM::Role"
        for policy in resource["Properties"]["Policies"]
    ]

    for statements in policies:
        assert len(_sids(statements)) == len(statements)
