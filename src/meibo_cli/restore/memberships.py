"""Restore memberships as changes that are sent to the queue of a stack, or applied directly in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from meibo.changes.executor import StepExecutor, assigns_roles, merge, spread_roles
from meibo.changes.messages import Change, InvalidChange
from meibo.changes.queue import encode_message
from meibo.configuration import parse_documents
from meibo.errors import ConfigurationError
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.configuration import Auth0Source
from meibo.secrets import read_configuration
from meibo_cli.change_sheet import Row, grouped_changes
from meibo_cli.restore.directory_plan import ProgressState
from meibo_cli.stack import Queues, queues_of

QUEUEING_MISSING: Final = "a restore of memberships requires --queue with a source of the stack, or --without-queue"


@dataclass(frozen=True)
class Member:
    """A user to add to an organization, with roles."""

    user_id: str = field(repr=False)
    roles: tuple[str, ...]


@dataclass(frozen=True)
class MemberResult:
    """The states of a membership and of its roles, and the reason if one of them failed."""

    user_id: str = field(repr=False)
    membership: ProgressState
    roles: ProgressState
    reason: str = ""


class MembershipSender(Protocol):
    """An object that sends changes."""

    def send(self, changes: Sequence[Change]) -> Iterator[MemberResult]:
        """Send the changes of one organization, and yield the result of each member."""
        ...


@dataclass
class DirectSender:
    """Applies changes in this process, with the same requests as the function that reads the queue."""

    client: Auth0Client

    def __post_init__(self) -> None:
        self._executor = StepExecutor(self.client)

    def send(self, changes: Sequence[Change]) -> Iterator[MemberResult]:
        """Apply the changes."""
        by_index = dict(enumerate(changes))
        for step in merge([(index, change, change.members) for index, change in by_index.items()]):
            for _, outcome in self._executor.execute(changes[0].organization_id, step, by_index):
                if outcome.kind == "applied":
                    yield MemberResult(outcome.member, "done", "done")
                else:
                    is_member = outcome.code == "roles_refused"
                    yield MemberResult(
                        outcome.member, "done" if is_member else "failed", "failed", outcome.reason or ""
                    )


@dataclass
class QueueSender:
    """Sends changes to the queue of a stack. The stack applies them later."""

    queues: Queues

    def send(self, changes: Sequence[Change]) -> Iterator[MemberResult]:
        """Send the changes. The queue ignores a change that was already sent during the last five minutes."""
        for change in changes:
            self.queues.send(change, deduplication_id=hashlib.sha256(encode_message(change).encode()).hexdigest())
            for member in change.members:
                yield MemberResult(member, "queued", "queued")


def send_members(
    sender: MembershipSender, organization_id: str, members: Sequence[Member], *, source: str, change_id: str
) -> Iterator[MemberResult]:
    """Add the members to an organization, and yield their results."""
    rows = [Row(0, organization_id, "add", member.user_id, member.roles) for member in members]
    changes = list(grouped_changes(rows, {"source": source, "change_id": change_id}, None))
    for change in changes:
        if isinstance(change, InvalidChange):
            for member in change.members:
                yield MemberResult(member, "failed", "failed", change.reason)
    valid = [change for change in changes if not isinstance(change, InvalidChange)]
    if valid:
        # The function receives ten messages at a time. Auth0 limits the requests for members and for roles separately,
        # so if the changes with roles came last, only one of the limits would be used at a time.
        yield from sender.send(spread_roles(valid, assigns_roles))


@dataclass(frozen=True)
class Queueing:
    """The choice between the queue of a stack and direct requests.

    Memberships are sent to the queue as changes of ``source``, or directly if it is None. ``configuration`` is the SSM
    parameter with the sources of the stack.
    """

    source: str | None
    stack: str
    configuration: str

    @classmethod
    def of_options(cls, queue: str | None, stack: str, configuration: str, *, without_queue: bool) -> Queueing | None:
        """Return the choice that the options specify, or None if neither option was used.

        Raises ConfigurationError if both options were used.
        """
        if queue is not None and without_queue:
            raise ConfigurationError("--queue and --without-queue cannot be used together")
        return cls(queue, stack, configuration) if queue is not None or without_queue else None

    def sender(self, client: Auth0Client) -> MembershipSender:
        """Return the sender.

        Raises ConfigurationError if the stack does not have the source, or if the source is another tenant.
        """
        if self.source is None:
            return DirectSender(client)
        source = parse_documents(read_configuration(self.configuration)).source(self.source)
        domain = source.domain if isinstance(source, Auth0Source) else None
        if domain != client.domain:
            raise ConfigurationError(
                f"--queue: expected an Auth0 source of the stack with the domain {client.domain}, found {self.source!r}"
                f" {'with the domain ' + domain if domain else 'which the configuration does not contain'}"
            )
        return QueueSender(queues_of(self.stack))


WITHOUT_QUEUE: Final = Queueing(None, stack="", configuration="")
"""The choice to send memberships directly."""
