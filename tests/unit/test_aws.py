"""Errors that pass are told from errors that no retry fixes."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions

from meibo.aws import busy_error
from meibo.errors import AwsBusyError, ConfigurationError, UnexpectedError
from meibo.observability import guarded

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
def test_errors_that_pass_leave_a_function_as_aws_busy(error: Exception) -> None:
    @guarded
    def handler(_event: Any, _context: Any) -> dict[str, Any]:
        raise error

    with pytest.raises(AwsBusyError) as caught:
        handler({}, None)

    assert "Signature" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("error", PERMANENT, ids=name_of)
def test_errors_that_no_retry_fixes_are_not_aws_being_busy(error: Exception) -> None:
    @guarded
    def handler(_event: Any, _context: Any) -> dict[str, Any]:
        raise error

    assert busy_error(error) is None
    with pytest.raises(UnexpectedError):
        handler({}, None)


def test_errors_of_meibo_leave_a_function_as_they_are() -> None:
    @guarded
    def handler(_event: Any, _context: Any) -> dict[str, Any]:
        raise ConfigurationError("sources[0].domain: expected a host name")

    with pytest.raises(ConfigurationError, match=r"sources\[0\]"):
        handler({}, None)
