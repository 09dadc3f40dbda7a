"""The permissions of each role in the translated template."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.iam import LOG_DELIVERY
from tests.support.template import Template

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
# Actions that do not support resources: https://docs.aws.amazon.com/service-authorization/latest/reference/
WITHOUT_RESOURCES = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    *LOG_DELIVERY,
}
# The grants of each role besides logs and traces, without a customer key and without Object Lock.
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
def full_template(translate: Callable[..., Template]) -> Template:
    """The template with every optional grant."""
    return translate(CustomerKeyArn=KEY, DecryptKeyArns=OLD_KEY, ObjectLockMode="GOVERNANCE")


def test_every_role_is_tested_and_has_no_managed_policy(template: Template) -> None:
    # SAM creates a role with managed policies for a function without a role.
    assert set(template.of_type("AWS::IAM::Role")) == set(ROLES)
    assert not any(role.get("ManagedPolicyArns") for role in template.of_type("AWS::IAM::Role").values())


@pytest.mark.parametrize("role", ROLES)
def test_role_has_exactly_the_listed_grants(template: Template, role: str) -> None:
    granted = _granted(template, role)

    assert {name: granted[name] for name in granted.keys() - WITHOUT_RESOURCES - LOGS} == GRANTED[role]


@pytest.mark.parametrize("role", ROLES)
def test_wildcard_resource_is_used_only_for_actions_without_resources(full_template: Template, role: str) -> None:
    unbounded = {
        action
        for statement in full_template.statements(role)
        if "*" in statement["Resource"]
        for action in statement["Action"]
    }

    assert unbounded <= WITHOUT_RESOURCES


@pytest.mark.parametrize("role", ROLES)
def test_no_action_is_a_wildcard_or_deletes_archived_data(full_template: Template, role: str) -> None:
    actions = set(_granted(full_template, role))

    assert [action for action in actions if "*" in action] == []
    # Deleting a log delivery deletes no logs. Lambda deletes processed messages from the queue.
    allowed = {"logs:DeleteLogDelivery", "sqs:DeleteMessage"}
    assert [action for action in actions if "Delete" in action and action not in allowed] == []
    assert actions.isdisjoint({"s3:BypassGovernanceRetention", "s3:PutLifecycleConfiguration", "s3:PutBucketPolicy"})


@pytest.mark.parametrize("function", ["CreateExports", "CheckExport", "ArchiveExport", "FinishRun", "ChangeMembers"])
def test_function_writes_only_to_its_own_log_group(template: Template, function: str) -> None:
    granted = _granted(template, f"{function}Role")

    assert {action: granted[action] for action in LOGS} == {action: [f"{function}Logs.Arn"] for action in LOGS}
    assert template.properties(function)["Role"] == f"{function}Role.Arn"


@pytest.mark.parametrize("role", ["CreateExportsRole", "ArchiveExportRole", "FinishRunRole", "ChangeMembersRole"])
def test_listing_is_limited_to_the_prefixes_in_use(template: Template, role: str) -> None:
    (statement,) = (item for item in template.statements(role) if "s3:ListBucket" in item["Action"])

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
def test_keys_are_granted_only_if_configured(template: Template, full_template: Template, role: str) -> None:
    keys = [item for item in full_template.statements(role) if any(a.startswith("kms:") for a in item["Action"])]

    assert not any(action.startswith("kms:") for action in _granted(template, role))
    for statement in keys:
        assert statement["Resource"] in ([KEY], [OLD_KEY])
        assert "kms:ViaService" in statement["Condition"]["StringEquals"]
    assert bool(keys) == (role != "ScheduleRole")


def _decrypt_services(template: Template, role: str) -> dict[str, Any]:
    """Return the services through which a role may decrypt, by key ARN."""
    return {
        key: statement["Condition"]["StringEquals"]["kms:ViaService"]
        for statement in template.statements(role)
        if "kms:Decrypt" in statement["Action"]
        for key in statement["Resource"]
    }


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("new_key", [KEY, ""], ids=["another key", "no key"])
def test_former_key_can_decrypt_but_not_encrypt(translate: Callable[..., Template], role: str, new_key: str) -> None:
    # given: the grants before the change, when the former key is the key of the archive
    before = _decrypt_services(translate(CustomerKeyArn=OLD_KEY), role)

    template = translate(CustomerKeyArn=new_key, DecryptKeyArns=f"{OLD_KEY},{OTHER_KEY}")

    after = _decrypt_services(template, role)
    assert after.keys() == ({OLD_KEY, OTHER_KEY, new_key} - {""} if before else set())
    for services in after.values():
        assert services == before[OLD_KEY]
    encrypt_keys = {
        key
        for statement in template.statements(role)
        for action in statement["Action"]
        if action.startswith("kms:") and action != "kms:Decrypt"
        for key in statement["Resource"]
    }
    assert encrypt_keys <= {new_key}


@pytest.mark.parametrize("role", ROLES)
def test_retention_is_granted_only_for_locked_objects(template: Template, full_template: Template, role: str) -> None:
    assert "s3:PutObjectRetention" not in _granted(template, role)
    granted = _granted(full_template, role)
    # Parts, reports and verifications are not locked. A lifecycle rule deletes parts, and reports can be written again.
    unlocked = ("/parts/*", "/reports/*", "/verifications/*")
    locked = [resource for resource in granted.get("s3:PutObject", []) if not resource.endswith(unlocked)]
    assert granted.get("s3:PutObjectRetention", []) == locked


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
def test_role_can_be_assumed_only_by_its_service(template: Template, role: str, service: str) -> None:
    (statement,) = template.properties(role)["AssumeRolePolicyDocument"]["Statement"]

    assert statement["Principal"] == {"Service": service}


def test_every_statement_has_a_comment(source_text: str) -> None:
    lines = source_text.splitlines()

    unexplained = []
    for number, line in enumerate(lines):
        if not re.match(r"\s+- Sid: ", line):
            continue
        above = number - 1
        # The comment of an optional statement is above its condition.
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


def test_every_iam_statement_has_a_sid(source: dict[str, Any]) -> None:
    policies = [
        policy["PolicyDocument"]["Statement"]
        for resource in source["Resources"].values()
        if resource["Type"] == "AWS::IAM::Role"
        for policy in resource["Properties"]["Policies"]
    ]

    for statements in policies:
        assert len(_sids(statements)) == len(statements)


def test_only_finish_run_reads_the_secret_of_the_heartbeat_and_only_if_it_is_set(
    template: Template, translate: Callable[..., Template]
) -> None:
    heartbeat = translate(HeartbeatSecret="monitoring/meibo", CustomerKeyArn=KEY)
    secret = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:monitoring/meibo-??????"

    readers = [role for role in ROLES if secret in _granted(heartbeat, role).get("secretsmanager:GetSecretValue", [])]
    assert readers == ["FinishRunRole"]
    assert _granted(heartbeat, "FinishRunRole")["secretsmanager:GetSecretValue"] == [secret]
    assert "secretsmanager:GetSecretValue" not in _granted(template, "FinishRunRole")
    # and: the keys can be used through Secrets Manager only for the heartbeat
    services = ["s3.eu-central-1.amazonaws.com", "secretsmanager.eu-central-1.amazonaws.com"]
    assert _decrypt_services(heartbeat, "FinishRunRole") == {KEY: services}
    assert _decrypt_services(translate(CustomerKeyArn=KEY), "FinishRunRole") == {KEY: services[:1]}
