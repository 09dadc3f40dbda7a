"""The provider cybozu.com. Each dataset is a CSV file or a JSON list, which is read in one invocation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from meibo.http.client_certificate import CERTIFICATE_KEYS
from meibo.providers.base import (
    ByteStream,
    ExportRequest,
    ExportSource,
    Pages,
    Provider,
    ProviderContext,
    SourceSetup,
)
from meibo.providers.cybozu.client import CONNECTIONS, CybozuClient, CybozuCredentials
from meibo.providers.cybozu.directory import (
    GROUPS,
    ORGANIZATIONS,
    stream_list_ndjson,
    stream_members_ndjson,
    stream_users_ndjson,
)
from meibo.providers.cybozu.pagination import DEFAULT_CONCURRENCY, PagingReport
from meibo.providers.datasets import Dataset, string_columns

if TYPE_CHECKING:
    from meibo.providers.checks import Check
    from meibo.providers.configuration import ExportModel, SourceModel
    from meibo.providers.cybozu.configuration import CybozuSource

_NDJSON: Final[Mapping[str, Callable[..., Iterator[bytes]]]] = {
    "users": stream_users_ndjson,
    "organizations": partial(stream_list_ndjson, listing=ORGANIZATIONS),
    "groups": partial(stream_list_ndjson, listing=GROUPS),
    "members": stream_members_ndjson,
}


def _csv(name: str, *columns: str, **details: Any) -> Dataset:
    return Dataset(
        name=name, reading="stream", **{"formats": ("csv",), "csv_columns": columns, "blank_is_null": True, **details}
    )


# The columns of CSV files, which have no header row: https://cybozu.dev/ja/common/docs/user-api/csv/csv-format/
_DATASETS: Final = (
    _csv(
        "users",
        *("code", "name", "newCode", "password", "surName", "givenName", "surNameReading", "givenNameReading"),
        *("localName", "localNameLocale", "email", "valid", "locale", "timezone", "phone", "extensionNumber"),
        *("mobilePhone", "url", "employeeNumber", "joinDate", "birthDate", "description", "sortOrder", "callto"),
        "delete",
        formats=("csv", "ndjson"),
        row_noun="users",
        user_ids=("id", "code"),
        user_names=("email",),
        table={
            **string_columns("id", "code", "ctime", "mtime"),
            "valid": "boolean",
            **string_columns("name", "surName", "givenName", "surNameReading", "givenNameReading", "localName"),
            **string_columns(
                "timezone", "locale", "description", "phone", "mobilePhone", "extensionNumber", "email", "url"
            ),
            **string_columns("employeeNumber", "birthDate", "joinDate", "primaryOrganization"),
            "sortOrder": "bigint",
            **string_columns("customItemValues"),
        },
    ),
    _csv(
        "organizations",
        *("code", "name", "newCode", "localName", "localNameLocale", "parentCode", "description"),
        formats=("csv", "ndjson"),
        row_noun="organizations",
        may_be_empty=True,
    ),
    _csv("titles", "code", "name", "newCode", "description", "delete", row_noun="titles", may_be_empty=True),
    _csv(
        "groups",
        *("code", "name", "newCode", "type", "description", "delete"),
        formats=("csv", "ndjson"),
        row_noun="groups",
        may_be_empty=True,
    ),
    # Each record contains the login name of a user and the codes of all organizations, groups or services of the user,
    # so the number of columns differs between records.
    _csv("user_organizations", "code", csv_ragged=True, user_ids=("code",)),
    _csv("user_groups", "code", csv_ragged=True, user_ids=("code",)),
    _csv("user_services", "code", csv_ragged=True, user_ids=("code",)),
    Dataset(
        name="members",
        formats=("ndjson",),
        reading="stream",
        row_noun="members",
        may_be_empty=True,
        blank_is_null=True,
        # A row belongs to an organization or a group, so it has two of these columns.
        keys=(("organization.id", "group.id", "member.user.id", "member.id"),),
        user_ids=("member.user.id", "member.user.code", "member.id", "member.code"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class DirectoryStream(ByteStream):
    """A dataset of a domain as a stream of bytes."""

    export: ExportRequest
    context: ProviderContext
    report: PagingReport = field(default_factory=PagingReport)

    def chunks(self) -> Iterator[bytes]:
        """Yield the CSV file as delivered, or the rows of the JSON lists as NDJSON."""
        export = self.export
        with closing(self.context.new_session(CONNECTIONS)) as session:
            client = CybozuClient(
                export.endpoint,
                CybozuCredentials.from_secret(self.context.read_secret(export.secret)),
                session=session,
                clock=self.context.clock,
                time_left=self.context.time_left,
            )
            if export.format == "csv":
                yield from client.stream_csv(export.dataset)
                return
            concurrency = export.options.get("concurrency", DEFAULT_CONCURRENCY)
            yield from _NDJSON[export.dataset](client, concurrency=concurrency, report=self.report, **export.request)

    def notes(self) -> Mapping[str, Any]:
        """Return the counts of pages, dropped duplicates and, for members, skipped owners.

        The result is empty for CSV files, or if an earlier invocation wrote the object.
        """
        if not self.report.pages:
            return {}
        counts: dict[str, Any] = {"pages": self.report.pages, "duplicates_dropped": self.report.duplicates}
        if self.export.dataset == "members":
            counts["skipped"] = {"count": len(self.report.skipped), "ids": list(self.report.skipped)}
        return counts


def _base_url(text: str) -> str:
    host = text.strip().lower().removeprefix("https://").rstrip("/")
    # The user may have entered only the subdomain.
    return f"https://{host}" if "." in host or ":" in host or not host else f"https://{host}.cybozu.com"


def _entry(dataset: str, base_url: str) -> dict[str, Any]:
    """Return the entry of a dataset. Its format is NDJSON if the domain or the dataset does not support CSV."""
    is_csv = base_url.endswith(".cybozu.com") and dataset != "members"
    return {"dataset": dataset, "format": "csv" if is_csv else "ndjson"}


class CybozuProvider(Provider):
    """cybozu.com domains. https://cybozu.dev/ja/common/docs/user-api/"""

    name = "cybozu"
    title = "cybozu.com"
    datasets = _DATASETS
    credential_keys = ("login", "password", "api_token", "basic_user", "basic_password", *CERTIFICATE_KEYS)
    required_credentials = (("login", "password"), ("api_token",))
    setup = SourceSetup(
        endpoint="base_url",
        endpoint_example="https://example.cybozu.com",
        choices=("directory", *(dataset.name for dataset in _DATASETS)),
        default=("directory",),
        normalize=_base_url,
        entry=_entry,
    )

    def source_model(self) -> type[SourceModel]:
        from meibo.providers.cybozu.configuration import CybozuSource  # noqa: PLC0415  # pydantic slows cold starts

        return CybozuSource

    def source_settings(self, source: CybozuSource) -> dict[str, Any]:
        """Return the fields of an export request that depend only on the domain. Default options are omitted."""
        options = {} if source.concurrency == DEFAULT_CONCURRENCY else {"concurrency": source.concurrency}
        return {**super().source_settings(source), "options": options}

    def resolve(
        self,
        source: CybozuSource,
        export: ExportModel,
        context: ProviderContext,  # noqa: ARG002  # nothing has to be requested
    ) -> Iterable[ExportRequest]:
        filters = {name: getattr(export, name, None) for name in ("ids", "codes")}
        yield ExportRequest(
            dataset=export.dataset,
            format=export.format,
            scope=export.scope,
            request={name: values for name, values in filters.items() if values},
            **self.source_settings(source),
        )

    def checks(self, source: CybozuSource, context: ProviderContext) -> Iterable[Check]:
        from meibo.providers.cybozu.checks import DomainChecks  # noqa: PLC0415  # needs pydantic, see above

        return DomainChecks(source, context).checks()

    def open_source(self, export: ExportRequest, job_id: str | None, context: ProviderContext) -> ExportSource | Pages:  # noqa: ARG002  # no dataset has a job
        self.requested_dataset(export)
        return DirectoryStream(gzip=export.format == "ndjson", export=export, context=context)
