"""Fakes of the workflow and a provider, in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from meibo.archive.copy import Content, CopyResult, Counts, LocationSource, StreamSource
from meibo.clock import Clock
from meibo.configuration import Configuration, parse_configuration
from meibo.errors import RequestRefusedError
from meibo.exports.archive import Archiver
from meibo.exports.checkpoint import Collected, Collector, Unfinished
from meibo.exports.create import RunCreator
from meibo.exports.events import ExportEvent
from meibo.exports.plan import ExportJob, PlannedExport
from meibo.exports.workflow import ExecutionStatus
from meibo.providers import PROVIDERS, provider
from meibo.providers.auth0.provider import Auth0Provider
from meibo.providers.base import ExportRequest, Pages, ProviderContext
from tests.support.clock import FakeClock
from tests.support.exports import planned_export
from tests.support.memory_archive import MemoryStorage

TICK = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)
RUN = "20261121T180000Z"
EXPORT = planned_export(
    "users",
    request={"fields": [{"name": "user_id"}]},
    has_job=True,
    job_deadline_seconds=3600,
    job=ExportJob(id="job_0000000000000001", created_at=TICK, number=1),
)

ORGANIZATIONS = {
    "org_0000000000000001": ["con_0000000000000001", "con_000000000000000S"],
    "org_0000000000000002": ["con_000000000000000S"],
}


@dataclass
class FakeWorkflow:
    """Executions by run and attempt. A started execution runs until a test changes its status."""

    executions: dict[tuple[str, int], ExecutionStatus] = field(default_factory=dict)
    starts: list[tuple[str, int, str]] = field(default_factory=list)

    def status(self, run_id: str, attempt: int) -> ExecutionStatus:
        return self.executions.get((run_id, attempt), "NEVER_STARTED")

    def start(self, run_id: str, attempt: int, *, bucket: str, items_key: str) -> None:
        if (run_id, attempt) not in self.executions:
            self.executions[run_id, attempt] = "RUNNING"
            self.starts.append((run_id, attempt, items_key))


class FakeAuth0(Auth0Provider):
    """Records the jobs. ``fails`` maps export ids to the errors of their jobs. Each method calls ``wait`` first."""

    def __init__(self) -> None:
        self.fails: dict[str, Exception] = {}
        self.jobs: list[str] = []
        self.wait: Callable[[], None] = lambda: None

    def connection_ids(self, organization_id: str) -> list[str]:
        self.wait()
        if organization_id not in ORGANIZATIONS:
            raise RequestRefusedError(f"organization {organization_id} has no enabled connection")
        return ORGANIZATIONS[organization_id]

    def create_job(self, export: ExportRequest, context: ProviderContext) -> str:
        assert isinstance(export, PlannedExport)
        self.wait()
        if export.export_id in self.fails:
            raise self.fails[export.export_id]
        self.jobs.append(export.export_id)
        return f"job_{len(self.jobs):016d}"


@pytest.fixture(autouse=True)
def fake_auth0(monkeypatch: pytest.MonkeyPatch) -> FakeAuth0:
    fake = FakeAuth0()
    monkeypatch.setitem(PROVIDERS, "auth0", fake)
    # The fake provider also implements the API of organizations.
    monkeypatch.setattr("meibo.providers.auth0.provider.OrganizationApi", lambda _client: fake)
    return fake


def auth0_source(*exports: dict[str, Any], name: str = "acme") -> dict[str, Any]:
    return {
        "provider": "auth0",
        "name": name,
        "domain": f"{name}.jp.auth0.com",
        "secret": f"meibo/{name}",
        "exports": list(exports),
    }


def cybozu_source(*exports: dict[str, Any]) -> dict[str, Any]:
    return {
        "provider": "cybozu",
        "name": "example",
        "base_url": "https://example.cybozu.com",
        "secret": "meibo/example",
        "exports": list(exports),
    }


def configuration_of(*sources: dict[str, Any]) -> Configuration:
    return parse_configuration(json.dumps({"sources": sources}))


@dataclass
class ExportsHarness:
    """A RunCreator with its store, workflow, providers and clock."""

    configuration: Configuration
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    workflow: FakeWorkflow = field(default_factory=FakeWorkflow)
    seconds_left: float = 900.0
    clock: Clock = field(default_factory=lambda: FakeClock(TICK.timestamp()))

    @property
    def providers(self) -> FakeAuth0:
        registered = provider("auth0")
        assert isinstance(registered, FakeAuth0)
        return registered

    @property
    def creator(self) -> RunCreator:
        return RunCreator(
            storage=self.storage,
            workflow=self.workflow,
            bucket="archive",
            configuration=lambda: self.configuration,
            context=ProviderContext(lambda: self.seconds_left),
            clock=self.clock,
        )

    def begin_failed_run(self) -> None:
        """Begin the run, and set the execution of its first attempt to failed."""
        self.creator.begin(TICK)
        self.workflow.executions[RUN, 1] = "FAILED"


@pytest.fixture
def harness() -> ExportsHarness:
    return ExportsHarness(
        configuration_of(
            auth0_source(
                {"dataset": "users", "connection_id": "con_0000000000000001"},
                {"dataset": "users", "format": "csv", "connection_id": "con_0000000000000002", "limit": 5},
            ),
            cybozu_source({"dataset": "users", "format": "csv"}),
        )
    )


def result(rows: int | None = 10, sha256: str = "ab" * 32) -> CopyResult:
    return CopyResult(
        bytes=123,
        sha256=sha256,
        checksum="AAAAAAAAAAA=",
        checksum_algorithm="CRC64NVME",
        checksum_type="FULL_OBJECT",
        etag='"etag"',
        version_id="v1",
        gzip=True,
        rows=rows,
        columns=("user_id",),
        expanded_bytes=456,
        already_there=False,
        counts=Counts(),
    )


@dataclass
class FakeCopier:
    storage: MemoryStorage
    result: CopyResult
    error: Exception | None = None
    contents: list[Content] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)

    def copy(self, source: LocationSource | StreamSource, key: str, content: Content) -> CopyResult:
        if self.error:
            raise self.error
        self.copied.append(key)
        self.contents.append(content)
        self.storage.objects[key] = b"the file"
        return self.result

    def read_back(self, key: str, content: Content) -> CopyResult:
        self.read.append(key)
        return replace(self.result, already_there=True)


@dataclass(frozen=True, kw_only=True)
class FakeCollected(Collected):
    def notes(self) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class FakeCollector(Collector):
    unfinished: Unfinished | None

    def collect(self, event: ExportEvent, pages: Pages) -> Collected | Unfinished:
        return self.unfinished or FakeCollected(storage=self.storage, parts=(), pages=pages)


@dataclass
class ArchiveHarness:
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    rows: int | None = 10
    error: Exception | None = None
    export: PlannedExport = EXPORT
    unfinished: Unfinished | None = None
    copier: FakeCopier = field(init=False)

    def archive(self, run_id: str = RUN) -> dict[str, Any]:
        self.copier = FakeCopier(self.storage, result(self.rows), self.error)
        archiver = Archiver(
            storage=self.storage,
            bucket="archive",
            copier=self.copier,
            collector=FakeCollector(storage=self.storage, time_left=lambda: 900.0, unfinished=self.unfinished),
            context=ProviderContext(lambda: 900.0),
            now=lambda: TICK,
        )
        return archiver.archive(ExportEvent(run_id, 1, self.export))


HarnessFactory = Callable[..., ExportsHarness]


@pytest.fixture
def new_harness() -> HarnessFactory:
    return lambda *sources: ExportsHarness(configuration_of(*sources))
