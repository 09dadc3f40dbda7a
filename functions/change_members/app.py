"""Apply the membership changes that arrive on the queue."""

from __future__ import annotations

from typing import Any

from meibo.invocation import time_left
from meibo.members.delivery import deliveries
from meibo.members.handling import change_members
from meibo.observability import guarded, logger, metrics
from meibo.settings import ChangeMembersSettings, ObjectLockSettings


@logger.inject_lambda_context
@metrics.log_metrics
@guarded
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return the messages that stay on the queue (batchItemFailures)."""
    found = deliveries(event)
    settings, lock = ChangeMembersSettings.from_env(), ObjectLockSettings.from_env().lock()
    return change_members(settings, lock, time_left(context), found)
