"""The organizations of a tenant, with their members and roles.

They are generated from numbers. Only the changes that requests made are stored."""

from __future__ import annotations

import bisect
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from meibo_simulators.auth0.directory import Directory
from meibo_simulators.auth0.roles import Roles
from meibo_simulators.auth0.switches import Switches
from meibo_simulators.profiles import auth0_index, auth0_user_id, timestamp
from meibo_simulators.site import Clock

FIRST_CREATED = 1_680_000_000.0
# Seconds between the creation of two organizations, and between the addition of two members.
SECONDS_BETWEEN_ORGANIZATIONS = 61.466
SECONDS_BETWEEN_MEMBERS = 0.001
MAX_ROLES_PER_MEMBER = 50
MEMBER_FIELDS = ("user_id", "email", "picture", "name", "roles")
DEFAULT_INVITATION_SECONDS = 604_800
_NAMES = ("株式会社サンプル", "Müller & Söhne GmbH", "有限会社テスト", "شركة المثال", 'Quote "Inc."', "=FORMULA Ltd")


@dataclass
class Organization:
    """An organization: its id, its time of creation (Unix time), and its object in the API."""

    id: str
    created: float
    body: dict[str, Any]


@dataclass
class _Members:
    """The members of an organization and the times when they joined, in the order of joining."""

    joined: dict[str, float] = field(default_factory=dict)
    #: Recent changes: the time when each becomes visible, the user id, and the previous time of joining or None.
    unseen: list[tuple[float, str, float | None]] = field(default_factory=list)


