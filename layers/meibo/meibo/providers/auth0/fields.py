"""Validate the profile fields of a users export before the request to Auth0.

https://auth0.com/docs/manage-users/user-migration/bulk-user-exports
https://auth0.com/docs/manage-users/user-accounts/user-profiles/user-profile-structure
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

MAX_CSV_FIELDS: Final = 30
MAX_NAME_LENGTH: Final = 100
METADATA: Final = ("app_metadata", "user_metadata")
# The fields whose parts can be exported, for example identities[0].connection.
STRUCTURED: Final = (*METADATA, "identities", "multifactor")

EXPORTABLE: Final = (
    "user_id",
    "email",
    "email_verified",
    "username",
    "phone_number",
    "phone_verified",
    "name",
    "given_name",
    "family_name",
    "nickname",
    "picture",
    "blocked",
    "created_at",
    "updated_at",
    "last_login",
    "last_ip",
    "last_password_reset",
    "logins_count",
    "multifactor",
    "multifactor_last_modified",
    "identities",
    "app_metadata",
    "user_metadata",
)

# The fields of exports without configured fields. Requests always contain fields, because the default of Auth0 is not
# documented. A CSV file cannot contain objects, so it contains parts of the first identity.
DEFAULT_FIELDS: Final[Mapping[str, tuple[Mapping[str, str], ...]]] = {
    "ndjson": tuple({"name": name} for name in EXPORTABLE),
    "csv": (
        *({"name": name} for name in EXPORTABLE if name not in STRUCTURED),
        {"name": "identities[0].connection", "export_as": "connection"},
        {"name": "identities[0].provider", "export_as": "provider"},
    ),
}

_PART: Final = re.compile(r"([a-z_]+)((?:\.[^.\[\]\s]+|\[[0-9]{1,4}\])*)")


def check_fields(format: str, fields: Sequence[str | Mapping[str, str]]) -> None:  # noqa: A002 - the term of the configuration
    """Raise ValueError with the position of a field if Auth0 would reject the field or export it incorrectly."""
    if not fields:
        raise ValueError(
            "fields: expected at least one field, found none; add a field, or remove the key to export the default"
            " fields"
        )
    if format == "csv" and len(fields) > MAX_CSV_FIELDS:
        raise ValueError(
            f"fields[{MAX_CSV_FIELDS}]: expected at most {MAX_CSV_FIELDS} fields in a CSV export, found {len(fields)};"
            ' remove fields or use "format": "ndjson"'
        )
    first: dict[str, int] = {}
    for position, field in enumerate(wire_fields(fields)):
        path, name, output = f"fields[{position}]", field["name"], field.get("export_as", field["name"])
        for key, value in field.items():
            if not 1 <= len(value) <= MAX_NAME_LENGTH:
                raise ValueError(f"{path}.{key}: expected 1 to {MAX_NAME_LENGTH} characters, found {len(value)}")
        _check_name(path, format, name)
        if output in first:
            raise ValueError(
                f'{path}: expected a name in the file that differs from fields[{first[output]}]; change "export_as"'
            )
        first[output] = position


def wire_fields(fields: Sequence[str | Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the fields in the format of the API.

    Parts of a field always have ``export_as``. Without it, the name in the file is not documented: ``user_metadata.x``
    could become a key or a nested object.
    """
    objects = []
    for field in fields:
        name = field if isinstance(field, str) else field.get("name") or ""
        output = "" if isinstance(field, str) else field.get("export_as")
        if not output and ("." in name or "[" in name):
            output = name
        objects.append({"name": name, "export_as": output} if output else {"name": name})
    return objects


def _check_name(path: str, format: str, name: str) -> None:  # noqa: A002 - as above
    parts = _PART.fullmatch(name)
    root = parts[1] if parts else ""
    if parts is None or root not in EXPORTABLE:
        raise ValueError(
            f"{path}.name: expected a field that Auth0 can export ({', '.join(EXPORTABLE)}) or a part of a field, such"
            " as user_metadata.country or identities[0].connection"
        )
    if parts[2] and root not in STRUCTURED:
        raise ValueError(f"{path}.name: expected {root} without a part, because it has no parts")
    if format == "csv" and not parts[2] and root in METADATA:
        raise ValueError(
            f"{path}.name: expected a part of {root}, such as {root}.country, because a CSV file cannot contain"
            ' objects; use its parts or "format": "ndjson"'
        )
