"""The complete system in one process: the template, handlers, workflow and simulated providers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from meibo.archive.keys import run_manifest_key
from meibo.providers import clear_clients
from meibo_local.aws import LocalAws, local_aws
from meibo_local.lambda_service import InvocationResult
from meibo_simulators import SimulatedDomain, SimulatedTenant, Simulators

TICK = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)
RUN = "20261121T180000Z"
FOLDER = f"runs/dt=2026-11-21/run={RUN}/"


@dataclass
class Invocations:
    """An observer that records the function, event and result of each invocation."""

    calls: list[tuple[str, Any, InvocationResult]] = field(default_factory=list)

    def invoked(self, function: str, event: Any) -> None:
        pass

    def returned(self, function: str, event: Any, result: InvocationResult) -> None:
        self.calls.append((function, event, result))

    def count(self, function: str) -> int:
        return sum(name == function for name, _, _ in self.calls)


@dataclass
class Stack:
    """The local AWS, the simulators and the recorded invocations."""

    aws: LocalAws
    simulators: Simulators
    invocations: Invocations

    @property
    def tenant(self) -> SimulatedTenant:
        return self.simulators.auth0["acme"]

    @property
    def domain(self) -> SimulatedDomain:
        return self.simulators.cybozu["example"]

    def auth0_source(self, *exports: dict[str, Any]) -> dict[str, Any]:
        return self.tenant.source(*exports)

    def cybozu_source(self, *exports: dict[str, Any]) -> dict[str, Any]:
        return self.domain.source(*exports)

    def configure(self, *sources: dict[str, Any], secrets: dict[str, Any] | None = None) -> None:
        defaults = {"meibo/acme": self.tenant.credentials(), "meibo/example": self.domain.credentials()}
        self.aws.configure({"sources": sources}, {**defaults, **(secrets or {})})

    def run_manifest(self, run_id: str, attempt: int = 1) -> dict[str, Any]:
        manifest: dict[str, Any] = self.aws.read_json(run_manifest_key(run_id, attempt))
        return manifest


class System(Stack):
    """A stack that executes runs."""

    def run(self, *, days: int = 0) -> dict[str, Any]:
        """Invoke the schedule, wait for the workflow, and return the run manifest."""
        moment = TICK + timedelta(days=days)
        result = self.aws.tick(moment)
        assert not result.failed, result.payload
        return self.finished(result.payload["run_id"], result.payload["attempt"])

    def repair(self, run_id: str = RUN) -> dict[str, Any]:
        result = self.aws.invoke({"run_id": run_id, "repair": True})
        assert not result.failed, result.payload
        return self.finished(run_id, result.payload["attempt"])

    def finished(self, run_id: str, attempt: int) -> dict[str, Any]:
        wait_for(lambda: self.aws.execution(run_id, attempt)["status"] != "RUNNING")
        manifest = self.run_manifest(run_id, attempt)
        status = self.aws.execution(run_id, attempt)["status"]
        assert (status == "SUCCEEDED") == manifest["complete"]
        return manifest


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    """Poll until a condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"expected the condition to become true within {seconds:.0f} s")
        time.sleep(0.05)


@contextmanager
def running_system(tenant: SimulatedTenant, domain: SimulatedDomain, **parameters: str) -> Iterator[System]:
    """Start the simulators and the stack for a tenant and a domain."""
    invocations = Invocations()
    with Simulators([tenant], [domain]) as simulators:
        clear_clients()
        with local_aws(parameters=parameters, environment=simulators.environment(), observer=invocations) as aws:
            yield System(aws, simulators, invocations)
        clear_clients()
