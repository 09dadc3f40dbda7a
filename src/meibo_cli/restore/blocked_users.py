"""Restore the blocked state of users, which an import does not change, with one request per user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from meibo.archive.manifest import ArchivedExport
from meibo.archive.storage import ArchiveReader
from meibo.errors import RequestRefusedError
from meibo.http.transport import segment
from meibo.providers.auth0.client import Auth0Client
from meibo_cli.encoding import json_bytes
from meibo_cli.files import new_folder
from meibo_cli.restore.archived_users import archived_users
from meibo_cli.restore.auth0_target import live_user
from meibo_cli.restore.changed_users import BLOCKED

UPDATE_SCOPE: Final = "update:users"

RESTORED: Final = "restored"
ALREADY_RESTORED: Final = "already restored"
CHANGED_LATER: Final = "changed since the expected run"
NOT_IN_TENANT: Final = "not in the tenant"


def blocked_states(reader: ArchiveReader, export: ArchivedExport, ids: Collection[str]) -> dict[str, bool]:
    """Return the blocked state of the users with these ids in an export. An absent value means not blocked."""
    with archived_users(reader, export) as archived:
        archived.check({BLOCKED}, upsert=True)
        id_name, blocked_name = archived.names["user_id"], archived.names[BLOCKED]
        return {
            row[id_name]: str(row.get(blocked_name)).lower() == "true"
            for row in archived.rows
            if isinstance(row, Mapping) and row.get(id_name) in ids
        }


def restore_blocked_states(
    client: Auth0Client,
    states: Mapping[str, bool],
    expected: Mapping[str, bool],
    folder: Path,
    *,
    advance: Callable[[], None] = lambda: None,
) -> Counter[str]:
    """Set the blocked state of each user who still has the expected state, and return the numbers of results.

    The result of each user is written to ``results.ndjson`` in the new folder. If the command is interrupted and run
    again, it skips the users who were restored before.
    """
    results: Counter[str] = Counter()
    with (new_folder(folder) / "results.ndjson").open("xb") as file:
        for user_id, blocked in states.items():
            result = _restore_user(client, user_id, blocked, expected.get(user_id))
            results[result] += 1
            file.write(json_bytes({"user_id": user_id, "blocked": blocked, "result": result}) + b"\n")
            file.flush()
            advance()
    return results


def _restore_user(client: Auth0Client, user_id: str, blocked: bool, expected: bool | None) -> str:
    live = live_user(client, user_id)
    if live is None:
        return NOT_IN_TENANT
    if bool(live.get(BLOCKED)) == blocked:
        return ALREADY_RESTORED
    if bool(live.get(BLOCKED)) != expected:
        return CHANGED_LATER
    try:
        client.request(
            "PATCH",
            f"users/{segment(user_id)}",
            subject="a user",
            scope=UPDATE_SCOPE,
            bucket="users",
            json={BLOCKED: blocked},
        )
    except RequestRefusedError as error:
        if error.is_missing:
            return NOT_IN_TENANT
        raise
    return RESTORED
