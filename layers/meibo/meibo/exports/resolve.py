"""Resolve the configuration into the exports of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from meibo.configuration import Configuration
from meibo.errors import AwsBusyError, ConfigurationError, MeiboError
from meibo.exports.plan import PlannedExport, UnresolvedExport
from meibo.providers import provider
from meibo.providers.base import ExportRequest, ProviderContext
from meibo.providers.configuration import ExportModel, SourceModel


def resolve(configuration: Configuration, context: ProviderContext) -> list[PlannedExport]:
    """Return the exports of a run in the order of the configuration, without duplicates.

    An export that cannot be resolved is included with its error (``refused``), so that only this export fails.
    """
    exports = (export for source in configuration.sources for _, export in _of_source(source, context))
    return list(_by_id(exports).values())


def resolve_again(
    planned: Iterable[PlannedExport], configuration: Configuration, context: ProviderContext
) -> tuple[PlannedExport, ...]:
    """Return the exports of an earlier plan for a repair.

    A refused export is resolved again with the current configuration: it is replaced by the exports of the same entry,
    or by the export with the same key in another entry. If there is neither, it remains refused. The other exports are
    unchanged, except for the settings of their source, which are read from the current configuration.
    """
    planned = list(planned)
    refused = [export for export in planned if export.refused]
    exports = {export.export_id: as_configured_now(export, configuration) for export in planned if not export.refused}
    for source_name in dict.fromkeys(export.source for export in refused):
        source = configuration.source(source_name)
        resolved = list(_of_source(source, context)) if source else []
        current = _by_id(export for _, export in resolved)
        for export in refused:
            if export.source != source_name:
                continue
            replacements = {
                candidate.export_id: current[candidate.export_id]
                for scope, candidate in resolved
                if export.export_id == candidate.export_id
                or (export.dataset, export.format, export.scope) == (candidate.dataset, candidate.format, scope)
            }
            for replacement in replacements.values() or [_refused(export, _not_configured(export))]:
                known = exports.get(replacement.export_id)
                if known is None or known.refused:
                    exports[replacement.export_id] = replacement
                elif replacement.refused:
                    # The plan already contains an export with the same key and different fields or limits.
                    exports[export.export_id] = replace(export, refused=replacement.refused)
    return tuple(exports.values())


def _not_configured(export: PlannedExport) -> ConfigurationError:
    return ConfigurationError(
        f"{export.export_id} could not be resolved when the run was planned, and the configuration no longer contains"
        " it; add it again and repair the run, or leave this run incomplete"
    )


def as_configured_now(export: PlannedExport, configuration: Configuration) -> PlannedExport:
    """Return an export with the current settings of its source, or unchanged if the source is not configured."""
    source = configuration.source(export.source)
    if source is None or source.provider != export.provider:
        return export
    settings = provider(source.provider).source_settings(source)
    return replace(export, suspect_share=source.suspect_share, **settings)


def _by_id(exports: Iterable[PlannedExport]) -> dict[str, PlannedExport]:
    """Return the exports by id. If two exports have the same id and different requests, the export is refused."""
    unique: dict[str, PlannedExport] = {}
    for export in exports:
        known = unique.setdefault(export.export_id, export)
        if known.refused is None and known.request != export.request:
            reason = ConfigurationError(
                f"{export.export_id} is configured twice with different fields or limits, but both would write the"
                " same key; use the same fields and limits, or remove one of the exports"
            )
            unique[export.export_id] = _refused(known, reason)
        elif (export.accept_from or "") > (known.accept_from or ""):
            unique[export.export_id] = replace(known, accept_from=export.accept_from)
    return unique


def _of_source(source: SourceModel, context: ProviderContext) -> Iterable[tuple[str, PlannedExport]]:
    """Yield the exports of each entry of a source, with the scope of the entry."""
    for entry in source.exports_by_entry():
        for export in entry:
            yield from ((export.scope, planned) for planned in _plan(source, export, context))


def _plan(source: SourceModel, export: ExportModel, context: ProviderContext) -> Iterable[PlannedExport]:
    source_provider = provider(source.provider)
    common: dict[str, Any] = {
        "provider": source.provider,
        "source": source.name,
        "has_job": source_provider.dataset(export.dataset).reading == "job",
        "suspect_share": source.suspect_share,
        "accept_from": export.accept_from,
    }
    try:
        requests = list(source_provider.resolve(source, export, context))
    except AwsBusyError:
        raise  # the invocation is retried
    except MeiboError as error:
        request = ExportRequest(
            dataset=export.dataset,
            format=export.format,
            scope=export.scope,
            **source_provider.source_settings(source),
        )
        yield _refused(PlannedExport(**vars(request), **common), error)
        return
    for request in requests:
        yield PlannedExport(**vars(request), **common)


def _refused(export: PlannedExport, error: MeiboError) -> PlannedExport:
    return replace(export, refused=UnresolvedExport(error=type(error).__name__, message=str(error)))
