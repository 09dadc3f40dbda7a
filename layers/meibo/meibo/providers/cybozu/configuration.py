"""The configuration of a cybozu.com domain: its endpoint and its exports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from meibo.providers.configuration import ExportModel, SourceModel
from meibo.providers.cybozu.pagination import DEFAULT_CONCURRENCY, MAX_CONCURRENCY
from meibo.validation import pattern_field

UserId = Annotated[
    str, pattern_field(pattern=r"^\d{1,19}$", description="Id of a user, a number", expected="a number such as 7532")
]

CSV_ONLY = Literal["titles", "user_organizations", "user_groups", "user_services"]


class CybozuUsersExport(ExportModel):
    """Users of one cybozu.com domain."""

    dataset: Literal["users"]
    format: Literal["csv", "ndjson"] = "csv"
    ids: Annotated[list[UserId] | None, Field(min_length=1)] = None
    codes: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]] | None, Field(min_length=1)] = None

    @model_validator(mode="after")
    def _check_filter(self) -> CybozuUsersExport:
        if self.ids and self.codes:
            raise ValueError("expected ids or codes, found both, which cybozu.com rejects; remove one of them")
        if self.format == "csv" and (self.ids or self.codes):
            raise ValueError('ids and codes require "format": "ndjson"; a CSV file always contains the whole directory')
        return self

    @property
    def scope(self) -> str:
        """The part of the domain that the export covers.

        An export of selected users has its own scope, so that it is not compared with an export of all users.
        """
        return "selected" if self.ids or self.codes else "all"


class CybozuListExport(ExportModel):
    """Organizations or groups of one cybozu.com domain."""

    dataset: Literal["organizations", "groups"]
    format: Literal["csv", "ndjson"] = "csv"


class CybozuCsvExport(ExportModel):
    """Datasets that exist as CSV only: titles, and the organizations, groups and services of each user."""

    dataset: CSV_ONLY
    format: Literal["csv"] = "csv"


class CybozuMembersExport(ExportModel):
    """Members of every organization and group, for domains without the CSV API, such as kintone.com."""

    dataset: Literal["members"]
    format: Literal["ndjson"] = "ndjson"


class CybozuDirectoryExport(ExportModel):
    """All datasets of a domain that exist in the format."""

    dataset: Literal["directory"]
    format: Literal["csv", "ndjson"] = "csv"

    def expand(self) -> Sequence[ExportModel]:
        """Return one export for each dataset."""
        accepted = self.accept_from
        users = CybozuUsersExport(dataset="users", format=self.format, accept_from=accepted)
        lists = [
            CybozuListExport(dataset=name, format=self.format, accept_from=accepted)
            for name in ("organizations", "groups")
        ]
        if self.format == "ndjson":
            return [users, *lists, CybozuMembersExport(dataset="members", accept_from=accepted)]
        titles, *memberships = (CybozuCsvExport(dataset=name, accept_from=accepted) for name in get_args(CSV_ONLY))
        return [users, lists[0], titles, lists[1], *memberships]


CybozuExport = CybozuUsersExport | CybozuListExport | CybozuCsvExport | CybozuMembersExport | CybozuDirectoryExport


class CybozuSource(SourceModel):
    """One cybozu.com domain."""

    provider: Literal["cybozu"]
    base_url: Annotated[
        str,
        pattern_field(
            pattern=r"^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?$",
            description="For example https://example.cybozu.com, without a path",
            expected="a URL such as https://example.cybozu.com, without a path",
        ),
    ]
    exports: Annotated[list[Annotated[CybozuExport, Field(discriminator="dataset")]], Field(min_length=1)]
    concurrency: Annotated[
        int, Field(ge=1, le=MAX_CONCURRENCY, strict=True, description="Simultaneous requests to the domain")
    ] = DEFAULT_CONCURRENCY

    @field_validator("base_url", mode="before")
    @classmethod
    def _without_slash(cls, value: Any) -> Any:
        return value.removesuffix("/") if isinstance(value, str) else value

    @property
    def endpoint(self) -> str:
        return self.base_url
