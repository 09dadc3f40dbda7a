"""boto3 clients, made on first use and kept for the life of the process."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

# Standard mode retries throttling and 5xx with backoff; ten tries outlast the S3 503s that a burst can meet.
_RETRIES: Any = {"mode": "standard", "total_max_attempts": 10}


@cache
def s3() -> S3Client:
    """Return the S3 client; its pool is as wide as finish_run's parallel reads of manifests."""
    return boto3.client("s3", config=Config(retries=_RETRIES, max_pool_connections=32))


@cache
def step_functions() -> SFNClient:
    """Return the Step Functions client."""
    return boto3.client("stepfunctions", config=Config(retries=_RETRIES))


@cache
def event_bridge() -> EventBridgeClient:
    """Return the EventBridge client."""
    return boto3.client("events", config=Config(retries=_RETRIES))


@cache
def sqs() -> SQSClient:
    """Return the SQS client."""
    return boto3.client("sqs", config=Config(retries=_RETRIES))


def forget_clients() -> None:
    """Drop the kept clients, for a process whose endpoints or credentials change (tests, the local system)."""
    for made in (s3, step_functions, event_bridge, sqs):
        made.cache_clear()
