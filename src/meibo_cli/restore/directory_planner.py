"""Compare archived roles, organizations and memberships with a tenant, and plan the changes of a restore."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Final

from meibo.formatting import format_count
from meibo.providers.auth0.membership import MAX_ROLES
from meibo_cli.restore.archived_rows import DatasetRows
from meibo_cli.restore.directory_plan import PlannedObject, State
from meibo_cli.restore.natural_keys import IdMapping, Match, NameMatcher, UserMatcher

ROLES: Final = "roles"
ORGANIZATIONS: Final = "organizations"
ROLE_MEMBERS: Final = "role_members"
MEMBERS: Final = "members"
DATASETS: Final = (ROLES, ORGANIZATIONS, ROLE_MEMBERS, MEMBERS)
"""The datasets that can be restored, in the order of the restore."""
LIVE_DATASETS: Final[Mapping[str, tuple[str, ...]]] = {
    ROLES: (ROLES,),
    ORGANIZATIONS: (ORGANIZATIONS,),
    ROLE_MEMBERS: (ROLES, ROLE_MEMBERS, "users"),
    MEMBERS: (ROLES, ORGANIZATIONS, MEMBERS, "users"),
}
"""The datasets of the tenant to read for each dataset to restore."""

# https://auth0.com/docs/troubleshoot/customer-support/operational-policies/entity-limit-policy
MAX_CONNECTIONS: Final = 10
MAX_TENANT_ROLES: Final = 1000
ROLE_PROPERTIES: Final = ("description",)
ORGANIZATION_PROPERTIES: Final = ("display_name", "branding", "metadata")
CONNECTION_OPTIONS: Final = ("assign_membership_on_login", "show_as_button", "is_signup_enabled")
_STATES: Final[Mapping[str, State]] = {"missing": "create", "conflict": "conflict", "impossible": "impossible"}


@dataclass
class DirectoryPlanner:
    """Plans the restore of datasets of a run. ``add`` is called with each object in the order of the restore.

    ``live`` contains the datasets of the tenant, and ``connections`` its connections.
    """

    archive: DatasetRows
    live: DatasetRows
    connections: Iterable[Mapping[str, Any]]
    mapping: IdMapping
    datasets: Collection[str]
    add: Callable[[PlannedObject], None]

    def plan(self) -> None:
        """Plan the datasets.

        If a role or an organization is not planned and does not exist in the tenant, all objects that refer to it are
        ``impossible``.
        """
        self._plan_roles()
        self._plan_organizations()
        if ROLE_MEMBERS in self.datasets:
            self._plan_assignments()
        if MEMBERS in self.datasets:
            self._plan_members()

    @property
    def targets(self) -> dict[str, str]:
        """The ids of archived roles and organizations in the tenant, by archived id."""
        matches = {**self._role_matches, **self._organization_matches}
        return {identity: match.target for identity, match in matches.items() if match.target}

    # -- roles

    @cached_property
    def _roles(self) -> NameMatcher:
        return NameMatcher("role", self.live.rows(ROLES), self.mapping)

    def _plan_roles(self) -> None:
        self._role_matches: dict[str, Match] = {}
        rows = list(self.archive.rows(ROLES)) if {ROLES, ROLE_MEMBERS, MEMBERS} & set(self.datasets) else []
        names = Counter(row.get("name") for row in rows)
        count = len(self._roles.by_id)
        for row in rows:
            planned = self._role(row, is_unique=names[row.get("name")] == 1)
            if ROLES not in self.datasets:
                continue
            if planned.state == "create":
                count += 1
                if count > MAX_TENANT_ROLES:
                    reason = f"a tenant can have at most {format_count(MAX_TENANT_ROLES, 'role')}"
                    self._role_matches[planned.role] = Match("impossible", reason=reason)
                    planned = PlannedObject(
                        kind="role", state="impossible", role=planned.role, name=planned.name, reason=reason
                    )
            self.add(planned)

    def _role(self, row: Mapping[str, Any], *, is_unique: bool) -> PlannedObject:
        identity, name = str(row["id"]), str(row.get("name"))
        match = self._roles.match(identity, name)
        permissions = role_permissions(row)
        body = {key: row[key] for key in ROLE_PROPERTIES if row.get(key)}
        if not match.certain and not is_unique:
            match = Match("conflict", reason="several archived roles have this name")
        elif match.state == "found" and not match.certain:
            more = len(role_permissions(self._roles.by_id[match.target or ""]).keys() - permissions.keys())
            if more:
                reason = f"the role with this name in the tenant has {format_count(more, 'additional permission')}"
                match = Match("conflict", reason=reason)
        if match.state == "conflict":
            self.mapping.add("role", identity, name, match)
        self._role_matches[identity] = match
        if match.state != "found":
            return PlannedObject(
                kind="role",
                state=_STATES[match.state],
                role=identity,
                name=name,
                body={"name": name, **body},
                permissions=tuple(permissions.values()),
                reason="" if match.state == "missing" else match.reason,
            )
        live = self._roles.by_id[match.target or ""]
        missing = tuple(value for key, value in permissions.items() if key not in role_permissions(live))
        changes = _differences(row, live, ROLE_PROPERTIES)
        return PlannedObject(
            kind="role",
            state="differs" if changes or missing else "same",
            role=identity,
            name=name,
            target=match.target,
            body=changes,
            permissions=missing,
            fields=(*changes, *(("permissions",) if missing else ())),
        )

    def _role_match(self, identity: str, name: str | None = None) -> Match:
        if identity not in self._role_matches:
            self._role_matches[identity] = self._roles.match(identity, name)
        return self._existing(self._role_matches[identity], ROLES, f"the role {identity}")

    # -- organizations

    @cached_property
    def _organizations(self) -> NameMatcher:
        return NameMatcher("organization", self.live.rows(ORGANIZATIONS), self.mapping)

    @cached_property
    def _connections(self) -> NameMatcher:
        return NameMatcher("connection", self.connections, self.mapping)

    def _plan_organizations(self) -> None:
        self._organization_matches: dict[str, Match] = {}
        self._connection_names: dict[str, str] = {}
        rows = list(self.archive.rows(ORGANIZATIONS)) if {ORGANIZATIONS, MEMBERS} & set(self.datasets) else []
        for row in rows:
            identity, name = str(row["id"]), str(row.get("name"))
            match = self._organization_matches[identity] = self._organizations.match(identity, name)
            if ORGANIZATIONS not in self.datasets:
                continue
            live = self._organizations.by_id.get(match.target or "", {})
            changes = _differences(row, live, ORGANIZATION_PROPERTIES)
            state: State = ("differs" if changes else "same") if match.state == "found" else _STATES[match.state]
            self.add(
                PlannedObject(
                    kind="organization",
                    state=state,
                    organization=identity,
                    name=name,
                    target=match.target,
                    body={"name": name, **changes} if match.state == "missing" else changes,
                    fields=tuple(changes) if state == "differs" else (),
                    reason=match.reason if state in ("conflict", "impossible") else "",
                )
            )
        if ORGANIZATIONS in self.datasets:
            for row in rows:
                self._plan_connections(row)

    def _plan_connections(self, row: Mapping[str, Any]) -> None:
        organization = self._organization_matches[str(row["id"])]
        live_row = self._organizations.by_id.get(organization.target or "", {})
        enabled = {str(item["connection_id"]): item for item in live_row.get("enabled_connections", ())}
        count = len(enabled)
        for item in row.get("enabled_connections", ()):
            planned = self._connection(row, item, organization, enabled)
            if planned.state == "create":
                count += 1
                if count > MAX_CONNECTIONS:
                    reason = f"an organization can have at most {format_count(MAX_CONNECTIONS, 'connection')}"
                    planned = _blocked(planned, Match("impossible", reason=reason))
            self.add(planned)

    def _connection(
        self,
        row: Mapping[str, Any],
        item: Mapping[str, Any],
        organization: Match,
        enabled: Mapping[str, Mapping[str, Any]],
    ) -> PlannedObject:
        description = item.get("connection") or {}
        name = description.get("name")
        match = self._connections.match(str(item["connection_id"]), name)
        live = self._connections.by_id.get(match.target or "", {})
        if match.state == "missing":
            match = Match("impossible", reason="the tenant has no connection with this name; create the connection")
        elif match.state == "found" and live.get("strategy") not in (None, description.get("strategy")):
            match = Match("conflict", reason="the connection of the tenant has another strategy")
        elif match.state == "found" and name is not None:
            self._connection_names[name] = str(live.get("name", name))
        options = {key: item[key] for key in CONNECTION_OPTIONS if key in item}
        planned = PlannedObject(
            kind="connection",
            state="create",
            organization=str(row["id"]),
            connection=str(item["connection_id"]),
            name=f"{row.get('name')} / {name}",
            target=match.target,
            body=options,
        )
        blocked = _blocking(match, self._existing(organization, ORGANIZATIONS, "the organization"))
        if blocked is not None:
            return _blocked(planned, blocked)
        if match.target not in enabled:
            return planned
        changes = _differences(item, enabled[match.target or ""], tuple(options))
        return _replace(planned, "differs" if changes else "same", body=changes, fields=tuple(changes))

    def _existing(self, match: Match, dataset: str, noun: str) -> Match:
        """Return the match, or an impossible match if the object is missing and its dataset is not restored."""
        if match.state == "missing" and dataset not in self.datasets:
            reason = f"{noun} does not exist in the tenant and is not restored"
            return Match("impossible", reason=reason)
        return match

    # -- users

    @cached_property
    def _users(self) -> UserMatcher:
        return UserMatcher(self.archive, self.live, self.mapping, self._connection_names)

    def _plan_assignments(self) -> None:
        assigned: defaultdict[str, set[str]] = defaultdict(set)
        for row in self.live.rows(ROLE_MEMBERS):
            assigned[str(row["user_id"])].add(str(row["role_id"]))
        added: Counter[str] = Counter()
        for row in self.archive.rows(ROLE_MEMBERS):
            role, user = self._role_match(str(row["role_id"])), self._users.match(str(row["user_id"]))
            planned = PlannedObject(
                kind="assignment",
                state="create",
                role=str(row["role_id"]),
                user=str(row["user_id"]),
                target=user.target,
            )
            roles = assigned[user.target] if user.target else set()
            if blocked := _blocking(role, user):
                planned = _blocked(planned, blocked)
            elif role.target in roles:
                planned = _replace(planned, "same")
            elif len(roles) + added[user.target or ""] >= MAX_ROLES:
                reason = f"a user can have at most {format_count(MAX_ROLES, 'role')}"
                planned = _blocked(planned, Match("impossible", reason=reason))
            else:
                added[user.target or ""] += 1
            self.add(planned)

    def _plan_members(self) -> None:
        live: defaultdict[str, dict[str, frozenset[str]]] = defaultdict(dict)
        for row in self.live.rows(MEMBERS):
            roles = frozenset(str(role["id"]) for role in row.get("roles") or ())
            live[str(row["organization_id"])][str(row["user_id"])] = roles
        rows = self.archive.rows(MEMBERS)
        for identity, members in groupby(rows, key=lambda row: str(row["organization_id"])):
            if identity not in self._organization_matches:
                self._organization_matches[identity] = self._organizations.match(identity, None)
            match = self._existing(self._organization_matches[identity], ORGANIZATIONS, f"the organization {identity}")
            self._plan_members_of(identity, match, list(members), live.get(match.target or "", {}))

    def _plan_members_of(
        self,
        organization_id: str,
        organization: Match,
        members: list[Mapping[str, Any]],
        live: Mapping[str, frozenset[str]],
    ) -> None:
        for row in members:
            user = self._users.match(str(row["user_id"]))
            planned = PlannedObject(
                kind="membership",
                state="same" if user.target in live else "create",
                organization=organization_id,
                user=str(row["user_id"]),
                target=user.target,
            )
            blocked = _blocking(organization, user)
            self.add(planned if blocked is None else _blocked(planned, blocked))
        for row in members:
            user = self._users.match(str(row["user_id"]))
            existing = live.get(user.target or "", frozenset())
            count = len(existing)
            for item in row.get("roles") or ():
                role = self._role_match(str(item["id"]), item.get("name"))
                planned = PlannedObject(
                    kind="member_role",
                    state="create",
                    organization=organization_id,
                    role=str(item["id"]),
                    user=str(row["user_id"]),
                    target=user.target,
                )
                if blocked := _blocking(organization, user, role):
                    planned = _blocked(planned, blocked)
                elif role.target in existing:
                    planned = _replace(planned, "same")
                elif count >= MAX_ROLES:
                    reason = f"a member can have at most {format_count(MAX_ROLES, 'role')}"
                    planned = _blocked(planned, Match("impossible", reason=reason))
                else:
                    count += 1
                self.add(planned)


def role_permissions(row: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, str]]:
    """Return the permissions of a role in the form that a request requires, by API and name."""
    names = ("resource_server_identifier", "permission_name")
    permissions = ({name: str(item[name]) for name in names} for item in row.get("permissions", ()))
    return {(item[names[0]], item[names[1]]): item for item in permissions}


def _differences(archived: Mapping[str, Any], live: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the archived values that differ from the values of the tenant. Ignore values that are not archived."""
    return {
        name: archived[name]
        for name in names
        if archived.get(name) is not None and (archived[name] or live.get(name)) and archived[name] != live.get(name)
    }


def _blocking(*matches: Match) -> Match | None:
    """Return the first match whose state is ``conflict`` or ``impossible``, if any."""
    return next((match for match in matches if match.state in ("conflict", "impossible")), None)


def _blocked(planned: PlannedObject, match: Match) -> PlannedObject:
    return _replace(planned, _STATES[match.state], reason=match.reason)


def _replace(planned: PlannedObject, state: State, **changes: Any) -> PlannedObject:
    return PlannedObject(**{**vars(planned), "state": state, **changes})
