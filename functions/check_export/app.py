"""Ask the provider how the job of one export is doing."""

from __future__ import annotations

from typing import Any

from meibo.exports.check import check
from meibo.exports.events import export_event
from meibo.exports.providers import Providers
from meibo.invocation import time_left
from meibo.observability import guarded, logger
from meibo.settings import CheckExportSettings


@logger.inject_lambda_context
@guarded
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return the job's status and when to ask again, never its location."""
    asked = export_event(event)
    settings = CheckExportSettings.from_env()
    providers = Providers(deadline=time_left(context))
    return check(asked.export, providers.read_job, deadline_seconds=settings.job_deadline_seconds)
