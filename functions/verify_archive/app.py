"""Verify the newest runs of the archive and a rotating sample of the older runs."""

from __future__ import annotations

from typing import Any

from meibo.archive.scheduled_verification import scheduled_verification
from meibo.clock import time_left
from meibo.observability import logger, metrics, sanitize_errors
from meibo.settings import VerifyArchiveSettings


@logger.inject_lambda_context
@metrics.log_metrics
@sanitize_errors
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Verify the runs, and return the counts of the verification record."""
    return scheduled_verification(VerifyArchiveSettings.from_env(), time_left(context)).run()
