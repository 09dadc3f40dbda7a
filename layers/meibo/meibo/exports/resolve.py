"""From the configuration to the exports of a run: which connections an organization means, and what is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from meibo.configuration import AnyExport, Auth0Source, Auth0UsersExport, Configuration, CybozuSource, CybozuUsersExport
from meibo.errors import AwsBusyError, ConfigurationError, MeiboError
from meibo.exports.plan import PlannedExport, Refusal

# Asks the provider for the connections enabled for an organization: (source, organization_id) → connection ids.
Connections = Callable[[Auth0Source, str], Iterable[str]]


def resolve(configuration: Configuration, connections: Connections) -> list[PlannedExport]:
    """Return the exports of a run in the configuration's order, each key once.

    An export that cannot be resolved stays in the list with the reason, so that it fails on its own and the
    others are not held up. A connection that several organizations share is exported once.
    """
    exports: dict[str, PlannedExport] = {}
    for source in configuration.sources:
        for planned in _of_source(source, connections):
            known = exports.get(planned.export_id)
            if known is None:
                exports[planned.export_id] = planned
            elif known.refused is None and known.request != planned.request:
                reason = ConfigurationError(
                    f"{planned.export_id} is asked for twice with different fields or limits; both would write the"
                    " same key, so give them the same fields or remove one"
                )
                exports[planned.export_id] = _refused(known, reason)
            elif (planned.accept_from or "") > (known.accept_from or ""):
                exports[planned.export_id] = replace(known, accept_from=planned.accept_from)
    return list(exports.values())


def resolve_again(
    refused: PlannedExport, configuration: Configuration, connections: Connections
) -> list[PlannedExport]:
    """Resolve a refused export as it is configured today, into the exports that take its place.

    An export that is not configured any more stays refused.
    """
    source = configuration.source(refused.source)
    if source is None:
        return [refused]
    wanted = (refused.dataset, refused.format, refused.scope)
    exports = [
        export
        for entry in source.exports_by_entry()
        for export in entry
        if (export.dataset, export.format, export.scope) == wanted
    ]
    if not exports:
        return [refused]
    narrowed = configuration.model_copy(update={"sources": [source.model_copy(update={"exports": exports})]})
    return [replace(export, resolved_from=refused.export_id) for export in resolve(narrowed, connections)]


def _of_source(source: Auth0Source | CybozuSource, connections: Connections) -> Iterable[PlannedExport]:
    exports: Iterable[AnyExport] = (export for entry in source.exports_by_entry() for export in entry)
    for export in exports:
        if isinstance(source, Auth0Source) and isinstance(export, Auth0UsersExport):
            yield from _auth0_users(source, export, connections)
        elif isinstance(export, CybozuUsersExport):
            filters = {"ids": export.ids, "codes": export.codes}
            yield _planned(source, export, {key: value for key, value in filters.items() if value})
        else:
            yield _planned(source, export, {})


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
    return replace(export, refused=Refusal(error=type(error).__name__, message=str(error)))
