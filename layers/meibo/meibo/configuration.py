"""The sources document: which directories are exported, and how.

One JSON document lists the sources; secrets are named, never inlined. The JSON Schema that is generated from
these models is kept in ``docs/configuration.schema.json``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from meibo.errors import ConfigurationError
from meibo.providers.auth0.fields import DEFAULT_FIELDS, check_fields

# The largest 64-bit integer has 19 digits; no setting needs more.
MAX_INTEGER_DIGITS = 19

_FORMS: dict[str, str] = {}


def _formed(*, pattern: str, description: str) -> Any:
    """Return the field of a text whose form is told in words where it does not fit."""
    _FORMS[pattern] = description
    return Field(pattern=pattern, description=description)


Name = Annotated[
    str,
    _formed(
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="Lower-case letters, digits and hyphens; part of every key in the bucket.",
    ),
]
SecretName = Annotated[
    str,
    _formed(
        pattern=r"^[A-Za-z0-9/_+=.@-]{1,512}$",
        description="Name of the Secrets Manager secret that holds the credentials.",
    ),
]
ConnectionId = Annotated[
    str, _formed(pattern=r"^con_[A-Za-z0-9]{16}$", description="Id of a connection: con_ and sixteen letters or digits")
]
OrganizationId = Annotated[
    str,
    _formed(pattern=r"^org_[A-Za-z0-9]{16}$", description="Id of an organization: org_ and sixteen letters or digits"),
]
UserId = Annotated[str, _formed(pattern=r"^\d{1,19}$", description="Id of a user, a number")]


def _is_date(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError:
        raise ValueError("expected a date of the calendar such as 2026-11-21; correct month and day") from None
    return value


Date = Annotated[
    str,
    _formed(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description="A date such as 2026-11-21"),
    AfterValidator(_is_date),
]

CSV_ONLY = Literal["titles", "user_organizations", "user_groups", "user_services"]


class _Model(BaseModel):
    # hide_input_in_errors: a secret pasted into the wrong place must not come back in a message.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ExportField(_Model):
    """One field of an Auth0 users export."""

    name: Annotated[str, Field(min_length=1, max_length=100, description="For example email or user_metadata.country")]
    export_as: Annotated[str | None, Field(min_length=1, max_length=100, description="Its name in the file")] = None


class _Export(_Model):
    accept_from: Annotated[
        Date | None,
        Field(
            description="Date (UTC) from which the number of rows is accepted: earlier exports are not compared with."
        ),
    ] = None


class Auth0UsersExport(_Export):
    """Users of one Auth0 tenant: of one connection, of an organization's connections, or of all."""

    dataset: Literal["users"]
    format: Literal["ndjson", "csv"] = "ndjson"
    connection_id: ConnectionId | None = None
    organization_id: Annotated[
        OrganizationId | None, Field(description="Every connection enabled for it, one export each")
    ] = None
    limit: Annotated[int | None, Field(ge=1, strict=True, description="At most so many users; all where absent")] = None
    fields: Annotated[
        list[str | ExportField] | None, Field(min_length=1, description="A predefined set where absent")
    ] = None

    @model_validator(mode="after")
    def _one_scope(self) -> Auth0UsersExport:
        if self.connection_id and self.organization_id:
            raise ValueError("give connection_id or organization_id, not both")
        return self

    @model_validator(mode="after")
    def _fields_that_auth0_accepts(self) -> Auth0UsersExport:
        try:
            check_fields(self.format, self.request_fields())
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def scope(self) -> str:
        """The part of the tenant that this export covers; an organization stands for its connections."""
        return self.connection_id or self.organization_id or "all"

    def request_fields(self) -> list[dict[str, str]]:
        """Return the fields as Auth0's request spells them: ``name`` and, where given, ``export_as``."""
        if self.fields is None:
            return [dict(field) for field in DEFAULT_FIELDS[self.format]]
        return [
            {"name": field}
            if isinstance(field, str)
            else {key: value for key, value in field.model_dump().items() if value is not None}
            for field in self.fields
        ]


class Auth0OrganizationsExport(_Export):
    """Every organization of the tenant, each with its enabled connections."""

    dataset: Literal["organizations"]
    format: Literal["ndjson"] = "ndjson"
    scope: ClassVar[str] = "all"


class Auth0MembersExport(_Export):
    """Every member of every organization of the tenant, with roles where the token may read them."""

    dataset: Literal["members"]
    format: Literal["ndjson"] = "ndjson"
    scope: ClassVar[str] = "all"


