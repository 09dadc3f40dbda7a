"""The logger and the metrics of the functions, and the decorator that removes sensitive data from their errors.

Logs contain no user data. The message of an error from other code may contain user data, so only its type and its place
in the code are reported.
"""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import ClientError

from meibo.aws import busy_error
from meibo.errors import MeiboError, UnexpectedError

__all__ = ["MetricUnit", "logger", "metrics", "safe_description", "sanitize_errors"]

# The service (POWERTOOLS_SERVICE_NAME) is the name of the stack. It is the dimension of the metrics in the alarms.
logger = Logger(log_uncaught_exceptions=False)
metrics = Metrics(namespace="Meibo")

Handler = Callable[[Any, Any], dict[str, Any]]


def sanitize_errors(handler: Handler) -> Handler:
    """Decorate a handler so that its errors contain no sensitive data.

    Meibo's errors are raised unchanged. If AWS is busy, AwsBusyError is raised. Any other error is replaced by an
    UnexpectedError with the type and the place of the error, but not its message.
    """

    @functools.wraps(handler)
    def call(event: Any, context: Any) -> dict[str, Any]:
        try:
            return handler(event, context)
        except MeiboError as error:
            logger.error("failed", extra={"error": type(error).__name__, "reason": str(error)})
            raise
        except Exception as error:  # noqa: BLE001  # the message of any other error may contain sensitive data
            if busy := busy_error(error):
                logger.error("failed", extra={"error": type(busy).__name__, "reason": str(busy)})
                raise busy from None
            places = [
                f"{os.path.basename(frame.filename)}:{frame.lineno}"  # noqa: PTH119  # a frame's filename may be <string>
                for frame in traceback.extract_tb(error.__traceback__)
            ]
            description = safe_description(error)
            logger.error("failed unexpectedly", extra={"error": description, "places": places})
            raise UnexpectedError(
                f"{description} at {places[-1]}; see the function's log for the call stack (places)"
            ) from None

    return call


def safe_description(error: Exception) -> str:
    """Return the type of an error, and the operation and error code of an AWS error, but never the message."""
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "unknown")
        return f"{type(error).__name__} ({error.operation_name}: {code})"
    return type(error).__name__
