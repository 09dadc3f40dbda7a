"""Planned exports and archivers for tests with their own provider, clock and S3 client."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from meibo.archive.copier import S3Copier
from meibo.archive.copy import CopyOptions
from meibo.archive.storage import S3Storage
from meibo.exports.archive import Archiver
from meibo.exports.checkpoint import Collector
from meibo.exports.plan import PlannedExport
from meibo.providers.base import ProviderContext


def planned_export(dataset: str, **fields: Any) -> PlannedExport:
    """Return a planned export of the Auth0 source ``acme`` without a job. ``fields`` replace the defaults."""
    defaults: dict[str, Any] = {
        "provider": "auth0",
        "source": "acme",
        "dataset": dataset,
        "format": "ndjson",
        "scope": "all",
        "endpoint": "acme.jp.auth0.com",
        "secret": "meibo/acme",
        "request": {},
        "has_job": False,
    }
    return PlannedExport(**{**defaults, **fields})


def s3_archiver(
    client: Any,
    context: ProviderContext,
    time_left: Callable[[], float],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Archiver:
    """Return an archiver that writes to the bucket ``archive``."""
    storage = S3Storage(client, "archive")
    return Archiver(
        storage=storage,
        bucket="archive",
        copier=S3Copier(client=client, bucket="archive", options=CopyOptions(), time_left=time_left),
        collector=Collector(storage=storage, time_left=time_left, now=now),
        context=context,
        now=now,
    )
