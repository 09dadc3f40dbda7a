"""Find out from the tenant which users of a file with an unknown result were imported."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

from meibo.clock import Clock
from meibo.formatting import format_count
from meibo.providers.auth0.client import Auth0Client
from meibo_cli.encoding import json_bytes
from meibo_cli.restore.auth0_target import has_values, live_user
from meibo_cli.restore.import_schema import PREFIX
from meibo_cli.restore.journal import FileImport, Journal, digest, replace_file

MIN_INTERVAL_SECONDS: Final = 2.0
MAX_INTERVAL_SECONDS: Final = 60.0
DUPLICATED: Final = "DUPLICATED_USER"
# An update changes only these fields:
# https://auth0.com/docs/manage-users/user-migration/bulk-user-import-database-schema-and-examples
UPDATED: Final = frozenset(
    {
        *("app_metadata", "user_metadata", "email_verified", "family_name", "given_name", "name", "nickname"),
        "picture",
    }
)


def settle(
    client: Auth0Client,
    journal: Journal,
    file: FileImport,
    *,
    clock: Clock,
    deadline: float,
    notify: Callable[[str], None] = lambda _: None,
) -> None:
    """Compare the users of a file with the tenant until all are imported or the ``deadline`` of the job has passed.

    Users who are not imported then are written to a new file of the journal, which waits to be sent.
    """
    users: list[dict[str, Any]] = json.loads(journal.content(file))
    missing, other, interval = users, list[dict[str, Any]](), MIN_INTERVAL_SECONDS
    while True:
        states = [(user, _state(client, user, upsert=journal.upsert)) for user in missing]
        missing = [user for user, state in states if state == "missing"]
        other += [user for user, state in states if state == "other"]
        left = deadline - clock.now()
        if not missing or left <= 0:
            break
        if interval == MIN_INTERVAL_SECONDS:
            end = datetime.fromtimestamp(deadline, UTC)
            notify(
                f"{file.name}: {format_count(len(missing), 'user')} not in the tenant yet; waiting until"
                f" {end:%Y-%m-%d %H:%M} UTC at the latest, because the job may be running"
            )
        clock.sleep(min(interval, left))
        interval = min(2 * interval, MAX_INTERVAL_SECONDS)
    imported = len(users) - len(missing) - len(other)
    file.inserted, file.updated, file.failed = (0, imported, 0) if journal.upsert else (imported, 0, len(other))
    file.state, file.reason = "done", f"{imported} users found in the tenant"
    file.codes = {DUPLICATED: len(other)} if other else {}
    error = {"code": DUPLICATED, "message": "The tenant has a user with this id and other values."}
    journal.write_failed(file, [{**user, "errors": [error]} for user in other])
    if missing:
        _add_file(journal, file, missing)
    journal.write()


def _state(client: Auth0Client, user: dict[str, Any], *, upsert: bool) -> Literal["imported", "other", "missing"]:
    """Return the state of a user of the file in the tenant.

    A user with other values was not updated, so an update is missing. Without an update it is an existing user.
    """
    live = live_user(client, PREFIX + user["user_id"])
    if live is None:
        return "missing"
    if has_values(live, user, user.keys() & UPDATED if upsert else user.keys() - {"user_id"}):
        return "imported"
    return "missing" if upsert else "other"


def _add_file(journal: Journal, file: FileImport, users: list[dict[str, Any]]) -> None:
    name = f"{file.name.removesuffix('.json')}-rest.json"
    content = b"[" + b",\n".join(map(json_bytes, users)) + b"]"
    replace_file(journal.folder / name, content)
    rest = FileImport(name=name, sha256=digest(content), users=len(users))
    journal.files.insert(journal.files.index(file) + 1, rest)
