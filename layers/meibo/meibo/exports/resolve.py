"""Resolve the configuration into the exports of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

from meibo.configuration import Configuration
from meibo.errors import ConfigurationError, MeiboError
from meibo.exports.plan import PlannedExport, UnresolvedExport
from meibo.providers import provider
from meibo.providers.base import ExportRequest, ProviderContext
from meibo.providers.configuration import ExportModel, SourceModel


def resolve(configuration: Configuration, context: ProviderContext) -> list[PlannedExport]:
    """Return the exports of a run in the configuration's order, each key once.

    An export that cannot be resolved stays in the list with the reason: it fails on its own and does not delay the
    others. A connection that several organizations share is exported once.
    """
    exports: dict[str, PlannedExport] = {}
    for source in configuration.sources:
        for export in (export for entry in source.exports_by_entry() for export in entry):
            for planned in _plan(source, export, context):
                known = exports.get(planned.export_id)
                if known is None:
                    exports[planned.export_id] = planned
                elif known.refused is None and known.request != planned.request:
                    reason = ConfigurationError(
                        f"{planned.export_id} is configured twice with different fields or limits, but both would write"
                        " the same key; use the same fields and limits, or remove one of the exports"
                    )
                    exports[planned.export_id] = _refused(known, reason)
    return list(exports.values())


def resolve_again(
    refused: PlannedExport, configuration: Configuration, context: ProviderContext
) -> list[PlannedExport]:
    """Resolve a refused export with today's configuration, and return the exports that replace it.

    An export that is no longer configured stays refused.
    """
    source = configuration.source(refused.source)
    if source is None:
        return [refused]
    exports = [
        export
        for entry in source.exports_by_entry()
        for export in entry
        if (export.dataset, export.format, export.scope) == (refused.dataset, refused.format, refused.scope)
    ]
    if not exports:
        return [refused]
    narrowed = configuration.model_copy(update={"sources": [source.model_copy(update={"exports": exports})]})
    return [replace(export, resolved_from=refused.export_id) for export in resolve(narrowed, context)]


def _plan(source: SourceModel, export: ExportModel, context: ProviderContext) -> Iterable[PlannedExport]:
    source_provider = provider(source.provider)
    common: dict[str, Any] = {
        "provider": source.provider,
        "source": source.name,
        "has_job": source_provider.dataset(export.dataset).reading == "job",
        "suspect_share": source.suspect_share,
    }
    try:
        requests = list(source_provider.resolve(source, export, context))
    except MeiboError as error:
        request = ExportRequest(
            dataset=export.dataset,
            format=export.format,
            scope=export.scope,
            endpoint=source.endpoint,
            secret=source.secret,
        )
        yield _refused(PlannedExport(**_values(request), **common), error)
        return
    for request in requests:
        yield PlannedExport(**_values(request), **common)


def _values(request: ExportRequest) -> dict[str, Any]:
    return {field.name: getattr(request, field.name) for field in fields(request)}


def _refused(export: PlannedExport, error: MeiboError) -> PlannedExport:
    return replace(export, refused=UnresolvedExport(error=type(error).__name__, message=str(error)))
