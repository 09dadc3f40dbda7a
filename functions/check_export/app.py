"""Check the job of one export."""

from __future__ import annotations

from typing import Any

from meibo.clock import time_left
from meibo.exports.check import check
from meibo.exports.events import parse_export_event
from meibo.observability import logger, sanitize_errors
from meibo.providers.base import ProviderContext


@logger.inject_lambda_context
@sanitize_errors
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return the status of the job and the time until the next check. The location is not returned."""
    request = parse_export_event(event)
    return check(request.export, ProviderContext(time_left(context)))
