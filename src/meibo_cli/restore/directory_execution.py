"""Apply the plan of a restore.

The order is: roles and permissions, organizations, enabled connections, direct role assignments, and then the
memberships and roles of members of each organization.

All requests are idempotent, except those that create a role or an organization. These requests are recorded before they
are sent. If the result of such a request is unknown, the tenant is searched for the name of the object before the
request is sent again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Final

import typer

from meibo.errors import ConfigurationError, ProviderBusyError, RequestRefusedError
from meibo.formatting import format_count, format_number
from meibo.providers.auth0.client import Auth0Client
from meibo_cli.exit_codes import EXIT_DIFFERENT
from meibo_cli.files import locked_folder, replace_file
from meibo_cli.restore.auth0_target import check_scopes, target_client, target_credentials
from meibo_cli.restore.console import require_confirmation, resumable
from meibo_cli.restore.directory_plan import (
    KINDS,
    PLURALS,
    DirectoryPlan,
    PlannedObject,
    ProgressFile,
    open_progress,
    planned_objects,
)
from meibo_cli.restore.directory_planner import MEMBERS, ORGANIZATIONS, ROLE_MEMBERS, ROLES
from meibo_cli.restore.directory_requests import (
    MAX_USERS_PER_REQUEST,
    add_permissions,
    assign_role,
    create_organization,
    create_role,
    enable_connection,
    organization_named,
    required_scopes,
    roles_named,
    update_connection,
    update_organization,
    update_role,
)
from meibo_cli.restore.memberships import (
    QUEUEING_MISSING,
    DirectSender,
    Member,
    MembershipSender,
    Queueing,
    send_members,
)
from meibo_cli.terminal import Column, TextConsole, escape_control_characters, print_table, progress_bar

FAILED: Final = "failed.ndjson"
_MAX_ATTEMPTS: Final = 3

NumberedObject = tuple[int, PlannedObject]


@dataclass
class PlanExecution:
    """The execution of the plan in a folder. ``advance`` is called with the number of processed objects."""

    client: Auth0Client
    folder: Path
    plan: DirectoryPlan
    progress: ProgressFile
    sender: MembershipSender
    source: str
    advance: Callable[[int], None] = lambda _: None
    # The ids of roles and organizations in the tenant by archived id. The id of an object that was not created is None.
    _targets: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._targets.update(self.plan.targets)

    def run(self) -> None:
        """Send the requests that were not sent before, that failed before, or whose result is unknown.

        If Auth0 rejects a request, this is recorded, and the next requests are sent. Raises MeiboError if the tenant
        cannot be reached or rejects the credentials. Another execution can then continue the plan.
        """
        for section, objects in groupby(planned_objects(self.folder), key=_section):
            if section == "assignment":
                for role, assignments in groupby(objects, key=lambda item: item[1].role):
                    self._assign(role, assignments)
            elif section == "member":
                for organization, members in groupby(objects, key=lambda item: item[1].organization):
                    self._add_members(organization, list(members))
            else:
                for line, planned in objects:
                    self._apply(line, planned)

    def _is_pending(self, item: NumberedObject) -> bool:
        return item[1].is_applied(upsert=self.plan.upsert) and not self.progress.is_finished(item[0])

    # -- roles, organizations and connections

    def _apply(self, line: int, planned: PlannedObject) -> None:
        """Apply a role, an organization or a connection, and record its id for the objects that refer to it."""
        recorded = self.progress.get(line)
        target = planned.target or (recorded.target if recorded else None)
        if self._is_pending((line, planned)):
            try:
                target = self._request(line, planned)
                self.progress.add(line, "done", target=target, durable=True)
            except RequestRefusedError as error:
                recorded = self.progress.get(line)
                target = recorded.target if recorded else None
                self.progress.add(line, "failed", target=target, reason=str(error), durable=True)
            self.advance(1)
        if planned.kind != "connection":
            self._targets[planned.role or planned.organization] = planned.target or target

    def _request(self, line: int, planned: PlannedObject) -> str | None:
        client, target = self.client, planned.target
        if planned.kind == "connection":
            organization = self._target(planned.organization, "organization")
            if planned.state == "create":
                enable_connection(client, organization, target or "", planned.body)
            else:
                update_connection(client, organization, target or "", planned.body)
            return target
        if planned.kind == "organization":
            if target is None:
                return self._create(
                    line,
                    lambda: create_organization(client, planned.body),
                    lambda: organization_named(client, planned.name),
                )
            update_organization(client, target, planned.body)
            return target
        if target is None:
            # The tenant had no role with this name when the plan was written.
            target = self._create(
                line,
                lambda: create_role(client, planned.body),
                lambda: next(iter(roles_named(client, planned.name)), None),
            )
        elif planned.body:
            update_role(client, target, planned.body)
        add_permissions(client, target, planned.permissions)
        return target

    def _create(self, line: int, create: Callable[[], str], find: Callable[[], str | None]) -> str:
        """Return the id of a new object. If the result of an earlier request is unknown, search for it first."""
        recorded = self.progress.get(line)
        if recorded is not None and recorded.target is not None:
            return recorded.target
        target = find() if recorded is not None and recorded.state == "sent" else None
        attempts = 0
        while target is None:
            self.progress.add(line, "sent", durable=True)
            try:
                target = create()
            except ProviderBusyError as error:
                attempts += 1
                if not error.uncertain or attempts == _MAX_ATTEMPTS:
                    raise
                target = find()
        self.progress.add(line, "sent", target=target, durable=True)
        return target

    def _target(self, identity: str, noun: str) -> str:
        target = self._targets.get(identity)
        if target is None:
            raise RequestRefusedError(f"the {noun} {identity} was not created")
        return target

    # -- direct role assignments

    def _assign(self, role: str, assignments: Iterable[NumberedObject]) -> None:
        pending = [item for item in assignments if self._is_pending(item)]
        for start in range(0, len(pending), MAX_USERS_PER_REQUEST):
            self._assign_batch(role, pending[start : start + MAX_USERS_PER_REQUEST])

    def _assign_batch(self, role: str, batch: Sequence[NumberedObject]) -> None:
        """Assign a role. If Auth0 rejects a batch, each half is sent, until each rejected request has only one user."""
        try:
            assign_role(self.client, self._target(role, "role"), [planned.target or "" for _, planned in batch])
        except RequestRefusedError as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                self._assign_batch(role, batch[:middle])
                self._assign_batch(role, batch[middle:])
                return
            self.progress.add(batch[0][0], "failed", reason=str(error))
        else:
            for line, _ in batch:
                self.progress.add(line, "done")
        self.advance(len(batch))

    # -- memberships

    def _add_members(self, organization: str, members: Sequence[NumberedObject]) -> None:
        lines: dict[str, list[NumberedObject]] = {}
        for line, planned in filter(self._is_pending, members):
            lines.setdefault(planned.target or "", []).append((line, planned))
        try:
            target = self._target(organization, "organization")
        except RequestRefusedError as error:
            for line, _ in (item for items in lines.values() for item in items):
                self.progress.add(line, "failed", reason=str(error))
            return
        pending = [Member(user_id, self._roles(items)) for user_id, items in lines.items()]
        for result in send_members(self.sender, target, pending, source=self.source, change_id=self.plan.change_id):
            for line, planned in lines[result.user_id]:
                state = result.membership if planned.kind == "membership" else result.roles
                if planned.kind == "member_role" and self._targets.get(planned.role) is None:
                    self.progress.add(line, "failed", reason=f"the role {planned.role} was not created")
                else:
                    self.progress.add(line, state, reason=result.reason if state == "failed" else "")
            self.advance(len(lines[result.user_id]))

    def _roles(self, items: Iterable[NumberedObject]) -> tuple[str, ...]:
        roles = (self._targets.get(planned.role) for _, planned in items if planned.role)
        return tuple(sorted(role for role in roles if role is not None))


def _section(item: NumberedObject) -> str:
    kind = item[1].kind
    return "member" if kind in ("membership", "member_role") else kind


def failed_lines(folder: Path, progress: ProgressFile) -> Iterator[bytes]:
    """Yield a line of NDJSON, with the reason, for each object that was not restored because of an error."""
    for line, planned in planned_objects(folder):
        result = progress.get(line)
        if result is not None and result.state == "failed":
            yield replace(planned, reason=result.reason).line()


# -- the command


def apply_directory_plan(folder: Path, queueing: Queueing | None, *, yes: bool) -> None:
    """Apply the plan in a folder, or continue it, after a confirmation."""
    with locked_folder(folder):
        execution = open_plan(folder, queueing)
        plan = execution.plan
        total = sum(plan.applied(kind) for kind in KINDS)
        resume = f"`meibo restore --resume {folder}`"
        if total and not yes:
            require_confirmation(
                f"Apply plan {plan.sha256[:12]} of run {plan.run_id}, which creates or changes"
                f" {format_count(total, 'object')} in {plan.domain}?",
                f"nothing was sent; {resume} applies the plan",
            )
        with resumable(f"{resume} continues the plan"):
            failed = execution.run()
    if failed or plan.has_findings:
        raise typer.Exit(EXIT_DIFFERENT)


@dataclass(frozen=True)
class OpenPlan:
    """The plan in a locked folder, and a client of its tenant. ``source`` is the source of the membership changes."""

    folder: Path
    plan: DirectoryPlan
    client: Auth0Client
    sender: MembershipSender
    source: str

    def run(self) -> int:
        """Execute or continue the plan, print the results, and return the number of objects that were not restored."""
        total = sum(self.plan.applied(kind) for kind in KINDS)
        with open_progress(self.folder) as progress:
            with progress_bar("restore", total) as advance:
                PlanExecution(
                    self.client,
                    self.folder,
                    self.plan,
                    progress,
                    self.sender,
                    source=self.source,
                    advance=advance,
                ).run()
            return _print_results(self.folder, self.plan, progress)


def open_plan(folder: Path, queueing: Queueing | None) -> OpenPlan:
    """Return the plan in a folder.

    Raises ConfigurationError if the plan contains memberships and ``queueing`` is None, and ScopeMissingError if the
    access token does not contain all OAuth scopes for the requests of the plan.
    """
    plan = DirectoryPlan.read(folder)
    if queueing is None and plan.applied("membership") + plan.applied("member_role"):
        raise ConfigurationError(QUEUEING_MISSING)
    _, scopes = required_scopes(_applied_datasets(plan), upsert=plan.upsert)
    client = target_client(plan.domain, target_credentials(plan.source, scopes), plan.audience)
    check_scopes(client, scopes)
    sender = queueing.sender(client) if queueing else DirectSender(client)
    return OpenPlan(folder, plan, client, sender, source=(queueing.source if queueing else None) or plan.source)


def _applied_datasets(plan: DirectoryPlan) -> list[str]:
    kinds = {
        ROLES: ("role",),
        ORGANIZATIONS: ("organization", "connection"),
        ROLE_MEMBERS: ("assignment",),
        MEMBERS: ("membership", "member_role"),
    }
    return [dataset for dataset, names in kinds.items() if any(plan.applied(kind) for kind in names)]


def _print_results(folder: Path, plan: DirectoryPlan, progress: ProgressFile) -> int:
    """Print the results by kind, write the objects that were not restored to a file, and return their number."""
    counts: Counter[tuple[str, str]] = Counter()
    for line, planned in planned_objects(folder):
        result = progress.get(line)
        if result is not None and planned.is_applied(upsert=plan.upsert):
            counts[planned.kind, result.state] += 1
    states = ("done", "queued", "failed")
    columns = (Column("object"), Column("planned", number=True), *(Column(state, number=True) for state in states))
    rows = [
        [PLURALS[kind], format_number(plan.applied(kind)), *(format_number(counts[kind, state]) for state in states)]
        for kind in KINDS
        if kind in plan.counts
    ]
    print_table(TextConsole(), columns, rows)
    failed = list(failed_lines(folder, progress))
    (folder / FAILED).unlink(missing_ok=True)
    if failed:
        replace_file(folder / FAILED, b"".join(failed))
        shown = escape_control_characters(str(folder / FAILED))
        typer.echo(f"Auth0 rejected {format_count(len(failed), 'object')}; the reasons are in {shown}", err=True)
    if sum(counts[kind, "queued"] for kind in KINDS):
        typer.echo(f"`meibo changes outcome {plan.change_id}` shows the outcomes of the queued changes", err=True)
    return len(failed)
