"""Ask the provider how the job of one export is doing."""

from __future__ import annotations

from typing import Any

from meibo.exports.check import check
from meibo.exports.events import parse_export_event
from meibo.exports.provider_clients import ProviderClients
from meibo.observability import guarded, logger
from meibo.settings import CheckExportSettings, time_left


@logger.inject_lambda_context
@guarded
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return the job's status and when to ask again, never its location."""
    request = parse_export_event(event)
    settings = CheckExportSettings.from_env()
    providers = ProviderClients(deadline=time_left(context))
    return check(request.export, providers.read_job, deadline_seconds=settings.job_deadline_seconds)
