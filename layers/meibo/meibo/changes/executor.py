"""Merge the changes of an organization to reduce the number of requests, and execute them.

Changes to the same user are executed in the order in which they were sent. Changes to different users can be merged: to
add or remove n users without roles, ⌈n/10⌉ requests are sufficient, regardless of the number of messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from operator import itemgetter
from typing import Final, TypeVar

from meibo.archive.outcomes import Outcome, OutcomeCode, OutcomeKind
from meibo.changes.messages import Action, AddChange, Change, InviteChange, is_user_id
from meibo.errors import RequestRefusedError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.errors import NO_SUCH_ROLE
from meibo.providers.auth0.membership import (
    MAX_MEMBERS_PER_REQUEST,
    Invitation,
    add_members,
    add_roles,
    create_invitation,
    list_invitations,
    organization_exists,
    remove_members,
    user_exists,
    users_by_email,
)
from meibo.providers.auth0.roles import RoleApi

# Statuses that may be caused by the ids in a request. Other statuses do not depend on the ids.
REJECTED_IDS_STATUSES: Final = frozenset({400, 404, 409, 413, 422})
MAX_IDS_IN_REASON: Final = 10

Item = TypeVar("Item")

# The index of a change, and the outcome of one of its members.
IndexedOutcome = tuple[int, Outcome]


@dataclass
class ChangeStep:
    """An action on users of an organization. ``members`` maps each id to the indexes of the changes that contain it.

    If ``single`` is true, the ids belong to one change and are processed individually. This applies to invitations and
    dry runs.
    """

    source: str
    action: Action
    single: bool = False
    members: dict[str, list[int]] = field(default_factory=dict)

    def requests(self, changes: Mapping[int, Change]) -> Iterator[list[str]]:
        """Yield the ids of each request. The users who get roles are distributed evenly over the requests.

        Auth0 limits the requests for members and for roles separately. If the users who get roles came last, only one
        of the limits could be used at a time.
        """
        ids = iter(spread_roles(self.members, lambda member: self._has_roles(member, changes)))
        while batch := list(islice(ids, 1 if self.single else MAX_MEMBERS_PER_REQUEST)):
            yield batch

    def _has_roles(self, member: str, changes: Mapping[int, Change]) -> bool:
        return any(assigns_roles(changes[index]) for index in self.members[member])


def assigns_roles(change: Change) -> bool:
    """Return whether a change assigns roles to its members."""
    return isinstance(change, AddChange) and bool(change.roles)


def spread_roles(items: Iterable[Item], has_roles: Callable[[Item], bool]) -> list[Item]:
    """Distribute the items that have roles evenly among the other items. The order within both groups is unchanged."""
    groups: tuple[list[Item], list[Item]] = ([], [])
    for item in items:
        groups[has_roles(item)].append(item)
    positions = [(number / len(group), item) for group in groups for number, item in enumerate(group)]
    return [item for _, item in sorted(positions, key=itemgetter(0))]


def merge(changes: Sequence[tuple[int, Change, Sequence[str]]]) -> list[ChangeStep]:
    """Return the steps that execute changes.

    Each item of ``changes`` is an index, a change, and the members that have no outcome yet.
    """
    steps: list[ChangeStep] = []
    # The index of the last step that contains a user, by source and user id.
    last: dict[tuple[str, str], int] = {}
    for index, change, members in changes:
        if change.dry_run or change.action == "invite":
            steps.append(
                ChangeStep(change.source, change.action, single=True, members={member: [index] for member in members})
            )
            continue
        for member in members:
            user = (change.source, member)
            number = _place(steps, change, after=last.get(user, 0))
            steps[number].members.setdefault(member, []).append(index)
            last[user] = number
    return [step for step in steps if step.members]


def _place(steps: list[ChangeStep], change: Change, after: int) -> int:
    """Return the index of the first step at or after ``after`` that can contain the change, or of a new step."""
    for number in range(after, len(steps)):
        step = steps[number]
        if not step.single and (step.source, step.action) == (change.source, change.action):
            return number
    steps.append(ChangeStep(change.source, change.action))
    return len(steps) - 1


@dataclass
class StepExecutor:
    """Executes the steps of a source in one invocation, and caches the results of look-ups."""

    client: Auth0Client
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _organizations: dict[str, bool] = field(default_factory=dict)
    _invitations: dict[str, dict[tuple[str, str], list[Invitation]]] = field(default_factory=dict)
    _roles: frozenset[str] | None = None
    # The reason contains the organization, so it is stored by organization and roles.
    _missing_roles: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)

    def execute(
        self, organization_id: str, step: ChangeStep, changes: Mapping[int, Change]
    ) -> Iterator[IndexedOutcome]:
        """Send the requests of a step and yield each outcome when it is final.

        If Auth0 rejects an id, its outcome is ``rejected``. Raises ProviderBusyError if Auth0 is busy until the end of
        the invocation, or another MeiboError if the request itself fails.
        """
        for members in step.requests(changes):
            if not step.single:
                yield from self._change_members(organization_id, step, changes, members)
                continue
            (index,) = step.members[members[0]]
            change = changes[index]
            if isinstance(change, InviteChange) and not change.dry_run:
                yield index, self._invite(change, members[0])
            else:
                yield index, self._look_up(change, members[0])

    # -- members

    def _change_members(
        self, organization_id: str, step: ChangeStep, changes: Mapping[int, Change], members: Sequence[str]
    ) -> Iterator[IndexedOutcome]:
        if not self._organizations.get(organization_id, True):
            yield from self._reject(step, members, *_no_organization(organization_id))
            return
        request = add_members if step.action == "add" else remove_members
        try:
            request(self.client, organization_id, members)
        except RequestRefusedError as error:
            if not _rejects_ids(error):
                raise
            if error.is_missing and not self._organization_exists(organization_id):
                yield from self._reject(step, members, *_no_organization(organization_id))
            elif len(members) == 1:
                yield from self._reject(step, members, "refused", str(error))
            else:
                # The rejected ids are not known, so each half is sent separately.
                middle = len(members) // 2
                yield from self._change_members(organization_id, step, changes, members[:middle])
                yield from self._change_members(organization_id, step, changes, members[middle:])
            return
        for member in members:
            for index in step.members[member]:
                yield index, self._add_roles(changes[index], member)

    def _reject(
        self, step: ChangeStep, members: Sequence[str], code: OutcomeCode, reason: str
    ) -> Iterator[IndexedOutcome]:
        for member in members:
            for index in step.members[member]:
                yield index, self._outcome(member, "rejected", code, reason)

    def _add_roles(self, change: Change, member: str) -> Outcome:
        """Assign the roles of a change, if any, to a member, and return the outcome."""
        if not isinstance(change, AddChange) or not change.roles:
            return self._outcome(member, "applied")
        key = (change.organization_id, change.roles)
        reason = self._missing_roles.get(key)
        if reason is None:
            try:
                add_roles(self.client, change.organization_id, member, change.roles)
            except RequestRefusedError as error:
                if not _rejects_ids(error):
                    raise
                reason = str(error)
                if error.code == NO_SUCH_ROLE:
                    # A role does not exist in the tenant, so the requests for other members would fail too.
                    self._missing_roles[key] = reason
            else:
                return self._outcome(member, "applied")
        reason = f"the user is now a member, but the roles were not assigned: {reason}"
        return self._outcome(member, "rejected", "roles_refused", reason)

    # -- invitations and dry runs

    def _invite(self, change: InviteChange, email: str) -> Outcome:
        rejection = self._invitation_rejection(change, email)
        if rejection:
            return rejection
        # Each request creates another invitation, so an open invitation with the same terms is reused.
        invitations = self._open_invitations(change, email)
        matching = (entry for entry in invitations if not entry.differences(change.invitation, change.roles))
        invitation = next(matching, None)
        if invitation is None:
            try:
                invitation = create_invitation(
                    self.client, change.organization_id, email, change.invitation, change.roles
                )
            except RequestRefusedError as error:
                if not _rejects_ids(error):
                    raise
                return self._outcome(email, "rejected", "refused", str(error))
            invitations.append(invitation)
        return self._outcome(email, "applied", invitation_id=invitation.id)

    def _invitation_rejection(self, change: InviteChange, email: str) -> Outcome | None:
        """Return the outcome ``rejected`` if the person cannot be invited with these terms, otherwise None."""
        if not self._organization_exists(change.organization_id):
            return self._outcome(email, "rejected", *_no_organization(change.organization_id))
        users = users_by_email(self.client, email)
        if users:
            ids = [user for user in users[:MAX_IDS_IN_REASON] if is_user_id(user)] or ["this user"]
            reason = f"the person is already a user of the tenant: send a change that adds {' or '.join(ids)}"
            return self._outcome(email, "rejected", "already_a_user", reason)
        invitations = self._open_invitations(change, email)
        differences = [invitation.differences(change.invitation, change.roles) for invitation in invitations]
        if differences and all(differences):
            reason = (
                f"invitation {invitations[0].id} is open with {', '.join(differences[0])}: revoke it in Auth0, or send"
                " a change with the roles, connection and lifetime of this invitation"
            )
            return self._outcome(email, "rejected", "invitation_differs", reason)
        return None

    def _look_up(self, change: Change, member: str) -> Outcome:
        if not self._organization_exists(change.organization_id):
            return self._outcome(member, "rejected", *_no_organization(change.organization_id))
        roles = change.roles if isinstance(change, AddChange | InviteChange) else ()
        unknown = [role for role in roles if role not in self._known_roles()]
        if unknown:
            return self._outcome(member, "rejected", "unknown_role", f"the tenant has no role {', '.join(unknown)}")
        if isinstance(change, InviteChange):
            return self._invitation_rejection(change, member) or self._outcome(member, "dry_run")
        if user_exists(self.client, member):
            return self._outcome(member, "dry_run")
        if change.action == "remove":
            return self._outcome(
                member, "dry_run", None, "the tenant has no such user, so there is no member to remove"
            )
        return self._outcome(member, "rejected", "unknown_user", "the tenant has no such user")

    # -- cached look-ups

    def _organization_exists(self, organization_id: str) -> bool:
        if organization_id not in self._organizations:
            self._organizations[organization_id] = organization_exists(self.client, organization_id)
        return self._organizations[organization_id]

    def _known_roles(self) -> frozenset[str]:
        if self._roles is None:
            self._roles = frozenset(row.value["id"] for row in RoleApi(self.client).roles())
        return self._roles

    def _open_invitations(self, change: InviteChange, email: str) -> list[Invitation]:
        """Return the open invitations of a person to an organization and application.

        Invitations from Auth0 are listed newest first, followed by invitations that this invocation created.
        """
        organization_id = change.organization_id
        if organization_id not in self._invitations:
            now = self.now()
            self._invitations[organization_id] = {
                key: [invitation for invitation in invitations if not invitation.has_expired(now)]
                for key, invitations in list_invitations(self.client, organization_id).items()
            }
        return self._invitations[organization_id].setdefault((email.casefold(), change.invitation.client_id), [])

    def _outcome(
        self,
        member: str,
        kind: OutcomeKind,
        code: OutcomeCode | None = None,
        reason: str | None = None,
        invitation_id: str | None = None,
    ) -> Outcome:
        return Outcome(member, kind, self.now(), code, reason, invitation_id)


def _rejects_ids(error: RequestRefusedError) -> bool:
    """Return whether Auth0, and not an intermediary such as a proxy, may have rejected the ids of the request."""
    return error.status in REJECTED_IDS_STATUSES and not error.foreign


def _no_organization(organization_id: str) -> tuple[OutcomeCode, str]:
    return "unknown_organization", f"the tenant has no organization {organization_id}"
