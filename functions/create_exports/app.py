"""Begin a run at a schedule tick, repair one, or create the job of one export."""

from __future__ import annotations

from typing import Any

from meibo.exports.create import run_creator
from meibo.exports.events import Repair, Tick, create_event
from meibo.invocation import time_left
from meibo.observability import guarded, logger
from meibo.settings import CreateExportsSettings, ObjectLockSettings


@logger.inject_lambda_context
@guarded
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer a tick, a repair or one export; the three shapes are in meibo.exports.events."""
    asked = create_event(event)
    settings, lock = CreateExportsSettings.from_env(), ObjectLockSettings.from_env().lock()
    creator = run_creator(settings, lock, time_left(context))
    if isinstance(asked, Tick):
        return creator.begin(asked.scheduled_time)
    if isinstance(asked, Repair):
        return creator.repair(asked.run_id)
    return creator.create(asked.export)
