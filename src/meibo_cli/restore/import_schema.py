"""Convert an exported Auth0 user to the schema of an import.

https://auth0.com/docs/manage-users/user-migration/bulk-user-import-database-schema-and-examples
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, Literal

from meibo.errors import ConfigurationError
from meibo_cli.encoding import parse_json

PREFIX: Final = "auth0|"

# The fields of the schema that an export can contain. Password hashes and MFA factors are never exported.
IMPORTABLE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("email", "phone_number", "username", "given_name", "family_name"), str),
    **dict.fromkeys(("name", "nickname", "picture"), str),
    **dict.fromkeys(("email_verified", "phone_verified", "blocked"), bool),
    **dict.fromkeys(("app_metadata", "user_metadata"), dict),
}
# The only fields that an update changes:
# https://auth0.com/docs/manage-users/user-migration/bulk-user-import-database-schema-and-examples
UPDATED: Final = frozenset(
    {
        *("app_metadata", "user_metadata", "email_verified", "family_name", "given_name", "name", "nickname"),
        "picture",
    }
)
# The schema does not allow these names in app_metadata.
FORBIDDEN_APP_METADATA: Final = frozenset(
    {
        *("__tenant", "_id", "blocked", "clientID", "created_at", "email_verified", "email", "globalClientID"),
        *("global_client_id", "identities", "lastIP", "lastLogin", "loginsCount", "metadata"),
        *("multifactor_last_modified", "multifactor", "updated_at", "user_id"),
    }
)
METADATA: Final = ("user_metadata", "app_metadata")
_METADATA_PART: Final = re.compile(r"(app_metadata|user_metadata)\.(.+)")
# The schema of Auth0 is stricter. Auth0 reports other invalid addresses as failed.
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")
# password_hash accepts bcrypt hashes with 10 salt rounds. Other bcrypt hashes are imported as custom_password_hash:
# https://auth0.com/docs/manage-users/user-migration/bulk-user-import-database-schema-and-examples
_PASSWORD_HASH: Final = re.compile(r"\$2[ab]\$10\$[./A-Za-z0-9]{53}")
_BCRYPT: Final = re.compile(r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}")
_BOOLEANS: Final = {"true": True, "false": False}
_TYPE_NAMES: Final = {str: "a string", bool: "a boolean", dict: "an object"}

SkipReason = Literal[
    "no e-mail address",
    "invalid e-mail address",
    "e-mail address of another user",
    "another connection",
    "no user id",
    "too large",
    "changed since the expected run",
    "already restored",
    "nested too deeply",
    "number out of range",
    "not UTF-8",
    "not JSON",
]


Loss = Literal[
    "linked accounts",
    "metadata of a user without a database connection",
    "blocked state of a user without a database connection",
]


@dataclass
class Skipped:
    """The numbers of skipped users by reason, and of users with values that are not restored, by field and by kind."""

    users: Counter[SkipReason] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    losses: Counter[Loss] = field(default_factory=Counter)


@dataclass(frozen=True)
class Converter:
    """Converts the rows of an export.

    ``names`` maps the name of a field in Auth0 to its name in the file. If ``text_only`` is true, all values are
    strings, as in a CSV file. With ``connection``, users of other connections are skipped.
    """

    names: Mapping[str, str]
    text_only: bool
    skipped: Skipped
    connection: str | None = None
    connections: Counter[str] = field(default_factory=Counter)
    """The numbers of users of each database connection."""
    _addresses: set[str] = field(default_factory=set, repr=False)

    def convert(self, row: Mapping[str, Any]) -> dict[str, Any] | SkipReason:
        """Return the user, or the reason why the user cannot be imported."""
        fields = {name: row[output] for name, output in self._names_by_depth if row.get(output) is not None}
        user_id = fields.pop("user_id", None)
        if not isinstance(user_id, str) or not user_id:
            return "no user id"
        if not user_id.startswith(PREFIX):
            self._count_losses(fields)
            return "another connection"
        connection = primary_connection(user_id, fields)
        if connection is not None:
            self.connections[connection] += 1
        if self.connection is not None and connection != self.connection:
            return "another connection"
        if reason := self._check_email(connection, fields.get("email")):
            return reason
        identities = fields.get("identities")
        self.skipped.losses["linked accounts"] += isinstance(identities, list) and len(identities) > 1
        # An import adds the prefix to each id. A second prefix is part of the id.
        user: dict[str, Any] = {"user_id": user_id.removeprefix(PREFIX)}
        for name, value in fields.items():
            if not self.text_only or value != "":
                self._add(user, name, value)
        for name in METADATA:
            # An export omits fields without a value. An update must then remove the current metadata of the user.
            if name in self.names and name not in fields:
                user.setdefault(name, {})
        return user

    @cached_property
    def _names_by_depth(self) -> list[tuple[str, str]]:
        # An export may contain both user_metadata.a and user_metadata.a.b. The second field is merged into the first.
        return sorted(self.names.items(), key=lambda item: item[0].count("."))

    def _check_email(self, connection: str | None, email: Any) -> SkipReason | None:
        if not isinstance(email, str) or not email:
            return "no e-mail address"
        if not _EMAIL.fullmatch(email):
            return "invalid e-mail address"
        # Auth0 stores addresses in lower case. Importing a second user with the address would fail or change the first.
        address = f"{connection} {email.lower()}"
        if address in self._addresses:
            return "e-mail address of another user"
        self._addresses.add(address)
        return None

    def _count_losses(self, fields: Mapping[str, Any]) -> None:
        has_metadata = any(fields[name] for name in fields if name.startswith(METADATA))
        self.skipped.losses["metadata of a user without a database connection"] += has_metadata
        is_blocked = str(fields.get("blocked")).lower() == "true"
        self.skipped.losses["blocked state of a user without a database connection"] += is_blocked

    def _add(self, user: dict[str, Any], name: str, value: Any) -> None:
        kind = IMPORTABLE.get(name)
        if kind is None:
            if path := _metadata_path(name):
                self._add_metadata(user, path[0], path[1:], value)
            else:
                self.skipped.fields[name] += 1
            return
        if kind is bool and self.text_only:
            value = _BOOLEANS.get(str(value).lower(), value)
        if not isinstance(value, kind):
            self.skipped.fields[f"{name} (not {_TYPE_NAMES[kind]})"] += 1
            return
        if isinstance(value, dict) and name == "app_metadata" and not FORBIDDEN_APP_METADATA.isdisjoint(value):
            value = {inner: value[inner] for inner in value if self._is_allowed(name, inner)}
        user[name] = value

    def _add_metadata(self, user: dict[str, Any], root: str, path: Sequence[str], value: Any) -> None:
        if not self._is_allowed(root, path[0]):
            return
        metadata = user.setdefault(root, {})
        for depth, name in enumerate(path[:-1], 1):
            if not isinstance(metadata.setdefault(name, {}), dict):
                self.skipped.fields[f"{root}.{'.'.join(path[:depth])} (not an object)"] += 1
                metadata[name] = {}
            metadata = metadata[name]
        metadata[path[-1]] = value

    def _is_allowed(self, root: str, name: str) -> bool:
        is_forbidden = root == "app_metadata" and name in FORBIDDEN_APP_METADATA
        if is_forbidden:
            self.skipped.fields[f"app_metadata.{name}"] += 1
        return not is_forbidden


@cache
def _metadata_path(name: str) -> tuple[str, ...]:
    """Return the path of a metadata field, such as ``user_metadata.a.b``, or () for another field."""
    part = _METADATA_PART.fullmatch(name)
    return (part[1], *part[2].split(".")) if part and "[" not in part[2] else ()


def primary_connection(user_id: str, fields: Mapping[str, Any]) -> str | None:
    """Return the name of the connection of a user's primary identity, or None if the row does not contain it.

    A user id consists of the provider and the id of the primary identity. All other identities are linked accounts.
    """
    identities = fields.get("identities")
    rows = [identity for identity in identities if isinstance(identity, dict)] if isinstance(identities, list) else []
    # Auth0 lists the primary identity first.
    name = rows[0].get("connection") if rows else fields.get("identities[0].connection")
    for row in rows:
        if f"{row.get('provider')}|{row.get('user_id')}" == user_id:
            name = row.get("connection")
            break
    return name if isinstance(name, str) else None


# -- password hashes and MFA factors

UserSecrets = Mapping[str, Any]


def read_user_secrets(path: Path) -> dict[str, UserSecrets]:
    """Return ``password_hash``, ``custom_password_hash`` and ``mfa_factors`` by user id without the prefix ``auth0|``.

    Raises ConfigurationError if the file does not exist or a line is invalid. The message contains the number of the
    line, but no value.
    """
    secrets: dict[str, UserSecrets] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    user_id, fields = _secrets(line, f"--hashes: line {number} of {path}")
                    if user_id in secrets:
                        raise ConfigurationError(
                            f"--hashes: line {number} of {path}: expected one line per user, found a second"
                            " line of this user"
                        )
                    secrets[user_id] = fields
    except FileNotFoundError:
        raise ConfigurationError(f"--hashes: the file {path} does not exist") from None
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"--hashes: expected NDJSON in {path}, found binary data; decrypt the file first"
        ) from None
    return secrets


def _secrets(line: str, name: str) -> tuple[str, UserSecrets]:
    try:
        row = parse_json(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ConfigurationError(f"{name}: expected a JSON object, found another value")
    internal_id = row.get("_id")
    user_id = row.get("user_id") or row.get("alt_id") or (isinstance(internal_id, dict) and internal_id.get("$oid"))
    if not isinstance(user_id, str):
        raise ConfigurationError(f"{name}: expected the user in user_id, alt_id or _id.$oid, found none")
    fields = {key: row[key] for key in ("custom_password_hash", "mfa_factors") if key in row}
    value = row.get("passwordHash", row.get("password_hash"))
    if isinstance(value, str) and _PASSWORD_HASH.fullmatch(value):
        fields["password_hash"] = value
    elif isinstance(value, str) and _BCRYPT.fullmatch(value):
        fields["custom_password_hash"] = {"algorithm": "bcrypt", "hash": {"value": value}}
    elif value is not None:
        raise ConfigurationError(f"{name}: expected a bcrypt hash in passwordHash, found another value")
    if not fields:
        raise ConfigurationError(f"{name}: expected passwordHash, custom_password_hash or mfa_factors, found none")
    return user_id.removeprefix(PREFIX), fields
