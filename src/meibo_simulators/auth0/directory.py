"""The users of a tenant: users that are generated from numbers, and users that requests added, changed or removed."""

from __future__ import annotations

import copy
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from meibo_simulators.auth0.export_rows import Layout
from meibo_simulators.profiles import (
    BLOCK,
    Profile,
    auth0_index,
    auth0_user,
    auth0_user_id,
)


@dataclass
class Connection:
    """A connection and its number of generated users (None: an equal share of the tenant's users)."""

    id: str
    name: str = ""
    strategy: str = "auth0"
    users: int | None = None
    enabled: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    start: int = 0

    @property
    def end(self) -> int:
        """The number of the last generated user plus 1."""
        return self.start + (self.users or 0)


class Directory:
    """Users by connection. Each change increments ``version``, so that new exports do not use outdated files."""

    def __init__(self, seed: int, connections: list[Connection], users: int) -> None:
        self.seed = seed
        self.connections = {connection.id: connection for connection in connections}
        self.version = 0
        #: user id -> imported password hash and MFA factors, which the API does not return
        self.secrets: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()
        #: user id -> connection id and profile of an added or changed user, or None for a removed user
        self._changes: dict[str, tuple[str, Profile | None]] = {}
        #: e-mail address -> ids of the added or changed users who have it, in the order of the changes
        self._ids_by_email: defaultdict[str, dict[str, None]] = defaultdict(dict)
        shared = [connection for connection in connections if connection.users is None]
        for position, connection in enumerate(shared):
            connection.users = users // len(shared) + (position < users % len(shared))
        start = 0
        for position, connection in enumerate(connections):
            connection.name = connection.name or (
                "Username-Password-Authentication" if position == 0 else f"directory-{position + 1}"
            )
            connection.start, start = start, start + (connection.users or 0)
        self.generated = start

    def _generated(self, user_id: str) -> tuple[Connection, int] | None:
        """Return the connection and the number of a generated user, or None."""
        index = auth0_index(self.seed, user_id)
        # An id of this seed may not exist, for example in a tenant that was restored from another tenant's archive.
        for connection in self.connections.values():
            if index is not None and connection.start <= index < connection.end:
                return connection, index
        return None

    def user_id(self, index: int) -> str:
        """Return the id of the generated user with this number."""
        return auth0_user_id(self.seed, index)

    def get(self, user_id: str) -> Profile | None:
        """Return a user's profile, or None."""
        with self._lock:
            if user_id in self._changes:
                return copy.deepcopy(self._changes[user_id][1])
        generated = self._generated(user_id)
        return auth0_user(self.seed, generated[1], generated[0].name) if generated else None

    def exists(self, user_id: str) -> bool:
        """Return whether the user exists."""
        with self._lock:
            change = self._changes.get(user_id)
        return self._generated(user_id) is not None if change is None else change[1] is not None

    def by_email(self, email: str) -> list[Profile]:
        """Return the users with exactly this address. A generated address contains the number of the user."""
        with self._lock:
            user_ids = dict(self._ids_by_email.get(email, {}))
        digits = email.partition("@")[0].removeprefix("user.")
        if re.fullmatch("[0-9a-f]{4,12}", digits):
            user_ids |= {self.user_id(int(digits[:-3], 16) * BLOCK + int(digits[-3:], 16)): None}
        profiles = [self.get(user_id) for user_id in user_ids]
        return [profile for profile in profiles if profile and profile.get("email") == email]

    def put(self, connection_id: str, profile: Profile) -> None:
        """Add a user to a connection, or replace the profile of an existing user."""
        user_id = profile["user_id"]
        generated = self._generated(user_id)
        with self._lock:
            self.version += 1
            home = generated[0].id if generated else self._changes.get(user_id, (connection_id, None))[0]
            self._change(user_id, home, copy.deepcopy(profile))

    def remove(self, user_id: str) -> None:
        """Delete a user. As in the API, it is not an error if the user does not exist."""
        generated = self._generated(user_id)
        with self._lock:
            self.version += 1
            self._change(user_id, generated[0].id if generated else "", None)
            if not generated:
                del self._changes[user_id]

    def _change(self, user_id: str, connection_id: str, profile: Profile | None) -> None:
        previous = self._changes.pop(user_id, (connection_id, None))[1]
        if previous is not None:
            self._ids_by_email[previous.get("email", "")].pop(user_id, None)
        self._changes[user_id] = (connection_id, profile)
        if profile is not None:
            self._ids_by_email[profile.get("email", "")][user_id] = None

    def count(self, connection_id: str | None = None) -> int:
        """Return the number of users of a connection, or of the tenant if None."""
        connections = self._connections(connection_id)
        with self._lock:
            removed = sum(profile is None for home, profile in self._changes.values() if home in connections)
        generated = sum(connection.end - connection.start for connection in connections.values())
        return generated - removed + sum(len(self._added(home)) for home in connections)

    def _connections(self, connection_id: str | None) -> dict[str, Connection]:
        return self.connections if connection_id is None else {connection_id: self.connections[connection_id]}

    def _added(self, connection_id: str) -> list[Profile]:
        with self._lock:
            return [
                copy.deepcopy(profile)
                for user_id, (home, profile) in self._changes.items()
                if home == connection_id and profile is not None and self._generated(user_id) is None
            ]

    def users(self, connection_id: str | None = None) -> Iterator[Profile]:
        """Yield every profile of a connection, or of the tenant if None."""
        for connection in self._connections(connection_id).values():
            yield from self._existing(connection.start, connection.end)
            yield from self._added(connection.id)

    def _existing(self, start: int, end: int) -> Iterator[Profile]:
        profiles = (self.get(self.user_id(index)) for index in range(start, end))
        return (profile for profile in profiles if profile is not None)

    def rows(self, layout: Layout, connection_id: str | None, limit: int | None) -> Iterator[tuple[bytes, int]]:
        """Yield the content of an export in pieces, each with its number of users."""
        remaining = self.count(connection_id) if limit is None else limit
        with self._lock:
            changed = [self._generated(user_id) for user_id in self._changes]
        changed_blocks = {generated[1] // BLOCK for generated in changed if generated}
        for connection in self._connections(connection_id).values():
            start = connection.start
            while start < connection.end and remaining > 0:
                end = min(connection.end, start - start % BLOCK + BLOCK)
                if start // BLOCK in changed_blocks:
                    rows = [layout.row(profile) for profile in self._existing(start, end)][:remaining]
                    piece, count = b"".join(rows), len(rows)
                else:
                    # Blocks without a changed or removed user are written from the cached template.
                    count = min(end - start, remaining)
                    piece = layout.block(self.seed, connection.name, start, start + count)
                yield piece, count
                remaining -= count
                start = end
            added = self._added(connection.id)[:remaining]
            yield b"".join(layout.row(profile) for profile in added), len(added)
            remaining -= len(added)
