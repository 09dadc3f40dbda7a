"""The restorable values of archived rows, with keys that are the same in every tenant.

The ids of roles, organizations and connections differ between tenants, so rows refer to them by name. The ids of users
of database connections are the same, because an import preserves them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from meibo.archive.manifest import ArchivedExport
from meibo.errors import ConfigurationError
from meibo_cli.encoding import json_bytes
from meibo_cli.restore.archived_rows import DatasetRows, UnreadableUser, archived_users
from meibo_cli.restore.directory_plan import PLURALS, Kind
from meibo_cli.restore.directory_planner import (
    CONNECTION_OPTIONS,
    MEMBERS,
    ORGANIZATION_PROPERTIES,
    ORGANIZATIONS,
    ROLE_MEMBERS,
    ROLE_PROPERTIES,
    ROLES,
    role_permissions,
)
from meibo_cli.restore.import_files import is_too_large
from meibo_cli.restore.import_schema import IMPORTABLE, PREFIX, Converter, Skipped, primary_connection

USERS: Final = "users"
USER_FIELDS: Final = ("user_id", *IMPORTABLE, "identities")
# Auth0 generates these values if an import does not contain them.
_GENERATED: Final = ("name", "nickname", "picture")
_NO_DATABASE: Final = "an import accepts only users of database connections"
_NO_CONNECTION: Final = "the tenant has no database connection with this name"

# The kind of an object, and the archived ids of its organization, role, connection and user. An id is empty if the
# object has none.
Reference = tuple[Kind, str, str, str, str]
Omitted = Counter[tuple[str, str]]
"""Numbers of rows, or parts of rows, that cannot be restored, by their name in the report and the reason."""


@dataclass(frozen=True)
class RestorableRow:
    """A row. ``key`` identifies it in its dataset."""

    key: str = field(repr=False)
    values: Mapping[str, Any] = field(repr=False)

    def line(self) -> bytes:
        """Return the row as a line of NDJSON whose first member is the key."""
        return json_bytes({"key": self.key, **self.values}) + b"\n"


def users_exports(rows: DatasetRows) -> list[ArchivedExport]:
    """Return the users exports of a run that contain each user once: one of all connections, or one per connection."""
    exports = rows.exports(USERS)
    for format_name in ("ndjson", "csv"):
        of_format = [export for export in exports if export.folder.address.format == format_name]
        if of_format:
            return [export for export in of_format if export.folder.address.scope == "all"] or of_format
    return []


def user_connections(rows: DatasetRows, export: ArchivedExport) -> list[str]:
    """Return the names of the database connections of the users in an export.

    Raises ConfigurationError if the export does not contain the connections.
    """
    names: set[str] = set()
    with archived_users(rows.reader, export) as archived:
        if not {"identities", "identities[0].connection"} & archived.names.keys():
            raise ConfigurationError(
                f"{export.export_id} does not contain the connections of its users; add the field identities to the"
                " export and start a new run"
            )
        for row in archived.rows:
            if isinstance(row, Mapping):
                user_id, connection = _identity(row, archived.names)
                if user_id.startswith(PREFIX) and connection is not None:
                    names.add(connection)
    return sorted(names)


def _identity(row: Mapping[str, Any], names: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the id and the connection of a user."""
    fields = {name: row.get(output) for name, output in names.items()}
    user_id = str(fields.get("user_id") or "")
    return user_id, primary_connection(user_id, fields)


@dataclass
class RestorableUsers:
    """The users of a run. ``connections`` are the names of the database connections of the tenant."""

    rows: DatasetRows
    connections: Collection[str]
    omitted: Omitted
    skipped: Skipped
    # The fields of the exports.
    _fields: set[str] = field(default_factory=set)
    # The fields that an archived user does not have and Auth0 generates, by key.
    _generated: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def archived(self) -> Iterator[RestorableRow]:
        """Yield the users of the run."""
        for export in users_exports(self.rows):
            with archived_users(self.rows.reader, export) as archived:
                self._fields |= {name.partition(".")[0] for name in archived.names}
                converter = Converter(names=archived.names, text_only=archived.text_only, skipped=self.skipped)
                for row in archived.rows:
                    if isinstance(row, UnreadableUser):
                        self.omitted[USERS, row.reason] += 1
                    else:
                        yield from self._archived_user(converter, row)

    def _archived_user(self, converter: Converter, row: Mapping[str, Any]) -> Iterator[RestorableRow]:
        user_id, connection = _identity(row, converter.names)
        group = USERS if connection is None else users_of(connection)
        user = converter.convert(row)
        if not isinstance(user, dict):
            self.omitted[group, _NO_DATABASE if user == "another connection" else user] += 1
        elif connection not in self.connections:
            self.omitted[group, _NO_CONNECTION] += 1
        elif is_too_large(json_bytes(user)):
            self.omitted[group, "too large"] += 1
        else:
            restorable = _restorable_user(str(connection), user_id, user)
            generated = tuple(name for name in _GENERATED if name not in restorable.values)
            if generated:
                self._generated[restorable.key] = generated
            yield restorable

    def restored(self, live: DatasetRows) -> Iterator[RestorableRow]:
        """Yield the users of the tenant, with the fields that ``archived`` found in the run.

        A user of a database connection who cannot be imported, for example because another user has the same e-mail
        address, has no values.
        """
        names = {name: name for name in USER_FIELDS if name in self._fields or name in ("user_id", "identities")}
        for export in live.exports(USERS):
            with archived_users(live.reader, export) as archived:
                converter = Converter(names=names, text_only=False, skipped=Skipped())
                for row in archived.rows:
                    if isinstance(row, Mapping):
                        yield from self._restored_user(converter, row)

    def _restored_user(self, converter: Converter, row: Mapping[str, Any]) -> Iterator[RestorableRow]:
        user_id, connection = _identity(row, converter.names)
        user = converter.convert(row)
        if isinstance(user, dict):
            restorable = _restorable_user(str(connection), user_id, user)
            absent = self._generated.get(restorable.key, ())
            values = {name: restorable.values[name] for name in restorable.values if name not in absent}
            yield RestorableRow(restorable.key, values)
        elif user_id.startswith(PREFIX):
            yield RestorableRow(f"{connection} {user_id}", {})


