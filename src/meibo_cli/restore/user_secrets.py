"""The password hashes and MFA factors that Auth0 exports on request, for ``meibo restore --hashes``.

The file is NDJSON: https://community.auth0.com/t/password-hashes-export-data-format/58730
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from meibo.errors import ConfigurationError
from meibo_cli.encoding import parse_json
from meibo_cli.restore.import_schema import PREFIX

# An import accepts bcrypt hashes with 10 salt rounds; the schema has custom_password_hash for other algorithms:
# https://auth0.com/docs/manage-users/user-migration/bulk-user-import-database-schema-and-examples
_PASSWORD_HASH: Final = re.compile(r"\$2[ab]\$10\$[./A-Za-z0-9]{53}")
_BCRYPT: Final = re.compile(r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}")

UserSecrets = Mapping[str, Any]


def read_user_secrets(path: Path) -> dict[str, UserSecrets]:
    """Return the fields ``password_hash``, ``custom_password_hash`` and ``mfa_factors`` of an import, by user id.

    The ids have no prefix. Raises ConfigurationError, with the number of the line and no value, if a line is not valid.
    """
    secrets: dict[str, UserSecrets] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    user_id, fields = _user(line, f"--hashes: line {number} of {path}")
                    if user_id in secrets:
                        raise ConfigurationError(f"--hashes: line {number} of {path}: the user has an earlier line")
                    secrets[user_id] = fields
    except FileNotFoundError:
        raise ConfigurationError(f"--hashes: the file {path} does not exist") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"--hashes: expected decrypted NDJSON in {path}, found binary data") from None
    return secrets


def _user(line: str, name: str) -> tuple[str, UserSecrets]:
    try:
        row = parse_json(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ConfigurationError(f"{name}: expected a JSON object")
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
