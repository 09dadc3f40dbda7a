"""The users of a cybozu.com domain in order, and the changes to them while they are read."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from typing import Any

from meibo_simulators.cybozu import user_records

User = dict[str, Any]


class Directory:
    """The users of a domain: the numbers of the existing users, in the order of a list."""

    def __init__(self, seed: int, users: int, organizations: int = 0) -> None:
        self.seed = seed
        self.organizations = organizations
        self._lock = threading.RLock()
        self._order = list(range(users))
        self._next = users
        self._changed: dict[int, User] = {}

    def count(self) -> int:
        """Return the number of users without the built-in Administrator."""
        return len(self._order)

    def user(self, index: int) -> User:
        """Return a user."""
        return copy.deepcopy(self._changed.get(index) or user_records.user(self.seed, index, self.organizations))

    def users(self) -> Iterator[User]:
        """Yield every user except the built-in Administrator."""
        with self._lock:
            order = list(self._order)
        for index in order:
            yield self.user(index)

    def numbers(self) -> list[int]:
        """Return the numbers of the users, in the order of a list."""
        with self._lock:
            return list(self._order)

    def number(self, code: str) -> int | None:
        """Return the number of the user with a login name, or None."""
        for index in self.numbers():
            changed = self._changed.get(index)
            if code == (user_records.user_code(self.seed, index) if changed is None else changed["code"]):
                return index
        return None

    def page(self, offset: int, size: int) -> list[User]:
        """Return a page of the list; the built-in Administrator is its first user."""
        first = [user_records.administrator()] if offset == 0 else []
        with self._lock:
            numbers = self._order[max(0, offset - 1) : offset - 1 + size]
            return first + [self.user(index) for index in numbers]

    def find(self, key: str, values: list[str]) -> list[User]:
        """Return the users whose ``id`` or ``code`` is among the values; unknown values are ignored."""
        administrator = user_records.administrator()
        matches = [administrator] if administrator[key] in values else []
        with self._lock:
            if self._changed:
                return matches + [user for user in self.users() if user[key] in values]
            order = list(self._order)
        name = user_records.user_id if key == "id" else lambda index: user_records.user_code(self.seed, index)
        return matches + [self.user(index) for index in order if name(index) in values]

    def change(self, index: int, **values: Any) -> None:
        """Change a user's properties."""
        with self._lock:
            self._changed[index] = {**self.user(index), **values}

    def remove(self, position: int) -> None:
        """Delete the user at a position of the list; the following users move up."""
        with self._lock:
            self._order.pop(position)

    def insert(self, position: int) -> int:
        """Insert a new user at a position of the list and return its number; the following users move down."""
        with self._lock:
            self._order.insert(position, self._next)
            self._next += 1
            return self._next - 1
