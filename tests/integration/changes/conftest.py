"""The queue, the real function and a tenant with organizations over HTTPS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from meibo.providers import clear_clients
from meibo_local.aws import LocalAws, local_aws
from meibo_simulators import SimulatedTenant, Simulators


@dataclass
class ChangesSystem:
    """The queues, the tenant and the archive of a test."""

    aws: LocalAws
    tenant: SimulatedTenant

    def __post_init__(self) -> None:
        self.organizations = self.tenant.organizations.ids()
        self.organization = self.organizations[0]
        self.user_ids = [user["user_id"] for user in self.tenant.expected_users()]
        self.roles = list(self.tenant.roles.by_id)

    def change(self, *members: str, action: str = "add", **more: Any) -> dict[str, Any]:
        return {
            "version": 1,
            "change_id": "hr-1",
            "source": "acme",
            "organization_id": self.organization,
            "action": action,
            "members": list(members),
            **more,
        }

    def send(self, *members: str, **more: Any) -> str:
        return self.aws.changes.send(self.change(*members, **more))

    def drain(self, seconds: float = 60) -> None:
        assert self.aws.changes.source.drain(seconds)

    def lines(self, message_id: str | None = None) -> list[dict[str, Any]]:
        lines = [
            json.loads(line) for key in self.aws.keys("changes/") for line in self.aws.read(key).decode().splitlines()
        ]
        return [line for line in lines if message_id in (None, line["message_id"])]

    def outcomes(self, message_id: str) -> dict[str, str]:
        lines = self.lines(message_id)
        outcomes = {line["member"]: line["outcome"] for line in lines}
        assert len(outcomes) == len(lines), "a member has two outcomes"
        return outcomes

    def members(self) -> frozenset[str]:
        return self.tenant.memberships[self.organization]


@pytest.fixture
def tenant() -> SimulatedTenant:
    return SimulatedTenant("acme", users=120, organizations=4, members=0)


@pytest.fixture
def queue(tenant: SimulatedTenant) -> Iterator[ChangesSystem]:
    with Simulators([tenant], []) as simulators:
        clear_clients()
        with local_aws(environment=simulators.environment()) as aws:
            source = tenant.source({"dataset": "users"})
            aws.configure({"sources": [source]}, {"meibo/acme": tenant.credentials()})
            yield ChangesSystem(aws, tenant)
        clear_clients()
