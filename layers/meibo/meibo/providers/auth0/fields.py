"""The profile fields that an export can contain, validated before the request to Auth0.

https://auth0.com/docs/manage-users/user-migration/bulk-user-exports and, for the names,
https://auth0.com/docs/manage-users/user-accounts/user-profiles/user-profile-structure ("export").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

MAX_CSV_FIELDS: Final = 30
MAX_NAME_LENGTH: Final = 100
METADATA: Final = ("app_metadata", "user_metadata")
# Fields with parts that can be exported alone, as in identities[0].connection.
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

# Requested if the configuration names no fields: every field. Auth0's own default is not documented, so fields are
# always sent. CSV cannot contain objects; it has the parts of the first identity.
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
    """Raise a ValueError that names the position of a field that Auth0 would reject or damage."""
    if not fields:
        raise ValueError(
            "fields: expected at least one field, found none; add one, or remove the key for the default fields"
        )
    if format == "csv" and len(fields) > MAX_CSV_FIELDS:
        raise ValueError(
            f"fields[{MAX_CSV_FIELDS}]: expected at most {MAX_CSV_FIELDS} fields in a CSV export, found {len(fields)};"
            ' remove some or use "format": "ndjson"'
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
                f'{path}: expected another name in the file than fields[{first[output]}]; change "export_as" of one of'
                " them"
            )
        first[output] = position


def wire_fields(fields: Sequence[str | Mapping[str, str]]) -> list[dict[str, str]]:
    """Return fields as the API expects them.

    Parts of a field always get an ``export_as``: without one it is not documented whether ``user_metadata.x``
    becomes a flat key or a nested object.
    """
    return [_wire_field({"name": field} if isinstance(field, str) else field) for field in fields]


def _wire_field(field: Mapping[str, str]) -> dict[str, str]:
    name = field.get("name") or ""
    output = field.get("export_as") or (name if "." in name or "[" in name else None)
    return {"name": name} if output is None else {"name": name, "export_as": output}


def _check_name(path: str, format: str, name: str) -> None:  # noqa: A002 - as above
    parts = _PART.fullmatch(name)
    root = parts[1] if parts else ""
    if parts is None or root not in EXPORTABLE:
        raise ValueError(
            f"{path}.name: expected a field that Auth0 can export ({', '.join(EXPORTABLE)}) or a part of a field, such"
            " as user_metadata.country or identities[0].connection"
        )
    if parts[2] and root not in STRUCTURED:
        raise ValueError(f"{path}.name: expected {root} without a part, because it has none")
    if format == "csv" and not parts[2] and root in METADATA:
        raise ValueError(
            f"{path}.name: expected a part of {root}, such as {root}.country, because a CSV file cannot contain"
            ' objects; name parts or use "format": "ndjson"'
        )