class Organizations:
    """The organizations of a tenant.

    10% of the generated organizations have no enabled connections, and another 10% have no members.
    """

    def __init__(
        self,
        directory: Directory,
        roles: Roles,
        switches: Switches,
        now: Clock,
        new_id: Callable[[str, int], str],
        *,
        count: int,
        members: int,
    ) -> None:
        self._directory = directory
        self._role_by_id = roles.by_id
        self._switches = switches
        self._now = now
        self._new_id = new_id
        self._members_each = members
        self._generated_count = self._next_number = count
        self._lock = threading.RLock()
        self._numbers = {new_id("org", number): number for number in range(count)}
        self._changed: dict[str, _Members] = {}
        self._generated = lru_cache(maxsize=256)(self._generate)
        self._connections: dict[str, list[str]] = {}
        #: The options of connections that were enabled or changed by a request.
        self._options: dict[tuple[str, str], dict[str, Any]] = {}
        #: The objects of organizations that were created or changed by a request.
        self._bodies: dict[str, dict[str, Any]] = {}
        self._roles: dict[tuple[str, str], list[str]] = {}
        #: Organizations that are deleted but still in the list.
        self.vanished: set[str] = set()

    # -- organizations

    def ids(self) -> list[str]:
        """Return the ids in the order of creation."""
        with self._lock:
            return list(self._numbers)

    def count(self) -> int:
        """Return the number of organizations, including those in ``vanished``."""
        return len(self._numbers)

    def find(self, organization_id: str) -> Organization | None:
        """Return an organization, or None if it does not exist or was deleted."""
        number = self._numbers.get(organization_id)
        if number is None or organization_id in self.vanished:
            return None
        return self._organization(organization_id, number)

    def find_by_name(self, name: str) -> Organization | None:
        """Return the organization with a name, or None."""
        changed = next((each for each, body in self._bodies.items() if body["name"] == name), None)
        if changed is not None:
            return self.find(changed)
        number = re.fullmatch(r"org-([0-9]{6,9})", name)
        organization = self.find(self._new_id("org", int(number[1]))) if number else None
        return organization if organization is not None and organization.body["name"] == name else None

    def remove(self, organization_id: str) -> None:
        """Delete an organization."""
        with self._lock:
            self._numbers.pop(organization_id, None)

    def create(self, body: dict[str, Any]) -> Organization:
        """Create an organization without members or connections, and return it."""
        with self._lock:
            number = self._next_number
            self._next_number += 1
            organization_id = self._new_id("org", number)
            self._bodies[organization_id] = {"id": organization_id, **body}
            self._connections[organization_id] = []
            self._numbers[organization_id] = number
            return self._organization(organization_id, number)

    def update(self, organization_id: str, body: dict[str, Any]) -> Organization:
        """Replace properties of an organization, and return it."""
        with self._lock:
            organization = self._organization(organization_id, self._numbers[organization_id])
            self._bodies[organization_id] = {**organization.body, **body}
            return self._organization(organization_id, self._numbers[organization_id])

    def after(self, position: tuple[float, str] | None, size: int) -> tuple[list[Organization], bool]:
        """Return up to ``size`` organizations after a position, and whether more follow."""
        with self._lock:
            ids = list(self._numbers.items())
        start = 0
        if position is not None:
            # Numbers increase with the time of creation, so the position is found even if its organization was deleted.
            start = bisect.bisect_right(ids, position[0] + 1e-4, key=lambda item: self._created(item[1]))
        page = [self._organization(*item) for item in ids[start : start + size]]
        return page, start + size < len(ids)

    def slice(self, start: int, size: int) -> list[Organization]:
        """Return up to ``size`` organizations, starting at an offset."""
        with self._lock:
            ids = list(self._numbers.items())[start : start + size]
        return [self._organization(*item) for item in ids]

    @staticmethod
    def _created(number: int) -> float:
        return round(FIRST_CREATED + SECONDS_BETWEEN_ORGANIZATIONS * number, 3)

    def _organization(self, organization_id: str, number: int) -> Organization:
        if organization_id in self._bodies:
            return Organization(organization_id, self._created(number), dict(self._bodies[organization_id]))
        body: dict[str, Any] = {
            "id": organization_id,
            "name": f"org-{number:06d}",
            "display_name": f"{_NAMES[number % len(_NAMES)]} {number}",
        }
        if number % 2:
            body["branding"] = {
                "logo_url": f"https://cdn.example.invalid/{number}.png",
                "colors": {"primary": "#0a0a0a", "page_background": "#ffffff"},
            }
        if number % 3:
            body["metadata"] = {"region": "日本" if number % 2 else "EMEA", "tier": str(number % 4)}
        return Organization(organization_id, self._created(number), body)

    # -- enabled connections

    def connections(self, organization_id: str) -> list[str]:
        """Return the ids of the enabled connections of an organization."""
        if organization_id in self._connections:
            return list(self._connections[organization_id])
        number = self._numbers[organization_id]
        known = list(self._directory.connections)
        if number % 10 == 9 or not known:
            return []
        return known[:2] if number % 3 == 0 else [known[number % len(known)]]

    def enable(self, organization_id: str, connection_ids: list[str]) -> None:
        """Set the enabled connections of an organization."""
        self._connections[organization_id] = list(connection_ids)

    def enabled_connection(self, organization_id: str, connection_id: str) -> dict[str, Any]:
        """Return an enabled connection of an organization as the API returns it."""
        connection = self._directory.connections[connection_id]
        item: dict[str, Any] = {
            "connection_id": connection.id,
            "assign_membership_on_login": False,
            "show_as_button": True,
        }
        if connection.strategy == "auth0":
            item["is_signup_enabled"] = False
        item |= self._options.get((organization_id, connection_id), {})
        return {**item, "connection": {"name": connection.name, "strategy": connection.strategy}}

    def set_connection_options(self, organization_id: str, connection_id: str, options: dict[str, Any]) -> None:
        """Set options of an enabled connection, and enable it if necessary."""
        with self._lock:
            enabled = self.connections(organization_id)
            if connection_id not in enabled:
                self.enable(organization_id, [*enabled, connection_id])
                self._options.pop((organization_id, connection_id), None)
            self._options.setdefault((organization_id, connection_id), {}).update(options)

    # -- members

    def _generate(self, number: int) -> dict[str, float]:
        users = self._directory.generated
        if not users or not self._members_each or number % 10 == 8 or number >= self._generated_count:
            return {}
        # Sizes range from 0.5 to 1.5 times the requested average. Many consecutive organizations share members.
        size = min(users, max(1, self._members_each // 2 + number * 7 % (self._members_each + 1)))
        first = number * (self._members_each * 2 // 3 + 1) % users
        created, seed = self._created(number), self._directory.seed
        return {
            auth0_user_id(seed, (first + position) % users): round(created + position * SECONDS_BETWEEN_MEMBERS, 3)
            for position in range(size)
        }

    def _members(self, organization_id: str) -> dict[str, float]:
        changed = self._changed.get(organization_id)
        if changed is not None:
            return changed.joined
        return self._generated(self._numbers[organization_id])

    def members(self, organization_id: str) -> list[str]:
        """Return the user ids of the current members of an organization, in the order of joining."""
        with self._lock:
            return list(self._members(organization_id))

    def is_member(self, organization_id: str, user_id: str) -> bool:
        """Return whether a user is currently a member."""
        with self._lock:
            return user_id in self._members(organization_id)

    def listed(self, organization_id: str) -> list[tuple[float, str]]:
        """Return the members as (time of joining, user id), without recent changes that are not visible yet."""
        with self._lock:
            shown = dict(self._members(organization_id))
            changed = self._changed.get(organization_id)
            if changed is not None:
                now = self._now()
                changed.unseen = [change for change in changed.unseen if change[0] > now]
                for _, user_id, before in reversed(changed.unseen):
                    if before is None:
                        shown.pop(user_id, None)
                    else:
                        shown[user_id] = before
        return sorted((joined, user_id) for user_id, joined in shown.items())

    def _own(self, organization_id: str) -> _Members:
        if organization_id not in self._changed:
            self._changed[organization_id] = _Members(dict(self._members(organization_id)))
        return self._changed[organization_id]

    def add_members(self, organization_id: str, user_ids: list[str]) -> None:
        """Add members. Existing members do not change."""
        with self._lock:
            members, now = self._own(organization_id), self._now()
            for position, user_id in enumerate(user_ids):
                if user_id not in members.joined:
                    members.joined[user_id] = round(now + position * SECONDS_BETWEEN_MEMBERS, 3)
                    members.unseen.append((now + self._switches.eventual_consistency, user_id, None))

    def remove_members(self, organization_id: str, user_ids: list[str]) -> None:
        """Remove members and their roles. Users who are not members are ignored."""
        with self._lock:
            members, now = self._own(organization_id), self._now()
            for user_id in user_ids:
                joined = members.joined.pop(user_id, None)
                self._roles.pop((organization_id, user_id), None)
                if joined is not None:
                    self._roles[organization_id, user_id] = []
                    members.unseen.append((now + self._switches.eventual_consistency, user_id, joined))

    def member(self, organization_id: str, user_id: str, fields: Sequence[str]) -> dict[str, Any]:
        """Return the entry of a member in the members list, with the requested fields."""
        profile = self._directory.get(user_id) or {"user_id": user_id}
        member = {name: profile[name] for name in fields if name in profile}
        if "roles" in fields:
            member["roles"] = [
                {"id": role_id, "name": self._role_by_id[role_id]["name"]}
                for role_id in self.member_roles(organization_id, user_id)
            ]
        return member

    # -- roles of members

    def member_roles(self, organization_id: str, user_id: str) -> list[str]:
        """Return the role ids of a member in an organization."""
        with self._lock:
            if (organization_id, user_id) in self._roles:
                return list(self._roles[organization_id, user_id])
            index = auth0_index(self._directory.seed, user_id)
        if index is None or user_id not in self._generated(self._numbers[organization_id]):
            return []
        return [role_id for role_id, every in zip(list(self._role_by_id), (3, 7), strict=False) if index % every == 0]

    def set_member_roles(self, organization_id: str, user_id: str, role_ids: list[str]) -> None:
        """Set the roles of a member."""
        with self._lock:
            self._roles[organization_id, user_id] = list(role_ids)


class Memberships(Mapping[str, frozenset[str]]):
    """A mapping from organization ids to the user ids of the current members."""

    def __init__(self, organizations: Organizations) -> None:
        self._organizations = organizations

    def __getitem__(self, organization_id: str) -> frozenset[str]:
        return frozenset(self._organizations.members(organization_id))

    def __iter__(self) -> Iterator[str]:
        return iter(self._organizations.ids())

    def __len__(self) -> int:
        return self._organizations.count()


class Invitations:
    """The invitations of a tenant and the number of e-mails sent for them."""

    def __init__(self, now: Clock, new_id: Callable[[str, int], str]) -> None:
        self._now = now
        self._new_id = new_id
        self._lock = threading.Lock()
        #: organization id -> invitation id -> invitation
        self.all: dict[str, dict[str, dict[str, Any]]] = {}
        self.created = 0
        self.emails = 0
        #: Applications that an invitation can use. Machine-to-machine clients are rejected.
        self.applications = {"portal"}

    def of(self, organization_id: str) -> list[dict[str, Any]]:
        """Return the invitations of an organization, the oldest first."""
        with self._lock:
            return list(self.all.get(organization_id, {}).values())

    def create(self, organization: Organization, body: dict[str, Any]) -> dict[str, Any]:
        """Create the invitation that a request describes and return it."""
        now = self._now()
        with self._lock:
            number = self.created
            self.created += 1
            self.emails += bool(body.get("send_invitation_email", True))
            invitation_id = self._new_id("uinv", number)
            ticket = hashlib.sha256(invitation_id.encode()).hexdigest()[:32]
            copied = ("client_id", "connection_id", "inviter", "invitee", "roles", "app_metadata", "user_metadata")
            invitation = {
                "id": invitation_id,
                **{name: body[name] for name in copied if name in body},
                "invitation_url": f"https://portal.example.invalid/login?invitation={ticket}"
                f"&organization={organization.id}&organization_name={organization.body['name']}",
                "ticket_id": ticket,
                "created_at": timestamp(now),
                "expires_at": timestamp(now + (body.get("ttl_sec") or DEFAULT_INVITATION_SECONDS)),
                "organization_id": organization.id,
            }
            self.all.setdefault(organization.id, {})[invitation["id"]] = invitation
        return invitation
