"""Resolve the configuration into the exports of a run: organizations into connections, fields into requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from meibo.configuration import AnyExport, Auth0Source, Auth0UsersExport, Configuration, CybozuSource, CybozuUsersExport
from meibo.errors import AwsBusyError, ConfigurationError, MeiboError
from meibo.exports.plan import PlannedExport, UnresolvedExport

# Asks the provider for the connections enabled for an organization: (source, organization_id) → connection ids.
Connections = Callable[[Auth0Source, str], Iterable[str]]


def resolve(configuration: Configuration, connections: Connections) -> list[PlannedExport]:
    """Return the exports of a run in the configuration's order, each key once.

    An export that cannot be resolved stays in the list with the reason, so that it fails on its own and does not
    stop the others. A connection that several organizations share is exported once.
    """
    exports = (export for source in configuration.sources for _, export in _of_source(source, connections))
    return list(_each_once(exports).values())


def resolve_again(
    planned: Iterable[PlannedExport], configuration: Configuration, connections: Connections
) -> tuple[PlannedExport, ...]:
    """Return the exports of an earlier plan as a repair is to archive them.

    A refused export is replaced by the exports that today's configuration resolves it to: those of the same entry
    (an organization means its connections), or those with the same key (a connection that two entries asked for). Of
    the others only the endpoint and the secret's name are taken from today's configuration.
    """
    planned = list(planned)
    refused = [export for export in planned if export.refused]
    exports = {export.export_id: _as_configured_now(export, configuration) for export in planned if not export.refused}
    for source_name in dict.fromkeys(export.source for export in refused):
        source = configuration.source(source_name)
        resolved = list(_of_source(source, connections)) if source else []
        current = _each_once(export for _, export in resolved)
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
                    # The run has this key already, with other fields or limits than this export's.
                    exports[export.export_id] = replace(export, refused=replacement.refused)
    return tuple(exports.values())


def _not_configured(export: PlannedExport) -> ConfigurationError:
    return ConfigurationError(
        f"{export.export_id} could not be resolved when the run was planned, and it is not in the configuration any"
        " more; add it again and repair the run, or accept that this run stays incomplete"
    )


def _as_configured_now(export: PlannedExport, configuration: Configuration) -> PlannedExport:
    source = configuration.source(export.source)
    if source is None or source.provider != export.provider:
        return export
    endpoint = source.domain if source.provider == "auth0" else source.base_url
    return replace(export, endpoint=endpoint, secret=source.secret)


def _each_once(exports: Iterable[PlannedExport]) -> dict[str, PlannedExport]:
    """Return the exports by their ids, refusing an id that is asked for with two different requests."""
    unique: dict[str, PlannedExport] = {}
    for export in exports:
        known = unique.setdefault(export.export_id, export)
        if known.refused is None and known.request != export.request:
            reason = ConfigurationError(
                f"{export.export_id} is asked for twice with different fields or limits; both would write the same"
                " key, so give them the same fields or remove one"
            )
            unique[export.export_id] = _refused(known, reason)
        elif (export.accept_from or "") > (known.accept_from or ""):
            unique[export.export_id] = replace(known, accept_from=export.accept_from)
    return unique


def _of_source(source: Auth0Source | CybozuSource, connections: Connections) -> Iterable[tuple[str, PlannedExport]]:
    """Yield each export that the source's entries mean, with the scope of its entry."""
    exports: Iterable[AnyExport] = (export for entry in source.exports_by_entry() for export in entry)
    for export in exports:
        if isinstance(source, Auth0Source) and isinstance(export, Auth0UsersExport):
            yield from ((export.scope, planned) for planned in _auth0_users(source, export, connections))
        elif isinstance(export, CybozuUsersExport):
            filters = {"ids": export.ids, "codes": export.codes}
            request = {key: value for key, value in filters.items() if value}
            yield export.scope, _planned(source, export, request)
        else:
            yield export.scope, _planned(source, export, {})


def _auth0_users(source: Auth0Source, export: Auth0UsersExport, connections: Connections) -> Iterable[PlannedExport]:
    def planned(connection_id: str | None, scope: str) -> PlannedExport:
        request: dict[str, Any] = {"connection_id": connection_id, "limit": export.limit}
        asked = {key: value for key, value in request.items() if value is not None}
        return replace(_planned(source, export, {**asked, "fields": export.request_fields()}), scope=scope)

    if export.organization_id is None:
        yield planned(export.connection_id, export.scope)
        return
    try:
        enabled = list(connections(source, export.organization_id))
    except AwsBusyError:
        raise  # no refusal: the whole invocation is retried
    except MeiboError as error:
        yield _refused(planned(None, export.scope), error)
        return
    for connection_id in enabled:
        yield planned(connection_id, connection_id)


def _planned(source: Auth0Source | CybozuSource, export: AnyExport, request: Mapping[str, Any]) -> PlannedExport:
    return PlannedExport(
        provider=source.provider,
        source=source.name,
        dataset=export.dataset,
        format=export.format,
        scope=export.scope,
        endpoint=source.domain if isinstance(source, Auth0Source) else source.base_url,
        secret=source.secret,
        request=request,
        accept_from=export.accept_from,
    )


def _refused(export: PlannedExport, error: MeiboError) -> PlannedExport:
    return replace(export, refused=UnresolvedExport(error=type(error).__name__, message=str(error)))
