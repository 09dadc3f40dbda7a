"""The roles of a tenant, their permissions, and their direct assignments to users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meibo_simulators.auth0.directory import Directory

NAMES = ("admin", "編集者", "viewer", "billing")
API = "https://api.example.invalid"
ACTIONS = ("read", "create", "update", "delete")
#: Number of generated users that can have generated assignments.
MAX_GENERATED_USERS = 500
MAX_ROLES = 1000


class Roles:
    """The roles of a tenant. Role number n is assigned to every (n + 2)th of the first 500 generated users."""

    def __init__(self, directory: Directory, new_id: Callable[[str, int], str], *, count: int) -> None:
        self._directory = directory
        self._new_id = new_id
        names = [*NAMES, *(f"role-{number}" for number in range(len(NAMES), count))][:count]
        #: The roles as the API returns them.
        self.by_id: dict[str, dict[str, Any]] = {
            new_id("rol", number): {"id": new_id("rol", number), "name": name, "description": f"Role {name}"}
            for number, name in enumerate(names)
        }
        self._numbers = {role_id: number for number, role_id in enumerate(self.by_id)}
        self._assigned: dict[str, dict[str, None]] = {}
        self._permissions: dict[str, list[dict[str, Any]]] = {}
        self._next_number = MAX_ROLES
        #: Roles that are deleted but still in the list.
        self.vanished: set[str] = set()

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create the role that a request describes, and return it."""
        role_id = self._new_id("rol", self._next_number)
        self._next_number += 1
        self.by_id[role_id] = {"id": role_id, "name": body["name"], "description": body.get("description")}
        return self.by_id[role_id]

    def permissions(self, role_id: str) -> list[dict[str, Any]]:
        """Return the permissions of a role."""
        if role_id in self._permissions or role_id not in self._numbers:
            return list(self._permissions.get(role_id, []))
        actions = ACTIONS[: 1 + self._numbers[role_id] % len(ACTIONS)]
        return [
            {
                "resource_server_identifier": API,
                "permission_name": f"{action}:reports",
                "resource_server_name": "Example API",
                "description": f"{action.title()} reports",
            }
            for action in actions
        ]

    def add_permissions(self, role_id: str, permissions: list[dict[str, Any]]) -> None:
        """Add permissions to a role. Existing permissions do not change."""
        existing = self.permissions(role_id)
        known = [_permission_key(permission) for permission in existing]
        added = [permission for permission in permissions if _permission_key(permission) not in known]
        described = [{**permission, "resource_server_name": "Example API", "description": ""} for permission in added]
        self._permissions[role_id] = [*existing, *described]

    def assign(self, role_id: str, user_ids: list[str]) -> None:
        """Assign a role to users."""
        self._ids(role_id).update(dict.fromkeys(user_ids))

    def users(self, role_id: str) -> list[dict[str, Any]]:
        """Return the users of a role as the API returns them."""
        profiles = [self._directory.get(user_id) for user_id in self._ids(role_id)]
        return [
            {name: profile[name] for name in ("user_id", "email", "picture", "name") if name in profile}
            for profile in profiles
            if profile is not None
        ]

    def _ids(self, role_id: str) -> dict[str, None]:
        if role_id not in self._assigned:
            users = min(self._directory.generated, MAX_GENERATED_USERS) if role_id in self._numbers else 0
            step = self._numbers.get(role_id, 0) + 2
            ids = [self._directory.user_id(index) for index in range(0, users, step)]
            self._assigned[role_id] = dict.fromkeys(ids)
        return self._assigned[role_id]


def _permission_key(permission: dict[str, Any]) -> tuple[str, str]:
    return permission["resource_server_identifier"], permission["permission_name"]
