"""The regional endpoints of S3, and the distinction between temporary and permanent errors of AWS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore import exceptions
from botocore.stub import Stubber

from meibo import aws
from meibo.archive.content import best_checksum
from meibo.archive.copy import Target
from meibo.archive.copy.target import ObjectWriter
from meibo.aws import busy_error
from meibo.errors import AwsBusyError, ConfigurationError, UnexpectedError
from meibo.observability import sanitize_errors

URL = "https://archive.s3.eu-south-1.amazonaws.com/?X-Amz-Signature=secret"


def client_error(code: str, status: int, operation: str = "PutObject") -> exceptions.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": URL},
        "ResponseMetadata": {"HTTPStatusCode": status, "RetryAttempts": 9},
    }
    return exceptions.ClientError(response, operation)


BUSY = [
    # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    client_error("SlowDown", 503),
    client_error("InternalError", 500),
    client_error("RequestTimeout", 400),
    client_error("503", 503, "HeadObject"),
    # https://docs.aws.amazon.com/systems-manager/latest/APIReference/CommonErrors.html
    client_error("ThrottlingException", 400, "GetParameter"),
    client_error("InternalServerError", 500, "GetParameter"),
    # https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
    client_error("InternalServiceError", 500, "GetSecretValue"),
    client_error("TooManyRequestsException", 400, "GetSecretValue"),
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    client_error("RequestThrottled", 400, "SendMessage"),
    client_error("KmsThrottled", 400, "SendMessage"),
    client_error("ServiceUnavailable", 503, "StartExecution"),
    exceptions.ConnectTimeoutError(endpoint_url=URL),
    exceptions.ReadTimeoutError(endpoint_url=URL),
    exceptions.EndpointConnectionError(endpoint_url=URL),
    exceptions.ConnectionClosedError(endpoint_url=URL),
    exceptions.ResponseStreamingError(error=URL),
    exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
]
PERMANENT = [
    client_error("AccessDenied", 403),
    client_error("NoSuchBucket", 404),
    client_error("PreconditionFailed", 412),
    client_error("ResourceNotFoundException", 400, "GetSecretValue"),
    client_error("ParameterNotFound", 400, "GetParameter"),
    client_error("ExecutionAlreadyExists", 400, "StartExecution"),
    exceptions.NoCredentialsError(),
    exceptions.ParamValidationError(report=URL),
    ValueError(URL),
]


def name_of(error: Exception) -> str:
    if isinstance(error, exceptions.ClientError):
        return f"{error.operation_name}-{error.response['Error']['Code']}"
    return type(error).__name__


@pytest.mark.parametrize("error", BUSY, ids=name_of)
def test_temporary_error_is_reported_as_busy_aws(error: Exception) -> None:
    @sanitize_errors
    def handler(_event: Any, _context: Any) -> dict[str, Any]:
        raise error

    with pytest.raises(AwsBusyError) as caught:
        handler({}, None)

    assert "Signature" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("error", PERMANENT, ids=name_of)
def test_permanent_error_is_not_reported_as_busy_aws(error: Exception) -> None:
    @sanitize_errors
    def handler(_event: Any, _context: Any) -> dict[str, Any]:
        raise error

    assert busy_error(error) is None
    with pytest.raises(UnexpectedError):
        handler({}, None)


def test_error_of_meibo_is_not_changed() -> None:
    @sanitize_errors
    def handler(_event: Any, _context: Any) -> dict[str, Any]:
        raise ConfigurationError("sources[0].domain: expected a host name")

    with pytest.raises(ConfigurationError, match=r"sources\[0\]"):
        handler({}, None)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment of a function: credentials, no configuration file, and a region that the test sets."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    aws.clear_clients()  # their session caches the configuration file
    yield monkeypatch
    aws.clear_clients()


def test_connection_attempts_end_before_the_shortest_function(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_DEFAULT_REGION", "ap-northeast-1")

    config: Any = aws.secrets_manager().meta.config

    # CheckExport ends after 60 s. Legacy retries: five attempts, and pauses of at most 1, 2, 4 and 8 s.
    assert 5 * config.connect_timeout + 15 < 60


def part_url(bucket: str = "archive") -> str:
    upload = ObjectWriter(Target(aws.s3(), bucket, "users.csv"), best_checksum())
    with Stubber(aws.s3()) as s3:
        s3.add_response("create_multipart_upload", {"UploadId": "upload"})
        upload.create_upload()
    return upload.presign(1, "checksum")[0]


# https://docs.aws.amazon.com/general/latest/gr/s3.html; eu-south-1, ap-east-1 and me-central-1 are younger than March
# 2019, ap-northeast-1 is older.
@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "archive.s3.us-east-1.amazonaws.com"),
        ("us-west-2", "archive.s3.us-west-2.amazonaws.com"),
        ("eu-south-1", "archive.s3.eu-south-1.amazonaws.com"),
        ("eu-central-1", "archive.s3.eu-central-1.amazonaws.com"),
        ("ap-northeast-1", "archive.s3.ap-northeast-1.amazonaws.com"),
        ("ap-east-1", "archive.s3.ap-east-1.amazonaws.com"),
        ("me-central-1", "archive.s3.me-central-1.amazonaws.com"),
        ("cn-north-1", "archive.s3.cn-north-1.amazonaws.com.cn"),
        ("cn-northwest-1", "archive.s3.cn-northwest-1.amazonaws.com.cn"),
        ("us-gov-west-1", "archive.s3.us-gov-west-1.amazonaws.com"),
        ("us-gov-east-1", "archive.s3.us-gov-east-1.amazonaws.com"),
    ],
)
def test_parts_are_signed_for_the_regional_host(environment: pytest.MonkeyPatch, region: str, host: str) -> None:
    environment.setenv("AWS_DEFAULT_REGION", region)

    url = urlsplit(part_url())

    query = parse_qs(url.query)
    assert (url.scheme, url.netloc, url.path) == ("https", host, "/users.csv")
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Credential"][0].split("/")[2:] == [region, "s3", "aws4_request"]
    assert "host" in query["X-Amz-SignedHeaders"][0].split(";")


def test_bucket_with_dots_is_addressed_in_the_path(environment: pytest.MonkeyPatch) -> None:
    # A host name with the bucket's dots would not match the certificate.
    environment.setenv("AWS_DEFAULT_REGION", "eu-south-1")

    url = urlsplit(part_url("my.archive"))

    assert (url.netloc, url.path) == ("s3.eu-south-1.amazonaws.com", "/my.archive/users.csv")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_configured_endpoint_is_used(environment: pytest.MonkeyPatch, variable: str) -> None:
    environment.setenv("AWS_DEFAULT_REGION", "eu-south-1")
    environment.setenv(variable, "http://localhost:4566")

    url = urlsplit(part_url())

    assert (url.scheme, url.netloc, url.path) == ("http", "localhost:4566", "/archive/users.csv")


def test_endpoint_of_the_configuration_file_is_used(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("[default]\nregion = eu-south-1\nendpoint_url = http://localhost:4566\n")
    environment.setenv("AWS_CONFIG_FILE", str(file))

    assert urlsplit(part_url()).netloc == "localhost:4566"