class CybozuUsersExport(_Export):
    """Users of one cybozu.com domain."""

    dataset: Literal["users"]
    format: Literal["csv", "ndjson"] = "csv"
    ids: Annotated[list[UserId] | None, Field(min_length=1)] = None
    codes: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]] | None, Field(min_length=1)] = None

    @model_validator(mode="after")
    def _one_filter(self) -> CybozuUsersExport:
        if self.ids and self.codes:
            raise ValueError("give ids or codes, not both: cybozu.com refuses a request with both")
        if self.format == "csv" and (self.ids or self.codes):
            raise ValueError("ids and codes filter the ndjson format only; user.csv is always the whole directory")
        return self

    @property
    def scope(self) -> str:
        """The part of the domain that this export covers.

        A filtered export is not the directory: it must not be compared with one, nor taken for one.
        """
        return "selected" if self.ids or self.codes else "all"


class CybozuListExport(_Export):
    """Organizations or groups of one cybozu.com domain."""

    dataset: Literal["organizations", "groups"]
    format: Literal["csv", "ndjson"] = "csv"
    scope: ClassVar[str] = "all"


class CybozuCsvExport(_Export):
    """What cybozu.com lists as CSV only: titles, and which user has which organizations, groups and services."""

    dataset: CSV_ONLY
    format: Literal["csv"] = "csv"
    scope: ClassVar[str] = "all"


class CybozuMembersExport(_Export):
    """Members of every organization and group, for domains without the CSV API, such as kintone.com."""

    dataset: Literal["members"]
    format: Literal["ndjson"] = "ndjson"
    scope: ClassVar[str] = "all"


class CybozuDirectoryExport(_Export):
    """Short for every dataset of a domain that there is in the format, users among them."""

    dataset: Literal["directory"]
    format: Literal["csv", "ndjson"] = "csv"

    def datasets(self) -> list[CybozuExport]:
        """Return the exports that this one is short for."""
        accepted = self.accept_from
        users = CybozuUsersExport(dataset="users", format=self.format, accept_from=accepted)
        lists = [
            CybozuListExport(dataset=name, format=self.format, accept_from=accepted)
            for name in ("organizations", "groups")
        ]
        if self.format == "ndjson":
            return [users, *lists, CybozuMembersExport(dataset="members", accept_from=accepted)]
        titles, *belongings = (CybozuCsvExport(dataset=name, accept_from=accepted) for name in get_args(CSV_ONLY))
        return [users, lists[0], titles, lists[1], *belongings]


Auth0Export = Auth0UsersExport | Auth0OrganizationsExport | Auth0MembersExport
CybozuExport = CybozuUsersExport | CybozuListExport | CybozuCsvExport | CybozuMembersExport
AnyExport = Auth0Export | CybozuExport


class Auth0Source(_Model):
    """One Auth0 tenant."""

    provider: Literal["auth0"]
    name: Name
    domain: Annotated[
        str,
        _formed(
            pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?$",
            description="Host name of the tenant, without https://, for example acme.jp.auth0.com",
        ),
    ]
    secret: SecretName
    exports: Annotated[list[Annotated[Auth0Export, Field(discriminator="dataset")]], Field(min_length=1)]

    def exports_by_entry(self) -> list[list[Auth0Export]]:
        """Return, for each entry of ``exports``, the exports that it means."""
        return [[entry] for entry in self.exports]


class CybozuSource(_Model):
    """One cybozu.com domain."""

    provider: Literal["cybozu"]
    name: Name
    base_url: Annotated[
        str,
        _formed(
            pattern=r"^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?$",
            description="For example https://example.cybozu.com, without a path",
        ),
    ]
    secret: SecretName
    exports: Annotated[
        list[Annotated[CybozuExport | CybozuDirectoryExport, Field(discriminator="dataset")]], Field(min_length=1)
    ]

    def exports_by_entry(self) -> list[list[CybozuExport]]:
        """Return, for each entry of ``exports``, the exports that it means."""
        return [entry.datasets() if isinstance(entry, CybozuDirectoryExport) else [entry] for entry in self.exports]

    @field_validator("base_url", mode="before")
    @classmethod
    def _without_slash(cls, value: Any) -> Any:
        return value.removesuffix("/") if isinstance(value, str) else value


Source = Annotated[Auth0Source | CybozuSource, Field(discriminator="provider")]


