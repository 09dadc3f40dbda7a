"""The archive bucket: private, encrypted, versioned, never overwritten, retained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.template import Template

KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"


def _rules(template: Template) -> dict[str, dict[str, Any]]:
    rules = template.properties("ArchiveBucket")["LifecycleConfiguration"]["Rules"]
    return {rule["Id"]: rule for rule in rules}


def _policy(template: Template) -> dict[str, dict[str, Any]]:
    statements = template.properties("ArchiveBucketPolicy")["PolicyDocument"]["Statement"]
    return {statement["Sid"]: statement for statement in statements}


def test_bucket_outlives_the_stack(template: Template) -> None:
    bucket = template.resources["ArchiveBucket"]

    # A rollback of the first deployment deletes the empty bucket; every other deletion retains it.
    assert bucket["DeletionPolicy"] == "RetainExceptOnCreate"
    assert bucket["UpdateReplacePolicy"] == "Retain"


def test_bucket_is_versioned(template: Template) -> None:
    assert template.properties("ArchiveBucket")["VersioningConfiguration"] == {"Status": "Enabled"}


def test_bucket_is_private(template: Template) -> None:
    properties = template.properties("ArchiveBucket")

    assert properties["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": True,
        "BlockPublicPolicy": True,
        "IgnorePublicAcls": True,
        "RestrictPublicBuckets": True,
    }
    assert properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


@pytest.mark.parametrize("sid", ["DenyInsecureTransport", "DenyOldTlsVersions"])
def test_bucket_requires_tls(template: Template, sid: str) -> None:
    statement = _policy(template)[sid]

    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Resource"] == ["ArchiveBucket.Arn", "ArchiveBucket.Arn/*"]
    assert statement["Condition"] in (
        {"Bool": {"aws:SecureTransport": "false"}},
        {"NumericLessThan": {"s3:TlsVersion": "1.2"}},
    )


def test_objects_cannot_be_overwritten(template: Template) -> None:
    statement = _policy(template)["DenyOverwrite"]

    assert statement["Effect"] == "Deny"
    assert statement["Action"] == "s3:PutObject"
    assert statement["Resource"] == "ArchiveBucket.Arn/*"
    # CreateMultipartUpload and UploadPart create no object and cannot have the header.
    assert statement["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},
    }


def test_bucket_policy_grants_nothing(template: Template) -> None:
    assert {statement["Effect"] for statement in _policy(template).values()} == {"Deny"}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}),
        (
            KEY,
            {
                "BucketKeyEnabled": True,
                "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY},
            },
        ),
    ],
)
def test_bucket_is_encrypted_with_the_customer_key_or_the_key_of_s3(
    translate: Callable[..., Template], key: str, expected: dict[str, Any]
) -> None:
    properties = translate(CustomerKeyArn=key).properties("ArchiveBucket")

    assert properties["BucketEncryption"] == {"ServerSideEncryptionConfiguration": [expected]}


def test_default_lifecycle_removes_only_incomplete_uploads_and_parts(template: Template) -> None:
    assert _rules(template) == {
        "AbortIncompleteUploads": {
            "Id": "AbortIncompleteUploads",
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        },
        # Parts of exports that need more than one invocation. They do not belong to the archive.
        "ExpireParts": {
            "Id": "ExpireParts",
            "Status": "Enabled",
            "Prefix": "parts/",
            "ExpirationInDays": 7,
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        },
    }


def test_lifecycle_follows_the_parameters(translate: Callable[..., Template]) -> None:
    template = translate(TransitionDays=30, TransitionStorageClass="DEEP_ARCHIVE", RetentionDays=400, NoncurrentDays=90)

    rules = _rules(template)

    assert rules["Transition"]["Transitions"] == [{"StorageClass": "DEEP_ARCHIVE", "TransitionInDays": 30}]
    assert rules["Expire"]["ExpirationInDays"] == 400
    assert rules["ExpireNoncurrent"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}
    assert {rules["Transition"]["Prefix"], rules["Expire"]["Prefix"]} == {"archive/"}


def test_small_objects_such_as_manifests_are_not_transitioned(translate: Callable[..., Template]) -> None:
    rule = _rules(translate(TransitionDays=1))["Transition"]

    assert int(rule["ObjectSizeGreaterThan"]) == 128 * 1024


def test_object_lock_parameter_does_not_change_the_bucket(
    template: Template, translate: Callable[..., Template]
) -> None:
    properties = template.properties("ArchiveBucket")

    assert properties == translate(ObjectLockMode="COMPLIANCE").properties("ArchiveBucket")
    assert properties["ObjectLockEnabled"] is True
    assert "ObjectLockConfiguration" not in properties


@pytest.mark.parametrize("function", ["CreateExports", "ArchiveExport", "FinishRun"])
def test_object_lock_parameters_reach_the_functions(translate: Callable[..., Template], function: str) -> None:
    template = translate(ObjectLockMode="COMPLIANCE", ObjectLockDays=30)

    variables = template.properties(function)["Environment"]["Variables"]

    assert (variables["MEIBO_OBJECT_LOCK_MODE"], variables["MEIBO_OBJECT_LOCK_DAYS"]) == ("COMPLIANCE", 30)


def test_access_is_logged_to_the_bucket_of_the_parameter(
    template: Template, translate: Callable[..., Template]
) -> None:
    logging = translate(AccessLogBucket="access-logs").properties("ArchiveBucket")["LoggingConfiguration"]

    assert logging == {"DestinationBucketName": "access-logs", "LogFilePrefix": "meibo/"}
    assert "LoggingConfiguration" not in template.properties("ArchiveBucket")
