"""Apply the membership changes on the queue."""

from __future__ import annotations

from typing import Any

from meibo.changes.apply import change_members
from meibo.changes.messages import parse_queue_event
from meibo.clock import time_left
from meibo.observability import logger, metrics, sanitize_errors
from meibo.settings import ChangeMembersSettings, ObjectLock


@logger.inject_lambda_context
@metrics.log_metrics
@sanitize_errors
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Apply the changes of a batch and return the messages that remain on the queue (``batchItemFailures``)."""
    messages = parse_queue_event(event)
    settings, object_lock = ChangeMembersSettings.from_env(), ObjectLock.from_env()
    return change_members(settings, object_lock, time_left(context), messages)