class Configuration(_Model):
    """The whole document."""

    sources: Annotated[list[Source], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_once(self) -> Configuration:
        first: dict[str, int] = {}
        for index, source in enumerate(self.sources):
            if source.name in first:
                raise ValueError(
                    f"sources[{index}].name: {source.name!r} is the name of sources[{first[source.name]}] already;"
                    " names are part of the keys in the bucket, so each must be used once"
                )
            first[source.name] = index
        return self

    @model_validator(mode="after")
    def _keys_once(self) -> Configuration:
        for index, source in enumerate(self.sources):
            first: dict[tuple[str, str, str], int] = {}
            entries: Sequence[Sequence[AnyExport]] = source.exports_by_entry()
            for position, export in ((number, export) for number, entry in enumerate(entries) for export in entry):
                identity = (export.dataset, export.format, export.scope)
                if identity in first:
                    raise ValueError(
                        f"sources[{index}].exports[{position}]: has the dataset, format and scope"
                        f" ({', '.join(identity)}) of exports[{first[identity]}] of the same source, so both would"
                        " write the same key"
                    )
                first[identity] = position
        return self

    def source(self, name: str) -> Auth0Source | CybozuSource | None:
        """Return the source of that name, or None where it is not configured (any more)."""
        return next((source for source in self.sources if source.name == name), None)


def parse_configuration(text: str) -> Configuration:
    """Parse the sources document, raising one ConfigurationError that names the path of every fault."""
    try:
        document = json.loads(text, object_pairs_hook=_json_object, parse_int=_json_integer)
        faults = list(_json_faults(document))
    except (json.JSONDecodeError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigurationError(f"the configuration is not valid JSON{where}") from None
    if not faults:
        try:
            return Configuration.model_validate(document)
        except ValidationError as error:
            faults = [_describe(fault) for fault in error.errors(include_input=False)]
    raise ConfigurationError("the configuration is not valid: " + "; ".join(faults))


def parse_documents(documents: Mapping[str, str]) -> Configuration:
    """Parse a configuration of one or more sources documents, given by the names of their SSM parameters.

    Raises one ConfigurationError that names the parameter and the path of every fault, and both parameters if a
    source's name is in two of them.
    """
    sources: list[Auth0Source | CybozuSource] = []
    parameter_of: dict[str, str] = {}
    faults: list[str] = []
    for parameter, text in documents.items():
        try:
            configuration = parse_configuration(text)
        except ConfigurationError as error:
            faults.append(f"SSM parameter {parameter}: {error}")
            continue
        for source in configuration.sources:
            first = parameter_of.setdefault(source.name, parameter)
            if first != parameter:
                faults.append(
                    f"SSM parameters {first} and {parameter}: expected each source's name once, found {source.name!r}"
                    " in both; rename or remove one of the two sources"
                )
        sources += configuration.sources
    if faults:
        raise ConfigurationError("; ".join(faults))
    return Configuration(sources=sources)


class _RepeatedKeys(dict[str, Any]):
    """A JSON object in which keys are repeated; ``repeated`` lists them."""

    repeated: tuple[str, ...]


@dataclass(frozen=True)
class _OversizedInteger:
    """A JSON integer that is too long for any setting. Python refuses to convert more than 4,300 digits."""

    digits: int


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(key for key, _ in pairs)
    if len(counts) == len(pairs):
        return dict(pairs)
    document = _RepeatedKeys(pairs)
    document.repeated = tuple(key for key, count in counts.items() if count > 1)
    return document


def _json_integer(literal: str) -> int | _OversizedInteger:
    digits = len(literal.removeprefix("-"))
    return int(literal) if digits <= MAX_INTEGER_DIGITS else _OversizedInteger(digits)


def _json_faults(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, _OversizedInteger):
        yield (
            f"{path or 'the document'}: expected an integer of at most {MAX_INTEGER_DIGITS} digits, found one of"
            f" {value.digits:,} digits"
        )
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _json_faults(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        repeated = value.repeated if isinstance(value, _RepeatedKeys) else ()
        for key, item in value.items():
            step = f"{path}.{key}" if path else key
            if key in repeated:
                yield f"{step}: expected the key once, found it more than once; remove the others"
            yield from _json_faults(item, step)


def configuration_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the sources document."""
    schema = Configuration.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Meibo configuration",
        **{key: value for key, value in schema.items() if key != "title"},
    }


# Labels that pydantic puts into a location for the chosen member of a union; they are not part of the document.
_UNION_LABELS = frozenset(
    {
        *("auth0", "cybozu", "str", "ExportField"),
        *("users", "organizations", "members", "groups", "directory", *get_args(CSV_ONLY)),
    }
)


def _describe(fault: ErrorDetails) -> str:
    path = ""
    for step in fault["loc"]:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step not in _UNION_LABELS:
            path += f".{step}" if path else step
    kind = fault["type"]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        key = fault["ctx"]["discriminator"].strip("'")
        known = fault["ctx"].get("expected_tags", "'auth0', 'cybozu'" if key == "provider" else "")
        return f"{path}.{key}: must be {' or '.join(known.rsplit(', ', 1))}" if known else f"{path}.{key}: is missing"
    if kind == "extra_forbidden":
        return f"{path}: is not a known key; remove it or check its spelling"
    if kind == "missing":
        return f"{path}: is missing"
    if kind == "string_pattern_mismatch" and (form := _FORMS.get(fault["ctx"]["pattern"])):
        return f"{path}: does not have the form of what belongs there ({form.rstrip('.')})"
    message = fault["msg"].removeprefix("Value error, ")
    if message.startswith("sources["):
        return message
    return f"{path or 'the document'}: {message[0].lower()}{message[1:]}"
