"""The configuration of an Auth0 tenant: its endpoint and its exports."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from meibo.providers.auth0.fields import DEFAULT_FIELDS, check_fields
from meibo.providers.auth0.location import DEFAULT_LOCATION_HOSTS, check_location_hosts
from meibo.providers.configuration import ExportModel, SourceModel
from meibo.providers.datasets import DEFAULT_JOB_DEADLINE_SECONDS
from meibo.validation import StrictModel, pattern_field

ORGANIZATION_ID: Final = "^org_[A-Za-z0-9]{16}$"
ConnectionId = Annotated[
    str,
    pattern_field(
        pattern=r"^con_[A-Za-z0-9]{16}$",
        description="Id of a connection: con_ and 16 alphanumeric characters",
        expected="the id of a connection, such as con_0123456789abcdef",
    ),
]
OrganizationId = Annotated[
    str,
    pattern_field(
        pattern=ORGANIZATION_ID,
        description="Id of an organization: org_ and 16 alphanumeric characters",
        expected="the id of an organization, such as org_0123456789abcdef",
    ),
]


class ExportField(StrictModel):
    """One field of an Auth0 users export."""

    name: Annotated[str, Field(min_length=1, max_length=100, description="For example email or user_metadata.country")]
    export_as: Annotated[str | None, Field(min_length=1, max_length=100, description="Its name in the file")] = None


class Auth0UsersExport(ExportModel):
    """Users of one Auth0 tenant: of one connection, of the connections of an organization, or of all connections."""

    dataset: Literal["users"]
    format: Literal["ndjson", "csv"] = "ndjson"
    connection_id: ConnectionId | None = None
    organization_id: Annotated[
        OrganizationId | None, Field(description="Every enabled connection of this organization, with one export each")
    ] = None
    limit: Annotated[
        int | None, Field(ge=1, strict=True, description="Maximum number of users; all users if absent")
    ] = None
    fields: Annotated[
        list[str | ExportField] | None, Field(min_length=1, description="Every exportable field if absent")
    ] = None

    @model_validator(mode="after")
    def _check(self) -> Auth0UsersExport:
        if self.connection_id and self.organization_id:
            raise ValueError("expected connection_id or organization_id, found both; remove one of them")
        check_fields(self.format, self.request_fields())
        return self

    @property
    def scope(self) -> str:
        """The part of the tenant that the export covers. An organization is later resolved to its connections."""
        return self.connection_id or self.organization_id or "all"

    def request_fields(self) -> list[dict[str, str]]:
        """Return the fields as objects with ``name`` and optionally ``export_as``."""
        if self.fields is None:
            return [dict(field) for field in DEFAULT_FIELDS[self.format]]
        return [
            {"name": field} if isinstance(field, str) else field.model_dump(exclude_none=True) for field in self.fields
        ]


class Auth0ListExport(ExportModel):
    """A list of one Auth0 tenant.

    The lists are the organizations with their enabled connections, the members of every organization, the roles with
    their permissions, and the direct assignments of roles to users.
    """

    dataset: Literal["organizations", "members", "roles", "role_members"]
    format: Literal["ndjson"] = "ndjson"


Auth0Export = Auth0UsersExport | Auth0ListExport


class Auth0Source(SourceModel):
    """One Auth0 tenant."""

    provider: Literal["auth0"]
    domain: Annotated[
        str,
        pattern_field(
            pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?$",
            description="Host name of the tenant or its custom domain, for example acme.jp.auth0.com",
            expected="a host name such as acme.jp.auth0.com",
        ),
    ]
    audience: Annotated[
        str | None,
        pattern_field(
            pattern=r"^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?/api/v2/$",
            description="Identifier of the Management API; needed only if domain is a custom domain.",
            expected="the Management API of the tenant, such as https://acme.jp.auth0.com/api/v2/",
        ),
    ] = None
    exports: Annotated[list[Annotated[Auth0Export, Field(discriminator="dataset")]], Field(min_length=1)]
    location_hosts: Annotated[
        tuple[str, ...],
        AfterValidator(check_location_hosts),
        Field(min_length=1, description="Hosts of finished jobs' files, such as *.s3.us-east-2.amazonaws.com"),
    ] = DEFAULT_LOCATION_HOSTS
    job_deadline_seconds: Annotated[
        int, Field(ge=60, le=82_800, strict=True, description="A job that is not finished after this time is replaced.")
    ] = DEFAULT_JOB_DEADLINE_SECONDS

    @property
    def endpoint(self) -> str:
        return self.domain
