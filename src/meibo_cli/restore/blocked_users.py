"""Restore the blocked state of existing users, which an import does not change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run
from meibo.archive.storage import ArchiveReader
from meibo.errors import RequestRefusedError
from meibo.formatting import format_count, format_number
from meibo.http.transport import segment
from meibo.providers.auth0.client import Auth0Client
from meibo_cli.encoding import json_bytes
from meibo_cli.exit_codes import EXIT_DIFFERENT
from meibo_cli.files import new_folder
from meibo_cli.restore.archived_rows import archived_users
from meibo_cli.restore.auth0_target import live_user
from meibo_cli.restore.console import require_confirmation
from meibo_cli.restore.user_selection import BLOCKED, same_export
from meibo_cli.terminal import progress_bar

UPDATE_SCOPE: Final = "update:users"

RESTORED: Final = "restored"
ALREADY_RESTORED: Final = "already restored"
CHANGED_LATER: Final = "changed since the expected run"
NOT_IN_TENANT: Final = "not in the tenant"


@dataclass(frozen=True, kw_only=True)
class BlockedRestore:
    """A restore of the blocked state of the users with these ids.

    Without ``client``, the states are only counted. With ``client``, the state of a user is set if the user still has
    the state in ``expected_run``.
    """

    reader: ArchiveReader
    run: Run
    export: ArchivedExport
    ids: frozenset[str]
    output: Path
    client: Auth0Client | None
    expected_run: Run | None
    yes: bool


def restore_blocked_users(restore: BlockedRestore) -> None:
    """Print how many users were blocked in the run, and set the blocked state of the users in the tenant.

    Exits with ``EXIT_DIFFERENT`` if a user was changed since the expected run or is not in the tenant.
    """
    reader, export, client = restore.reader, restore.export, restore.client
    states = blocked_states(reader, export, restore.ids)
    count = format_count(len(states), "user")
    typer.echo(f"{count}, {format_number(sum(states.values()))} of them blocked in run {restore.run.run_id}")
    if client is None or restore.expected_run is None:
        return
    expected = blocked_states(reader, same_export(restore.expected_run, export), restore.ids)
    if not restore.yes:
        question = f"Set the blocked state of {count} in {client.domain} to the state in run {restore.run.run_id}?"
        require_confirmation(question, "nothing was sent")
    with progress_bar("update", len(states)) as advance:
        results = restore_blocked_states(client, states, expected, restore.output, advance=lambda: advance(1))
    for result, number in results.most_common():
        typer.echo(f"  {format_count(number, 'user')}: {result}")
    if results.keys() - {RESTORED, ALREADY_RESTORED}:
        raise typer.Exit(EXIT_DIFFERENT)


def blocked_states(reader: ArchiveReader, export: ArchivedExport, ids: Collection[str]) -> dict[str, bool]:
    """Return the blocked state of the users with these ids. A user without a value in the export is not blocked."""
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
    """Set the blocked state of each user who still has the expected state, and count the results.

    The result of each user is written to ``results.ndjson`` in a new folder. Users who already have the
    state, for example after an earlier call, are not changed.
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
