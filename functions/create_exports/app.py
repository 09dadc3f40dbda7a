"""Start a run for a tick of the schedule, repair a run, or create the job of one export."""

from __future__ import annotations

from typing import Any

from meibo.clock import time_left
from meibo.exports.create import run_creator
from meibo.exports.events import RepairEvent, TickEvent, parse_create_event
from meibo.observability import logger, sanitize_errors
from meibo.settings import CreateExportsSettings, ObjectLock


@logger.inject_lambda_context
@sanitize_errors
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Process a tick, a repair or one export; ``meibo.exports.events`` defines the events."""
    request = parse_create_event(event)
    settings, object_lock = CreateExportsSettings.from_env(), ObjectLock.from_env()
    creator = run_creator(settings, object_lock, time_left(context))
    if isinstance(request, TickEvent):
        return creator.begin(request.scheduled_time)
    if isinstance(request, RepairEvent):
        return creator.repair(request.run_id)
    return creator.create_job(request.export).to_json()
