"""Clients of AWS, created on first use and cached for the life of the process, and classification of their errors.

The clients are those of boto3, but created by botocore, which boto3 wraps. Importing boto3 also imports its transfer
manager and its resources, which are not used and take 60 ms of each cold start.
"""

from __future__ import annotations

import io
import random
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any

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

# Standard mode retries throttling and 5xx with backoff. Ten attempts outlast the 503 responses of S3 to a burst.
_RETRIES: Any = {"mode": "standard", "total_max_attempts": 10}
_MAX_S3_CONNECTIONS = 32
_REGIONAL: Any = {"us_east_1_regional_endpoint": "regional"}

_SESSION_LOCK = threading.Lock()

_MAX_CONDITIONAL_PUTS = 8
_MIN_CONFLICT_WAIT_SECONDS = 0.1

# Timeouts, failed connections and incomplete responses.
_BROKEN_CONNECTIONS = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)
# Codes of throttling and of service failures that neither their name nor their status (4xx) identifies:
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
_BUSY_CODES = frozenset(
    {"RequestLimitExceeded", "RequestTimeout", "RequestTimeoutException", "TooManyRequestsException"}
)


@cache
def s3() -> S3Client:
    """Return the S3 client, with a connection for each thread of finish_run that reads manifests.

    It presigns URLs for the regional endpoint. boto3's default is s3.amazonaws.com, which redirects for up to a day
    after a bucket was created, and rejects requests for regions launched after March 2019:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html#VirtualHostingBackwardsCompatibility
    A configured endpoint (AWS_ENDPOINT_URL_S3) keeps boto3's default, the bucket's name in the path.
    """
    config = Config(retries=_RETRIES, max_pool_connections=_MAX_S3_CONNECTIONS, s3=_REGIONAL)
    virtual: Any = {"s3": {**_REGIONAL, "addressing_style": "virtual"}, "ignore_configured_endpoint_urls": True}
    configured: S3Client = _client("s3", config)
    # Creating the second client takes less than 10 ms, because the session has loaded the description of S3.
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
    """Remove the cached clients, for a process whose endpoints or credentials change (tests, the local system)."""
    for cached in (s3, step_functions, event_bridge, sqs, secrets_manager, ssm, _session):
        cached.cache_clear()


@cache
def _loader() -> Loader:
    """Return the loader that caches the lists of endpoints and the descriptions of services for every session."""
    return create_loader()


@cache
def _session() -> Session:
    """Return the session of all clients, which caches the credentials and the configuration."""
    session = get_session()
    session.register_component("data_loader", _loader())
    return session


def _client(service: str, config: Config | None = None) -> Any:
    # A session is not thread-safe.
    with _SESSION_LOCK:
        return _session().create_client(service, config=config)


def busy_error(error: BaseException) -> AwsBusyError | None:
    """Return an AwsBusyError for a botocore error, or None if a retry would not help.

    AWS is busy if it throttles, responds with 429 or 5xx, or cannot be reached. The message contains the operation and
    the code only, because a message from S3 may contain a signed URL.
    """
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
    """Return whether an error code of AWS means throttling or a service failure."""
    if code.startswith(("Internal", "ServiceUnavailable", "SlowDown")):
        return True
    return "throttl" in code.lower() or code in _BUSY_CODES


def put_if_absent(
    client: S3Client, body: bytes | memoryview, *, wait: Callable[[float], None] = time.sleep, **parameters: Any
) -> PutObjectOutputTypeDef | None:
    """Write an object unless its key exists; return S3's response, or None if the key exists (412).

    S3 responds with 409 while another request writes the key. That request may fail, so the write is repeated, with
    ``wait`` called between the attempts. Raises AwsBusyError if S3 responds to every attempt with 409.
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
