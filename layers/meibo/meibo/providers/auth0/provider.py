"""The provider Auth0. Users are exported by jobs, and the other datasets are read page by page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from meibo.errors import EventError
from meibo.providers.auth0.client import Auth0Client, clients
from meibo.providers.auth0.datasets import DATASETS, PAGES, USERS
from meibo.providers.auth0.fields import DEFAULT_FIELDS, wire_fields
from meibo.providers.auth0.jobs import create_users_export, get_job
from meibo.providers.auth0.location import DEFAULT_LOCATION_HOSTS, fresh_location
from meibo.providers.auth0.organizations import OrganizationApi
from meibo.providers.base import (
    ExportRequest,
    ExportSource,
    JobFile,
    JobState,
    Pages,
    Provider,
    ProviderContext,
    SourceSetup,
)

if TYPE_CHECKING:
    from meibo.providers.auth0.configuration import Auth0Source
    from meibo.providers.checks import Check
    from meibo.providers.configuration import ExportModel, SourceModel


@dataclass(frozen=True, kw_only=True)
class UsersFile(JobFile):
    """The file of a finished users export job."""

    export: ExportRequest
    job_id: str
    context: ProviderContext

    def fetch_location(self) -> str:
        """Return a new, validated location of the job's file. It is a secret: never log it."""
        hosts = tuple(self.export.options.get("location_hosts", DEFAULT_LOCATION_HOSTS))
        return fresh_location(_client(self.export, self.context), self.job_id, hosts)


def _client(export: ExportRequest, context: ProviderContext) -> Auth0Client:
    return clients.client(export.endpoint, export.secret, context, audience=export.options.get("audience"))


class Auth0Provider(Provider):
    """Auth0 tenants. https://auth0.com/docs/api/management/v2"""

    name = "auth0"
    title = "Auth0"
    datasets = DATASETS
    credential_keys = ("client_id", "client_secret", "private_key", "key_id", "algorithm")
    required_credentials = (("client_id", "client_secret"), ("client_id", "private_key"))
    setup = SourceSetup(
        endpoint="domain",
        endpoint_example="acme.jp.auth0.com",
        choices=tuple(dataset.name for dataset in DATASETS),
        default=("users", "organizations", "members"),
        normalize=lambda text: text.strip().lower().removeprefix("https://").rstrip("/"),
        entry=lambda dataset, _domain: {"dataset": dataset},
    )

    def clear_clients(self) -> None:
        clients.clear()

    def source_model(self) -> type[SourceModel]:
        from meibo.providers.auth0.configuration import Auth0Source  # noqa: PLC0415  # pydantic slows cold starts

        return Auth0Source

    def column_names(self, dataset: str, format: str, request: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: A002  # the term of the configuration
        """Return a mapping from the names of fields to the column names in the file of a users export."""
        if dataset != USERS.name:
            return {}
        fields = request.get("fields") or DEFAULT_FIELDS[format]
        return {field["name"]: field.get("export_as", field["name"]) for field in wire_fields(fields)}

    def source_settings(self, source: Auth0Source) -> dict[str, Any]:
        """Return the fields of an export request that depend only on the tenant. Default options are omitted."""
        options: dict[str, Any] = {}
        if source.location_hosts != DEFAULT_LOCATION_HOSTS:
            options["location_hosts"] = list(source.location_hosts)
        if source.audience is not None:
            options["audience"] = source.audience
        return {
            **super().source_settings(source),
            "options": options,
            "job_deadline_seconds": source.job_deadline_seconds,
        }

    def resolve(self, source: Auth0Source, export: ExportModel, context: ProviderContext) -> Iterable[ExportRequest]:
        """Return the export requests for one configured export.

        A users export of an organization has one request for each enabled connection.
        """
        request = ExportRequest(
            dataset=export.dataset, format=export.format, scope=export.scope, **self.source_settings(source)
        )
        if self.dataset(export.dataset).reading != "job":
            return [request]
        return self._resolve_users(request, export, context)

    def _resolve_users(self, request: ExportRequest, export: Any, context: ProviderContext) -> Iterable[ExportRequest]:
        connections = [export.connection_id]
        if export.organization_id is not None:
            connections = OrganizationApi(_client(request, context)).connection_ids(export.organization_id)
        for connection in connections:
            parameters = {"connection_id": connection, "limit": export.limit, "fields": export.request_fields()}
            yield replace(
                request,
                scope=connection or export.scope,
                request={key: value for key, value in parameters.items() if value is not None},
            )

    def checks(self, source: Auth0Source, context: ProviderContext) -> Iterable[Check]:
        from meibo.providers.auth0.checks import TenantChecks  # noqa: PLC0415  # needs pydantic, see above

        return TenantChecks(source, context).checks()

    def create_job(self, export: ExportRequest, context: ProviderContext) -> str:
        request = export.request
        return create_users_export(
            _client(export, context),
            connection_id=request.get("connection_id"),
            format=export.format,
            limit=request.get("limit"),
            fields=request["fields"],
        )

    def check_job(self, export: ExportRequest, job_id: str, context: ProviderContext) -> JobState:
        return get_job(_client(export, context), job_id)

    def open_source(self, export: ExportRequest, job_id: str | None, context: ProviderContext) -> ExportSource | Pages:
        """Return the file of a finished users export job, or the pages of another dataset."""
        dataset = self.requested_dataset(export)
        if dataset.reading == "pages":
            return PAGES[dataset.name](_client(export, context))
        if job_id is None:
            raise EventError("export.job: expected the job of a users export, found none; create the job first")
        return UsersFile(
            gzip=True,
            header=export.format == "csv",
            export=export,
            job_id=job_id,
            context=context,
        )
