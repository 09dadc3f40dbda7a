"""Send one step to a tenant and tell what became of each member."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from meibo.changes.membership_api import MembershipApi
from meibo.changes.merge import Step
from meibo.changes.messages import Change, InvitationTerms, is_user_id
from meibo.changes.outcomes import Kind, Outcome
from meibo.errors import RequestRefusedError
from meibo.providers.auth0.invitations import Invitation

# What a refusal of the ids themselves looks like. Any other (a redirect, say) is no judgement about them.
ABOUT_THE_REQUEST: Final = frozenset({400, 404, 409, 413, 422})

MAX_IDS_IN_REASON: Final = 10

# The index of a change in the step's list of changes, and the outcome of one of its members.
Found = tuple[int, Outcome]


@dataclass
class StepExecutor:
    """Sends the steps of one source for the time of one invocation."""

    api: MembershipApi
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _organizations: dict[str, bool] = field(default_factory=dict)
    _invitations: dict[str, dict[tuple[str, str], list[Invitation]]] = field(default_factory=dict)
    _roles: frozenset[str] | None = None
    # By organization as well: roles can belong to an organization, and the reason names it.
    _missing_roles: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)

    def take(self, organization_id: str, step: Step, changes: Mapping[int, Change]) -> Iterator[Found]:
        """Send the step; yields outcomes as they become final.

        Raises ProviderBusyError when time or the provider's patience ends, and what says that we are wrong. A
        refusal of ids is no error here: it is their outcome.
        """
        for portion in step.requests():
            if not step.alone:
                yield from self._send(organization_id, step, changes, portion)
                continue
            (index,) = step.members[portion[0]]
            change = changes[index]
            look = self._look_up if change.dry_run else self._invite
            yield index, look(change, portion[0])

    # -- members

    def _send(
        self, organization_id: str, step: Step, changes: Mapping[int, Change], members: Sequence[str]
    ) -> Iterator[Found]:
        if not self._organizations.get(organization_id, True):
            yield from self._all(step, members, lambda member: self._no_organization(organization_id, member))
            return
        change = self.api.add if step.action == "add" else self.api.remove
        try:
            change(organization_id, members)
        except RequestRefusedError as error:
            yield from self._refused(organization_id, step, changes, members, error)
            return
        for member in members:
            for index in step.members[member]:
                yield index, self._with_roles(changes[index], member)

    def _refused(
        self,
        organization_id: str,
        step: Step,
        changes: Mapping[int, Change],
        members: Sequence[str],
        error: RequestRefusedError,
    ) -> Iterator[Found]:
        """Find out whom a refusal is about: halves are sent until the bad ids stand alone."""
        if error.status not in ABOUT_THE_REQUEST:
            raise error
        if error.status == 404 and not self._organization_exists(organization_id):
            yield from self._all(step, members, lambda member: self._no_organization(organization_id, member))
        elif len(members) == 1:
            yield from self._all(step, members, lambda one: self._outcome(one, "rejected", "refused", str(error)))
        else:
            middle = len(members) // 2
            yield from self._send(organization_id, step, changes, members[:middle])
            yield from self._send(organization_id, step, changes, members[middle:])

    @staticmethod
    def _all(step: Step, members: Sequence[str], outcome: Callable[[str], Outcome]) -> Iterator[Found]:
        for member in members:
            for index in step.members[member]:
                yield index, outcome(member)

    def _with_roles(self, change: Change, member: str) -> Outcome:
        if change.action != "add" or not change.roles:
            return self._outcome(member, "applied")
        key = (change.organization_id, change.roles)
        reason = self._missing_roles.get(key)
        if reason is None:
            try:
                self.api.add_roles(change.organization_id, member, change.roles)
            except RequestRefusedError as error:
                if error.status not in ABOUT_THE_REQUEST:
                    raise
                reason = str(error)
                if "no such role" in reason:
                    # It is so for every member; asking for each would only cost requests.
                    self._missing_roles[key] = reason
            else:
                return self._outcome(member, "applied")
        return self._outcome(
            member, "rejected", "roles_refused", f"is a member now, without the roles asked for: {reason}"
        )

    # -- invitations and dry runs

    def _invite(self, change: Change, email: str) -> Outcome:
        rejection = self._invitation_rejection(change, email)
        if rejection:
            return rejection
        # Invitations are not idempotent at the provider: an open one with the same terms is not created again.
        invitations = self._open_invitations(change, email)
        invitation = next((found for found in invitations if not _differences(found, change)), None)
        if invitation is None:
            terms = change.invitation or InvitationTerms("", "")
            try:
                invitation = self.api.invite(change.organization_id, email, terms, change.roles)
            except RequestRefusedError as error:
                if error.status not in ABOUT_THE_REQUEST:
                    raise
                return self._outcome(email, "rejected", "refused", str(error))
            invitations.append(invitation)
        return self._outcome(email, "applied", invitation_id=invitation.id)

    def _invitation_rejection(self, change: Change, email: str) -> Outcome | None:
        """Return the outcome of a person who cannot be invited as the change says, or None."""
        if not self._organization_exists(change.organization_id):
            return self._no_organization(change.organization_id, email)
        users = self.api.users_by_email(email)
        if users:
            ids = [user for user in users[:MAX_IDS_IN_REASON] if is_user_id(user)] or ["the id"]
            reason = f"is a user of the tenant already: send the action add with {' or '.join(ids)}"
            return self._outcome(email, "rejected", "already_a_user", reason)
        invitations = self._open_invitations(change, email)
        differences = [_differences(invitation, change) for invitation in invitations]
        if differences and all(differences):
            reason = (
                f"invitation {invitations[0].id} is open with {', '.join(differences[0])}: revoke it in Auth0, or send"
                " its terms"
            )
            return self._outcome(email, "rejected", "invitation_differs", reason)
        return None

    def _look_up(self, change: Change, member: str) -> Outcome:
        if not self._organization_exists(change.organization_id):
            return self._no_organization(change.organization_id, member)
        unknown = [role for role in change.roles if role not in self._known_roles()]
        if unknown:
            return self._outcome(member, "rejected", "unknown_role", f"the tenant has no role {', '.join(unknown)}")
        if change.action == "invite":
            return self._invitation_rejection(change, member) or self._outcome(member, "dry_run")
        if self.api.user_exists(member):
            return self._outcome(member, "dry_run")
        if change.action == "remove":
            return self._outcome(member, "dry_run", None, "the tenant has no such user, so there is nobody to remove")
        return self._outcome(member, "rejected", "unknown_user", "the tenant has no such user")

    # -- what is asked once

    def _organization_exists(self, organization_id: str) -> bool:
        if organization_id not in self._organizations:
            self._organizations[organization_id] = self.api.organization_exists(organization_id)
        return self._organizations[organization_id]

    def _known_roles(self) -> frozenset[str]:
        if self._roles is None:
            self._roles = self.api.role_ids()
        return self._roles

    def _open_invitations(self, change: Change, email: str) -> list[Invitation]:
        """Return the open invitations of a person to the change's organization and application, the newest first."""
        organization_id = change.organization_id
        if organization_id not in self._invitations:
            now = self.now()
            self._invitations[organization_id] = {
                key: [invitation for invitation in invitations if not invitation.has_expired(now)]
                for key, invitations in self.api.invitations(organization_id).items()
            }
        client_id = change.invitation.client_id if change.invitation else ""
        return self._invitations[organization_id].setdefault((email.casefold(), client_id), [])

    def _no_organization(self, organization_id: str, member: str) -> Outcome:
        reason = f"the tenant has no organization {organization_id}"
        return self._outcome(member, "rejected", "unknown_organization", reason)

    def _outcome(
        self,
        member: str,
        kind: Kind,
        code: str | None = None,
        reason: str | None = None,
        invitation_id: str | None = None,
    ) -> Outcome:
        return Outcome(member, kind, self.now(), code, reason, invitation_id)


def _differences(invitation: Invitation, change: Change) -> list[str]:
    terms = change.invitation
    return invitation.differences(
        roles=change.roles,
        connection_id=terms.connection_id if terms else None,
        ttl_sec=terms.ttl_sec if terms else None,
    )
