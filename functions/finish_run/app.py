"""Finish a run: its manifest, its metrics, its event. Or write down why one of its exports failed."""

from __future__ import annotations

from typing import Any

from meibo.exports.events import FailedExport, finish_event
from meibo.exports.finish import run_finisher
from meibo.observability import guarded, logger, metrics
from meibo.settings import FinishRunSettings, ObjectLockSettings


@logger.inject_lambda_context
@metrics.log_metrics
@guarded
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return whether the run is complete, with its counts; or that a failure was recorded."""
    asked = finish_event(event)
    finisher = run_finisher(FinishRunSettings.from_env(), ObjectLockSettings.from_env().lock())
    if isinstance(asked, FailedExport):
        return finisher.record_failure(asked.run_id, asked.attempt, asked.export, asked.error)
    return finisher.finish(asked.run_id, asked.attempt)