def users_of(connection: str) -> str:
    """Return the name of the group in which the report of a drill counts the users of a connection."""
    return f"{USERS} of {connection}"


def connection_of(key: str) -> str:
    """Return the name of the connection in the key of a user. The name contains no spaces."""
    return key.partition(" ")[0]


def _restorable_user(connection: str, user_id: str, user: Mapping[str, Any]) -> RestorableRow:
    """Return the row of a converted user.

    Auth0 stores e-mail addresses in lower case. False and empty values are omitted, because they are the defaults.
    """
    values = {**user, "email": user["email"].lower()}
    return RestorableRow(f"{connection} {user_id}", {name: values[name] for name in values if values[name]})


@dataclass
class RestorableDirectory:
    """The roles, organizations and memberships of a run.

    ``impossible`` maps the objects that a plan cannot restore to the reasons. These objects are omitted and counted.
    """

    rows: DatasetRows
    omitted: Omitted = field(default_factory=Counter)
    impossible: Mapping[Reference, str] = field(default_factory=dict, repr=False)

    def of(self, dataset: str) -> Iterator[RestorableRow]:
        """Yield the rows of a dataset."""
        readers = {
            ROLES: self._roles,
            ORGANIZATIONS: self._organizations,
            ROLE_MEMBERS: self._role_members,
            MEMBERS: self._members,
        }
        return readers[dataset]()

    def _is_possible(
        self, noun: str, kind: Kind, *, organization: str = "", role: str = "", connection: str = "", user: str = ""
    ) -> bool:
        reason = self.impossible.get((kind, organization, role, connection, user))
        if reason is not None:
            self.omitted[noun, reason] += 1
        return reason is None

    @cached_property
    def _role_names(self) -> dict[str, str]:
        return {str(row["id"]): str(row.get("name")) for row in self.rows.rows(ROLES)}

    @cached_property
    def _organization_names(self) -> dict[str, str]:
        return {str(row["id"]): str(row.get("name")) for row in self.rows.rows(ORGANIZATIONS)}

    def _roles(self) -> Iterator[RestorableRow]:
        for row in self.rows.rows(ROLES):
            if self._is_possible(ROLES, "role", role=str(row["id"])):
                permissions = [" ".join(key) for key in sorted(role_permissions(row))]
                values = {**_properties(row, ROLE_PROPERTIES), "permissions": permissions}
                yield RestorableRow(str(row.get("name")), values)

    def _organizations(self) -> Iterator[RestorableRow]:
        for row in self.rows.rows(ORGANIZATIONS):
            identity = str(row["id"])
            if self._is_possible(ORGANIZATIONS, "organization", organization=identity):
                enabled = {
                    str((item.get("connection") or {}).get("name")): _properties(item, CONNECTION_OPTIONS)
                    for item in row.get("enabled_connections", ())
                    if self._is_possible(
                        PLURALS["connection"],
                        "connection",
                        organization=identity,
                        connection=str(item["connection_id"]),
                    )
                }
                values = {**_properties(row, ORGANIZATION_PROPERTIES), "enabled_connections": enabled}
                yield RestorableRow(str(row.get("name")), values)

    def _role_members(self) -> Iterator[RestorableRow]:
        for row in self.rows.rows(ROLE_MEMBERS):
            role, user = str(row["role_id"]), str(row["user_id"])
            if self._is_possible(ROLE_MEMBERS, "assignment", role=role, user=user):
                yield RestorableRow(f"{self._role_names.get(role, role)} {user}", {})

    def _members(self) -> Iterator[RestorableRow]:
        for row in self.rows.rows(MEMBERS):
            organization, user = str(row["organization_id"]), str(row["user_id"])
            if self._is_possible(MEMBERS, "membership", organization=organization, user=user):
                roles = [
                    str(item.get("name"))
                    for item in row.get("roles") or ()
                    if self._is_possible(
                        PLURALS["member_role"],
                        "member_role",
                        organization=organization,
                        role=str(item["id"]),
                        user=user,
                    )
                ]
                name = self._organization_names.get(organization, organization)
                yield RestorableRow(f"{name} {user}", {"roles": sorted(roles)})


def _properties(row: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return the properties that have a value."""
    return {name: row[name] for name in names if row.get(name)}
