"""Create the clients of AWS services on first use, and classify their errors.

The clients are created with botocore, because the import of boto3 includes its transfer manager and resources, which
are not used and add 60 ms to each cold start.
"""

from __future__ import annotations

import io
import random
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore import exceptions
from botocore.config import Config
from botocore.loaders import Loader, create_loader
from botocore.session import Session, get_session

from meibo.errors import AwsBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import PutObjectOutputTypeDef
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_stepfunctions import SFNClient

# The standard mode retries throttling and 5xx responses. S3 may return 503 several times during a burst of requests.
_RETRIES: Any = {"mode": "standard", "total_max_attempts": 10}
# With botocore's default of 60 s, a function in a VPC without a route would time out before it reports the reason.
_CONNECT_TIMEOUT_SECONDS = 6.0
# The default of 10 connections is less than the number of threads that use the client.
_MAX_S3_CONNECTIONS = 32
_REGIONAL: Any = {"us_east_1_regional_endpoint": "regional"}

_SESSION_LOCK = threading.Lock()

_MAX_CONDITIONAL_PUTS = 8
_MIN_CONFLICT_WAIT_SECONDS = 0.1

_UNREACHABLE = (exceptions.ConnectTimeoutError, exceptions.EndpointConnectionError, exceptions.ProxyConnectionError)
# Timeouts, failed connections and incomplete responses.
_BROKEN_CONNECTIONS = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)
# Error codes of throttling and service failures that have a 4xx status and no common prefix:
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
_BUSY_CODES = frozenset(
    {"RequestLimitExceeded", "RequestTimeout", "RequestTimeoutException", "TooManyRequestsException"}
)


@cache
def s3() -> S3Client:
    """Return the S3 client, which presigns URLs for the regional endpoint.

    By default, botocore presigns URLs for s3.amazonaws.com. This endpoint redirects requests for up to a day after the
    creation of a bucket, and rejects requests for regions that were launched after March 2019:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html#VirtualHostingBackwardsCompatibility
    If an endpoint is configured (AWS_ENDPOINT_URL_S3), its URLs contain the name of the bucket in the path.
    """
    config = Config(retries=_RETRIES, max_pool_connections=_MAX_S3_CONNECTIONS, s3=_REGIONAL)
    virtual: Any = {"s3": {**_REGIONAL, "addressing_style": "virtual"}, "ignore_configured_endpoint_urls": True}
    configured: S3Client = _client("s3", config)
    # Creating the second client takes less than 10 ms, because the session has already loaded the service model of S3.
    regional: S3Client = _client("s3", config.merge(Config(**virtual)))
    return regional if configured.meta.endpoint_url == regional.meta.endpoint_url else configured


@cache
def step_functions() -> SFNClient:
    """Return the Step Functions client."""
    client: SFNClient = _client("stepfunctions", Config(retries=_RETRIES))
    return client


@cache
def event_bridge() -> EventBridgeClient:
    """Return the EventBridge client."""
    client: EventBridgeClient = _client("events", Config(retries=_RETRIES))
    return client


@cache
def sqs() -> SQSClient:
    """Return the SQS client."""
    client: SQSClient = _client("sqs", Config(retries=_RETRIES))
    return client


@cache
def secrets_manager() -> SecretsManagerClient:
    """Return the Secrets Manager client."""
    client: SecretsManagerClient = _client("secretsmanager")
    return client


@cache
def ssm() -> SSMClient:
    """Return the SSM client."""
    client: SSMClient = _client("ssm")
    return client


def clear_clients() -> None:
    """Clear the cached clients. Tests and the local system call this function after endpoints or credentials change."""
    for cached in (s3, step_functions, event_bridge, sqs, secrets_manager, ssm, _session):
        cached.cache_clear()


@cache
def _loader() -> Loader:
    """Return the loader, which caches the endpoints and the service models for all sessions."""
    return create_loader()


@cache
def _session() -> Session:
    session = get_session()
    session.register_component("data_loader", _loader())
    return session


def _client(service: str, config: Config | None = None) -> Any:
    defaults = Config(connect_timeout=_CONNECT_TIMEOUT_SECONDS)
    # A session is not thread-safe.
    with _SESSION_LOCK:
        return _session().create_client(service, config=defaults.merge(config) if config else defaults)


def busy_error(error: BaseException) -> AwsBusyError | None:
    """Return the AwsBusyError for a botocore error, or None if a retry would not help.

    AWS is busy if it throttles, responds with 429 or 5xx, or cannot be reached, or if the connection fails. The message
    contains only the host, the operation, and the type or code of the error, because a message from S3 may contain a
    signed URL.
    """
    if isinstance(error, _UNREACHABLE):
        host = urlsplit(str(error.kwargs.get("endpoint_url", ""))).hostname or "an AWS service"
        return AwsBusyError(
            f"{host} cannot be reached ({type(error).__name__}); check HTTPS_PROXY and, for functions in a VPC, the"
            " route to AWS services and the outbound rules of the security groups"
        )
    if isinstance(error, _BROKEN_CONNECTIONS):
        return AwsBusyError(f"an AWS service did not respond ({type(error).__name__}); retry later")
    if not isinstance(error, exceptions.ClientError):
        return None
    code = str(error.response.get("Error", {}).get("Code", "unknown"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if not is_busy_code(code) and status != 429 and status < 500:
        return None
    return AwsBusyError(f"AWS responded to {error.operation_name} with {code}; retry later")


def is_busy_code(code: str) -> bool:
    """Return whether an error code of AWS indicates throttling or a failure of the service."""
    if code.startswith(("Internal", "ServiceUnavailable", "SlowDown")):
        return True
    return "throttl" in code.lower() or code in _BUSY_CODES


def put_if_absent(
    client: S3Client, body: bytes | memoryview, *, wait: Callable[[float], None] = time.sleep, **parameters: Any
) -> PutObjectOutputTypeDef | None:
    """Write an object if its key is free. Returns the response of S3, or None if the key is not free (412).

    S3 responds with 409 while another request writes to the key. The other request may fail, so the write is repeated;
    ``wait`` is called between the attempts. Raises AwsBusyError if S3 responds to every attempt with 409.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    """
    for attempt in range(_MAX_CONDITIONAL_PUTS):
        if attempt:
            ceiling = _MIN_CONFLICT_WAIT_SECONDS * 2**attempt
            wait(random.uniform(ceiling / 2, ceiling))  # noqa: S311  # jitter, not cryptography
        try:
            return client.put_object(Body=io.BytesIO(body), IfNoneMatch="*", **parameters)
        except exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code in {"PreconditionFailed", "412"}:
                return None
            if code not in {"ConditionalRequestConflict", "409"}:
                raise
    raise AwsBusyError(f"AWS responded to PutObject with 409 {_MAX_CONDITIONAL_PUTS} times; retry later")
