"""Verify the newest runs of the archive and a rotating sample of the old ones."""

from __future__ import annotations

from typing import Any

from meibo.archive.verification import verification
from meibo.invocation import time_left
from meibo.observability import guarded, logger, metrics
from meibo.settings import VerifyArchiveSettings


@logger.inject_lambda_context
@metrics.log_metrics
@guarded
def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return how many runs and exports were verified, and how many objects are damaged."""
    return verification(VerifyArchiveSettings.from_env(), time_left(context)).run()
