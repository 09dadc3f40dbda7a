"""Copy the file of one export to the archive, validate it and write its manifest."""

from __future__ import annotations

from typing import Any

from meibo.clock import time_left
from meibo.exports.archive import archiver
from meibo.exports.events import parse_export_event
from meibo.observability import logger, sanitize_errors
from meibo.settings import BucketSettings, ObjectLock


@logger.inject_lambda_context
@sanitize_errors
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return the counts and the verdict of the export, or its progress if it is not finished."""
    request = parse_export_event(event)
    settings, object_lock = BucketSettings.from_env(), ObjectLock.from_env()
    return archiver(settings, object_lock, time_left(context)).archive(request)
