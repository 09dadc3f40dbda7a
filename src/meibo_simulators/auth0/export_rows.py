"""The two formats of an Auth0 users export, NDJSON and CSV, written per row or per block of users."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from meibo_simulators.profiles import BLOCK, MARK, Profile, auth0_shape, block_number

#: Root properties that can be exported: https://auth0.com/docs/manage-users/user-accounts/user-profiles/user-profile-structure
EXPORTABLE = frozenset(
    [
        "app_metadata",
        "blocked",
        "created_at",
        "email",
        "email_verified",
        "family_name",
        "given_name",
        "identities",
        "last_ip",
        "last_login",
        "last_password_reset",
        "logins_count",
        "multifactor",
        "multifactor_last_modified",
        "name",
        "nickname",
        "phone_number",
        "phone_verified",
        "picture",
        "updated_at",
        "user_id",
        "user_metadata",
        "username",
    ]
)
#: Dates that Auth0 generates. Its CSV escaping does not change them.
GENERATED_DATES = frozenset(
    {"created_at", "updated_at", "last_login", "last_password_reset", "multifactor_last_modified"}
)
#: The fields of an export if the request does not contain ``fields``. Auth0 does not document these fields.
PREDEFINED = (
    *("user_id", "given_name", "family_name", "nickname", "name", "email", "email_verified", "picture"),
    *("identities[0].connection", "created_at", "updated_at", "last_login"),
)
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_ABSENT = object()
_MARK = MARK.encode()


@dataclass(frozen=True)
class Field:
    """A requested field: its path in the profile and its key or column in the file."""

    name: str
    export_as: str | None = None

    @property
    def output(self) -> str:
        """The key or column name."""
        return self.export_as or self.name

    @property
    def root(self) -> str:
        """The root property of the profile that contains the field."""
        match = _STEP.match(self.name)
        return match.group(0) if match else self.name

    def read(self, profile: Profile) -> Any:
        """Return the value in a profile, or ``_ABSENT``."""
        value: Any = profile
        for match in _STEP.finditer(self.name):
            key, position = match.groups()
            if key is not None:
                if not isinstance(value, dict) or key not in value:
                    return _ABSENT
                value = value[key]
            else:
                if not isinstance(value, list) or int(position) >= len(value):
                    return _ABSENT
                value = value[int(position)]
        return value


@dataclass(frozen=True)
class Layout:
    """A format with its fields and with options that Auth0 does not document."""

    format: str
    fields: tuple[Field, ...]
    nested_subfields: bool = False
    csv_booleans: tuple[str, str] = ("false", "true")

    def header(self) -> bytes:
        """Return the header row of CSV, or nothing for NDJSON."""
        if self.format != "csv":
            return b""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerow([field.output for field in self.fields])
        return out.getvalue().encode()

    def row(self, profile: Profile) -> bytes:
        """Return the line of a user, including the line end."""
        return self._csv(profile) if self.format == "csv" else self._json(profile)

    def _json(self, profile: Profile) -> bytes:
        values = {field.output: field.read(profile) for field in self.fields}
        row = {name: value for name, value in values.items() if value is not _ABSENT}
        if self.nested_subfields:
            for field in self.fields:
                root, _, rest = field.output.partition(".")
                if rest and field.export_as is None and field.output in row:
                    row.setdefault(root, {})[rest] = row.pop(field.output)
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def _csv(self, profile: Profile) -> bytes:
        cells = [self._cell(field, field.read(profile)) for field in self.fields]
        return (",".join(cells) + "\n").encode()

    def _cell(self, field: Field, value: Any) -> str:
        if value is _ABSENT or value is None:
            return ""
        if isinstance(value, bool):
            return self.csv_booleans[value]
        if isinstance(value, int | float):
            return json.dumps(value)
        if field.name in GENERATED_DATES:
            return str(value)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        doubled = text.replace('"', '""')
        return f'"\'{doubled}"'

    def block(self, seed: int, connection: str, start: int, end: int) -> bytes:
        """Return the rows of users ``start`` to ``end`` (exclusive), which must be in the same block."""
        rows = _block_rows(self, seed, connection)
        if end - start == BLOCK:
            text = _block_text(self, seed, connection)
        else:
            text = b"".join(rows[start % BLOCK : (end - 1) % BLOCK + 1])
        return text.replace(_MARK, block_number(start).encode())


@lru_cache(maxsize=16)
def _block_rows(layout: Layout, seed: int, connection: str) -> tuple[bytes, ...]:
    return tuple(layout.row(auth0_shape(seed, shape, connection)) for shape in range(BLOCK))


@lru_cache(maxsize=16)
def _block_text(layout: Layout, seed: int, connection: str) -> bytes:
    return b"".join(_block_rows(layout, seed, connection))
