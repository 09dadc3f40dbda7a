"""The users of a tenant: generated users by number, and the few that were changed, added or removed."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from meibo_simulators.auth0.export_rows import Layout
from meibo_simulators.profiles import (
    BLOCK,
    Profile,
    auth0_index,
    auth0_person,
    auth0_person_id,
    auth0_shape,
    block_number,
    fill,
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
        """Return the number of the last generated user plus 1."""
        return self.start + (self.users or 0)


class Directory:
    """Users by connection. Each change increments ``version``, so that no outdated export file is served."""

    def __init__(self, seed: int, connections: list[Connection], users: int) -> None:
        self.seed = seed
        self.connections = {connection.id: connection for connection in connections}
        self.version = 0
        self._lock = threading.RLock()
        self._changed: dict[str, Profile] = {}
        self._removed: set[str] = set()
        self._added: dict[str, tuple[str, Profile]] = {}
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

    def _connection_of(self, index: int) -> Connection | None:
        for connection in self.connections.values():
            if connection.start <= index < connection.end:
                return connection
        return None

    def _index(self, user_id: str) -> int | None:
        # An id of this seed may be unused here, for example in a tenant restored from another tenant's archive.
        index = auth0_index(self.seed, user_id)
        return None if index is None or self._connection_of(index) is None else index

    def user_id(self, index: int) -> str:
        """Return the id of the generated user with that number."""
        return auth0_person_id(self.seed, index)

    def get(self, user_id: str) -> Profile | None:
        """Return a user's profile, or None."""
        with self._lock:
            if user_id in self._removed:
                return None
            if user_id in self._changed:
                return copy.deepcopy(self._changed[user_id])
            if user_id in self._added:
                return copy.deepcopy(self._added[user_id][1])
        index = auth0_index(self.seed, user_id)
        connection = None if index is None else self._connection_of(index)
        if index is None or connection is None:
            return None
        return auth0_person(self.seed, index, connection.name)

    def exists(self, user_id: str) -> bool:
        """Return whether the user exists."""
        return self.properties(user_id, ("user_id",)) is not None

    def properties(self, user_id: str, names: Sequence[str]) -> Profile | None:
        """Return the named root properties of a user, in the given order, or None if the user does not exist."""
        with self._lock:
            special = user_id in self._removed or user_id in self._changed or user_id in self._added
        if special:
            profile = self.get(user_id)
        else:
            index = auth0_index(self.seed, user_id)
            connection = None if index is None else self._connection_of(index)
            if index is None or connection is None:
                return None
            shape = auth0_shape(self.seed, index % BLOCK, connection.name)
            number = block_number(index)
            return {name: fill(shape[name], number) for name in names if name in shape}
        return None if profile is None else {name: profile[name] for name in names if name in profile}

    def by_email(self, email: str) -> list[Profile]:
        """Return the users with exactly this address; a generated address contains the user's number."""
        profiles = []
        local, _, _ = email.partition("@")
        digits = local.removeprefix("user.")
        try:
            index = int(digits[:-3], 16) * BLOCK + int(digits[-3:], 16)
        except ValueError:
            index = -1
        if 0 <= index < self.generated:
            profiles.append(self.get(self.user_id(index)))
        with self._lock:
            others = [*self._changed, *self._added]
        profiles += [self.get(user_id) for user_id in others]
        unique = {profile["user_id"]: profile for profile in profiles if profile and profile.get("email") == email}
        return list(unique.values())

    def put(self, connection_id: str, profile: Profile) -> None:
        """Add a user to a connection, or replace the profile of an existing user."""
        with self._lock:
            user_id = profile["user_id"]
            self.version += 1
            if user_id in self._added or self.get(user_id) is None:
                self._removed.discard(user_id)
                if self._index(user_id) is None:
                    self._added[user_id] = (connection_id, copy.deepcopy(profile))
                    return
            self._changed[user_id] = copy.deepcopy(profile)

    def remove(self, user_id: str) -> None:
        """Delete a user; no error if it does not exist, as in the API."""
        with self._lock:
            self.version += 1
            self._added.pop(user_id, None)
            self._changed.pop(user_id, None)
            if self._index(user_id) is not None:
                self._removed.add(user_id)

    def count(self, connection_id: str | None = None) -> int:
        """Return the number of users of a connection, or of the tenant if None."""
        with self._lock:
            removed = [auth0_index(self.seed, user_id) for user_id in self._removed]
            added = [home for home, _ in self._added.values()]
        total = 0
        for connection in self._chosen(connection_id):
            total += connection.end - connection.start
            total -= sum(1 for index in removed if index is not None and connection.start <= index < connection.end)
            total += added.count(connection.id)
        return total

    def _chosen(self, connection_id: str | None) -> list[Connection]:
        return list(self.connections.values()) if connection_id is None else [self.connections[connection_id]]

    def users(self, connection_id: str | None = None) -> Iterator[Profile]:
        """Yield every profile of a connection, or of the tenant if None."""
        for connection in self._chosen(connection_id):
            for index in range(connection.start, connection.end):
                profile = self.get(self.user_id(index))
                if profile is not None:
                    yield profile
            with self._lock:
                added = [profile for home, profile in self._added.values() if home == connection.id]
            yield from copy.deepcopy(added)

    def rows(self, layout: Layout, connection_id: str | None, limit: int | None) -> Iterator[tuple[bytes, int]]:
        """Yield the content of an export in pieces, each with its number of users."""
        left = self.count(connection_id) if limit is None else limit
        with self._lock:
            special = {self._index(user_id) for user_id in (*self._removed, *self._changed)}
        blocks = {index // BLOCK for index in special if index is not None}
        for connection in self._chosen(connection_id):
            start = connection.start
            while start < connection.end and left > 0:
                # Blocks without a changed or removed user are written from the cached template.
                stop = min(connection.end, start - start % BLOCK + BLOCK)
                if start // BLOCK in blocks:
                    profiles = [self.get(self.user_id(index)) for index in range(start, stop)]
                    rows = [layout.row(profile) for profile in profiles if profile is not None][:left]
                    yield b"".join(rows), len(rows)
                    left -= len(rows)
                else:
                    stop = min(stop, start + left)
                    piece = layout.block(self.seed, connection.name, start, stop)
                    yield piece, stop - start
                    left -= stop - start
                start = stop
            with self._lock:
                added = [profile for home, profile in self._added.values() if home == connection.id][:left]
            yield b"".join(layout.row(profile) for profile in added), len(added)
            left -= len(added)
