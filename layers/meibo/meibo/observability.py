"""Logs and metrics, and the door through which errors leave a function.

Quiet about people: messages and logs hold ids, counts and timings. What Meibo did not foresee could hold
anything, so only its type and place get out.
"""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from meibo.aws import busy_error
from meibo.errors import MeiboError, UnexpectedError

__all__ = ["MetricUnit", "guarded", "kind_of", "logger", "metrics"]

# The service is the stack's name, from POWERTOOLS_SERVICE_NAME; the alarms look for it as the metrics' dimension.
logger = Logger(log_uncaught_exceptions=False)
metrics = Metrics(namespace="Meibo")

Handler = Callable[[Any, Any], dict[str, Any]]


def guarded(handler: Handler) -> Handler:
    """Raise Meibo's own errors as they are, AwsBusyError if AWS is busy, and UnexpectedError for all others.

    The messages of other errors may contain sensitive data, so they are dropped.
    """

    @functools.wraps(handler)
    def call(event: Any, context: Any) -> dict[str, Any]:
        try:
            return handler(event, context)
        except MeiboError as error:
            logger.error("failed", extra={"error": type(error).__name__, "reason": str(error)})
            raise
        except Exception as error:  # noqa: BLE001  # the door: whatever it is, its message must not get out
            if busy := busy_error(error):
                logger.error("failed", extra={"error": type(busy).__name__, "reason": str(busy)})
                raise busy from None
            places = [
                f"{os.path.basename(frame.filename)}:{frame.lineno}"  # noqa: PTH119  # a frame's name need not be a path
                for frame in traceback.extract_tb(error.__traceback__)
            ]
            kind = kind_of(error)
            logger.error("failed unexpectedly", extra={"error": kind, "places": places})
            raise UnexpectedError(
                f"{kind} at {places[-1]}; see the function's log for the places that led there"
            ) from None

    return call


def kind_of(error: Exception) -> str:
    """Return what an error is without its message, which could hold anything."""
    # botocore's errors are told apart by the service's code, which is public vocabulary.
    code = getattr(error, "response", {}).get("Error", {}).get("Code") if hasattr(error, "response") else None
    operation = getattr(error, "operation_name", None)
    if isinstance(code, str) and isinstance(operation, str):
        return f"{type(error).__name__} ({operation}: {code})"
    return type(error).__name__
