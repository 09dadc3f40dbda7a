"""Write the users of a database connection of a tenant to a file, to compare them with import files."""

from __future__ import annotations

import signal
import tempfile
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.datasets import USERS
from meibo.providers.auth0.jobs import USERS_SCOPE
from meibo_cli.comparison import END_SILENTLY
from meibo_cli.encoding import json_bytes, open_decompressed, parse_written_object
from meibo_cli.live_archive import live_archive
from meibo_cli.restore.archived_rows import archived_users, parsed_lines
from meibo_cli.restore.auth0_target import TargetConnection, live_user, live_users_by_email, target_credentials
from meibo_cli.restore.directory import DirectoryTarget
from meibo_cli.restore.import_files import ImportFiles
from meibo_cli.restore.import_schema import FORBIDDEN_APP_METADATA, METADATA, PREFIX, primary_connection
from meibo_cli.terminal import printable, show_activity

# The fields by which Auth0 identifies an existing user, in addition to the id.
ADDRESSES: Final = ("email", "username", "phone_number")
LINKED: Final = "linked_to"
# Up to this number, users are read one by one. For more users, an export, which takes several seconds, is faster.
MAX_USERS_READ: Final = 100
_PROCESSES: Final = 2
_BLOCK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class LiveUsers:
    """A file with one JSON object per user of a connection, with the fields of an import file.

    An account that is linked to another user has only its id and the id of this user (``linked_to``).
    """

    path: Path

    @classmethod
    def write(
        cls, path: Path, rows: Iterable[Mapping[str, Any]], fields: Collection[str], connection: str
    ) -> LiveUsers:
        """Write the users of a connection to a file with these fields, and return the file."""
        with path.open("xb") as file:
            for row in rows:
                file.write(_lines(row, fields, connection))
        return cls(path)

    @classmethod
    def of_export(cls, path: Path, export: Path, fields: Collection[str], connection: str) -> LiveUsers:
        """Do the same as ``write`` for the rows of an NDJSON export, with several processes."""
        pending: deque[Future[bytes]] = deque()
        with (
            open_decompressed(export) as rows,
            path.open("xb") as file,
            ProcessPoolExecutor(_PROCESSES, initializer=signal.signal, initargs=END_SILENTLY) as pool,
        ):
            while lines := rows.readlines(_BLOCK_BYTES):
                pending.append(pool.submit(_converted, lines, fields, connection))
                if len(pending) > 2 * _PROCESSES:
                    file.write(pending.popleft().result())
            file.writelines(block.result() for block in pending)
        return cls(path)

    def owners(self, addresses: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Return the ids of the users with these addresses, by field and value."""
        owners: dict[tuple[str, str], str] = {}
        with self.path.open("rb") as file:
            for line in file if addresses else ():
                user = parse_written_object(line)
                for address in addresses_of(user):
                    if address in addresses:
                        owners[address] = user["user_id"]
        return owners


def addresses_of(user: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the field and the lowercase value of each address of a user."""
    for name in ADDRESSES:
        if isinstance(value := user.get(name), str):
            yield name, value.lower()


@contextmanager
def live_users(
    written: ImportFiles,
    fields: Collection[str],
    *,
    client: Auth0Client,
    tenant: DirectoryTarget,
    connection: TargetConnection,
) -> Iterator[LiveUsers]:
    """Yield the users of a connection with these fields. The file is deleted when the context ends.

    If the import files contain few users, only users with the same ids or e-mail addresses are read. Otherwise, all
    users of the connection are exported.
    """
    with tempfile.TemporaryDirectory(prefix="meibo-restore-") as name:
        path = Path(name) / "live.ndjson"
        if written.users <= MAX_USERS_READ:
            yield LiveUsers.write(path, _read_users(client, written.lines()), fields, connection.name)
            return
        secret = target_credentials(tenant.source, [USERS_SCOPE])
        exports = tenant.exports([USERS.name], ("user_id", "identities", *fields), connection.id)
        with (
            show_activity("reading the tenant") as status,
            live_archive(exports, lambda _: secret, show=lambda text: status.update(printable(text))) as live,
            archived_users(live.reader, live.run.exports[0]) as archived,
        ):
            users = LiveUsers.of_export(path, archived.path, fields, connection.name)
        yield users


def _read_users(client: Auth0Client, lines: Iterable[bytes]) -> Iterable[Mapping[str, Any]]:
    """Return the users of the tenant with the id or the e-mail address of one of the users in the lines."""
    users: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        user = parse_written_object(line)
        live = live_user(client, PREFIX + user["user_id"])
        for row in (*live_users_by_email(client, user["email"].lower()), *([live] if live else ())):
            users[str(row.get("user_id"))] = row
    return users.values()


def _converted(lines: Iterable[bytes], fields: Collection[str], connection: str) -> bytes:
    return b"".join(_lines(row, fields, connection) for row in parsed_lines(lines) if isinstance(row, Mapping))


def _lines(row: Mapping[str, Any], fields: Collection[str], connection: str) -> bytes:
    return b"".join(json_bytes(user) + b"\n" for user in _accounts(row, fields, connection))


def _accounts(row: Mapping[str, Any], fields: Collection[str], connection: str) -> Iterator[dict[str, Any]]:
    """Yield a user of the connection, and the accounts of the connection that are linked to another user."""
    user_id = str(row.get("user_id"))
    if user_id.startswith(PREFIX) and primary_connection(user_id, row) == connection:
        # The fields are in the same order as in an import file, so lines of users with the same values are equal.
        user: dict[str, Any] = {"user_id": user_id.removeprefix(PREFIX)}
        user |= {name: row[name] for name in fields if row.get(name) is not None}
        metadata = user.get("app_metadata")
        if isinstance(metadata, dict) and not FORBIDDEN_APP_METADATA.isdisjoint(metadata):
            user["app_metadata"] = {name: metadata[name] for name in metadata if name not in FORBIDDEN_APP_METADATA}
        for name in METADATA:
            if name in fields:
                user.setdefault(name, {})
        yield user
    for identity in row.get("identities") or ():
        account_id = f"{PREFIX}{identity.get('user_id')}"
        if identity.get("connection") == connection and account_id != user_id:
            yield {"user_id": account_id.removeprefix(PREFIX), LINKED: user_id}
