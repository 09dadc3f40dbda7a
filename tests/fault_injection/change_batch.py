"""A batch of membership changes for the whole system."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.fault_injection.system import WholeSystem
from tests.support.changes import change_message

UNKNOWN_USER = "auth0|0000000000000000000000ff"
GUEST = "guest@example.net"
# Enough for the retries after a killed invocation and a returned message.
MAX_DELIVERIES = 8


class ChangeBatch:
    """A batch with changes of every kind, and its expected result."""

    def __init__(self, system: WholeSystem) -> None:
        self.system = system
        tenant = system.tenant
        self.first, self.second = tenant.organizations.ids()[:2]
        self.user_ids = [user["user_id"] for user in tenant.expected_users()]
        role = next(iter(tenant.roles.by_id))
        stays, leaves = self.user_ids[20:33], self.user_ids[:2]
        self.before = {self.first: set(leaves), self.second: set()}
        self.after = {self.first: set(stays) | {self.user_ids[40]}, self.second: {self.user_ids[3]}}
        self.messages = [
            # Two requests. The second contains an unknown user and is split until only that id remains.
            self._change(self.first, "add", [*stays, UNKNOWN_USER]),
            self._change(self.first, "remove", leaves),
            self._change(self.first, "add", [self.user_ids[40]], roles=[role]),
            self._change(self.second, "add", [self.user_ids[3], self.user_ids[4]]),
            self._change(self.second, "remove", [self.user_ids[4]]),
            self._change(self.second, "invite", [GUEST], invitation={"client_id": "portal", "inviter": "Somebody"}),
            "{not json",
        ]
        self.outcomes = sorted(
            [*((member, "applied") for member in (*stays, *leaves, self.user_ids[40], self.user_ids[3]))]
            + [(self.user_ids[4], "applied")] * 2
            + [(GUEST, "applied"), (UNKNOWN_USER, "rejected"), ("", "rejected")]
        )

    def _change(self, organization: str, action: str, members: list[str], **more: Any) -> dict[str, Any]:
        return change_message(organization, *members, action=action, change_id=f"hr-{action}-{organization}", **more)

    def reset(self) -> None:
        """Reset the system, give the organizations their first members and send the messages."""
        self.system.reset()
        organizations = self.system.tenant.organizations
        for organization, members in self.before.items():
            organizations.remove_members(organization, list(self.system.tenant.memberships[organization]))
            organizations.add_members(organization, sorted(members))
        self.system.tenant.invitations.all.clear()
        for message in self.messages:
            self.system.aws.changes.send(message)

    def deliver(self) -> int:
        """Poll the queue until it is empty, and return the number of deliveries."""
        source = self.system.aws.changes.source
        for deliveries in range(1, MAX_DELIVERIES + 1):
            while source.poll():
                pass
            if source.queue.size() == 0:
                return deliveries
            self.system.show_hidden_messages()
        raise AssertionError(f"{source.queue.size()} messages are still on the queue after {MAX_DELIVERIES} deliveries")

    def check(self) -> None:
        """Check the members, one outcome record per member, the DLQ messages, and the number of invitations."""
        for organization, members in self.after.items():
            assert set(self.system.tenant.memberships[organization]) == members
        lines = self.system.outcomes()
        assert sorted((line["member"] or "", line["outcome"]) for line in lines) == self.outcomes
        bodies = Counter(message["Body"] for message in self.system.aws.changes.take_dead_letters())
        assert bodies.pop("{not json") >= 1
        (rejected,) = {tuple(json.loads(body)["members"]) for body in bodies}
        assert rejected == (UNKNOWN_USER,)
        requests = [request for request in self.system.tenant.requests if request.path.endswith("/invitations")]
        assert sum(request.method == "POST" and request.status < 300 for request in requests) == 1, "invited twice"
        assert self.system.overwritten() == []
