"""Finish a run with its manifest, metrics, event and report, or record the failure of one of its exports."""

from __future__ import annotations

from typing import Any

from meibo.exports.events import FailedExportEvent, parse_finish_event
from meibo.exports.finish import run_finisher
from meibo.observability import logger, metrics, sanitize_errors
from meibo.settings import FinishRunSettings, ObjectLock


@logger.inject_lambda_context
@metrics.log_metrics
@sanitize_errors
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return the counts of the run and whether it is complete, or that a failure was recorded."""
    request = parse_finish_event(event)
    finisher = run_finisher(FinishRunSettings.from_env(), ObjectLock.from_env())
    if isinstance(request, FailedExportEvent):
        return finisher.record_failure(request.run_id, request.attempt, request.export, request.error)
    return finisher.finish(request.run_id, request.attempt)
