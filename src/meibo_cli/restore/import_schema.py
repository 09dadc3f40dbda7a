"""An exported Auth0 user as the import schema takes it.

https://auth0.com/docs/manage-users/user-migration/bulk-user-import-database-schema-and-examples
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

PREFIX: Final = "auth0|"

# What the import takes and an export can hold; password hashes and MFA factors are in no export.
IMPORTABLE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("email", "phone_number", "username", "given_name", "family_name"), str),
    **dict.fromkeys(("name", "nickname", "picture"), str),
    **dict.fromkeys(("email_verified", "phone_verified", "blocked"), bool),
    **dict.fromkeys(("app_metadata", "user_metadata"), dict),
}
# What app_metadata must not hold, as the same page says.
FORBIDDEN_APP_METADATA: Final = frozenset(
    {
        *("__tenant", "_id", "blocked", "clientID", "created_at", "email_verified", "email", "globalClientID"),
        *("global_client_id", "identities", "lastIP", "lastLogin", "loginsCount", "metadata"),
        *("multifactor_last_modified", "multifactor", "updated_at", "user_id"),
    }
)
_METADATA_PART: Final = re.compile(r"(app_metadata|user_metadata)\.(.+)")
_BOOLEANS: Final = {"true": True, "false": False}

Apart = Literal[
    "no e-mail address",
    "another connection",
    "no user id",
    "too large for a file",
    "nested too deeply",
    "number out of range",
    "not UTF-8",
    "not JSON",
]


@dataclass
class LeftOut:
    """What could not be taken along: fields by name, and users by the reason that they stand apart."""

    fields: Counter[str] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Converter:
    """Turns rows of one export into users to import.

    ``names`` is what each field is called in the file. Of a CSV the values are text without Auth0's apostrophe.
    ``connection`` leaves only the users of the connection with this name, where the export tells connections.
    """

    names: Mapping[str, str]
    text_only: bool
    left_out: LeftOut
    connection: str | None = None

    def convert(self, row: Mapping[str, Any]) -> dict[str, Any] | Apart:
        """Return the user, or why this one stands apart."""
        fields = {name: row[output] for name, output in self.names.items() if output in row}
        user_id = fields.pop("user_id", None)
        if not isinstance(user_id, str) or not user_id:
            return "no user id"
        if not user_id.startswith(PREFIX) or not self._of_connection(fields):
            return "another connection"
        email = fields.get("email")
        if not isinstance(email, str) or not email:
            return "no e-mail address"
        # Auth0 puts the prefix before whatever it is given. An id that has it twice had it once before.
        user: dict[str, Any] = {"user_id": user_id.removeprefix(PREFIX)}
        # An export may have user_metadata.a and user_metadata.a.b: what is further inside comes later and is merged.
        for name in sorted(fields, key=lambda name: name.count(".")):
            self._take(user, name, fields[name])
        return user

    def _of_connection(self, fields: Mapping[str, Any]) -> bool:
        found = set(connections(fields))
        return self.connection is None or not found or self.connection in found

    def _take(self, user: dict[str, Any], name: str, value: Any) -> None:
        if value is None or (self.text_only and value == ""):
            return
        part = _METADATA_PART.fullmatch(name)
        if part and "[" not in part[2]:
            root, path = part[1], part[2].split(".")
            if self._allowed(root, path[0]):
                inner = user.setdefault(root, {})
                for place, step in enumerate(path[:-1], 1):
                    if not isinstance(inner.setdefault(step, {}), dict):
                        self.left_out.fields[f"{root}.{'.'.join(path[:place])} (not an object)"] += 1
                        inner[step] = {}
                    inner = inner[step]
                inner[path[-1]] = value
            return
        kind = IMPORTABLE.get(name)
        if kind is None:
            self.left_out.fields[name] += 1
            return
        if kind is bool and self.text_only:
            value = _BOOLEANS.get(str(value).lower(), value)
        if not isinstance(value, kind):
            self.left_out.fields[f"{name} (not a {_KINDS[kind]})"] += 1
            return
        if name == "app_metadata" and isinstance(value, dict):
            value = {inner: value[inner] for inner in value if self._allowed(name, inner)}
        user[name] = value

    def _allowed(self, root: str, name: str) -> bool:
        refused = root == "app_metadata" and name in FORBIDDEN_APP_METADATA
        if refused:
            self.left_out.fields[f"app_metadata.{name}"] += 1
        return not refused


_KINDS: Final = {str: "text", bool: "yes or no", dict: "object"}


def connections(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the Auth0 database connections that a row tells of, if it tells any."""
    identities = fields.get("identities")
    for identity in identities if isinstance(identities, list) else ():
        if isinstance(identity, dict) and identity.get("provider") == "auth0":
            name = identity.get("connection")
            if isinstance(name, str):
                yield name
    name = fields.get("identities[0].connection")
    if isinstance(name, str):
        yield name
