"""The whole system, started once for many runs, emptied between them."""

from __future__ import annotations

import hashlib
import json
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import boto3
import pytest
from moto.backends import get_backend
from moto.stepfunctions.parser.asl.utils import boto_client
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from meibo.archive.copy import CopyOptions
from meibo.exports import archive
from meibo.exports.archive import MAX_EXPANDED_BYTES
from meibo.http.ratelimit import SystemClock
from meibo_local.aws import REGION, LocalAws, local_aws
from meibo_local.lambda_service import InvocationResult, LambdaService, LocalFunction
from meibo_simulators import FIRST_CONNECTION, SimulatedDomain, SimulatedTenant, Simulators
from tests.fault_injection.external_calls import (
    MADE_FOR_THE_WORKFLOW,
    Watch,
    WatchedService,
    forget_what_a_sandbox_keeps,
    watched,
)
from tests.integration.pipeline.conftest import TICK, Invocations

# Lambda repeats an asynchronous invocation twice (the template's MaximumRetryAttempts).
DELIVERIES_OF_A_TICK = 3
PART_BYTES = 8 * 1024
# The account that moto plays.
ACCOUNT = "123456789012"


@dataclass
class Archived:
    """What one export left in the archive."""

    manifest: dict[str, Any]
    body: bytes = field(repr=False)

    @property
    def content(self) -> Any:
        return self.manifest["content"]


@dataclass
class WholeSystem:
    """A tenant, a domain and the stack. ``watch`` sees the functions' calls while it is set."""

    aws: LocalAws
    tenant: SimulatedTenant
    domain: SimulatedDomain
    service: WatchedService
    recorder: Invocations
    watch: Watch | None = None
    runs: int = 0

    def empty(self) -> None:
        """Begin anew: nothing in the bucket and on the queues, nothing kept in memory, no faults."""
        bucket = get_backend("s3")[ACCOUNT]["aws"].buckets[self.aws.bucket]
        bucket.keys = type(bucket.keys)()
        bucket.multiparts.clear()
        for queue in get_backend("sqs")[ACCOUNT][REGION].queues.values():
            queue._messages.clear()
            queue._pending_messages.clear()
        for site in (self.tenant, self.domain):
            site.faults.clear()
            site.requests.clear()
        self.recorder.calls.clear()
        self.watch = None
        forget_what_a_sandbox_keeps()

    def configure(self, auth0: list[dict[str, Any]], cybozu: list[dict[str, Any]], **secrets: Any) -> None:
        sources: list[dict[str, Any]] = []
        if auth0:
            sources.append(
                {
                    "provider": "auth0",
                    "name": "acme",
                    "domain": self.tenant.domain,
                    "secret": "meibo/acme",
                    "location_hosts": self.tenant.allowed_hosts,
                    "exports": auth0,
                }
            )
        if cybozu:
            source: dict[str, Any] = {"provider": "cybozu", "name": "example", "base_url": self.domain.base_url}
            sources.append({**source, "secret": "meibo/example", "concurrency": 1, "exports": cybozu})
        defaults = {"meibo/acme": self.tenant.credentials(), "meibo/example": self.domain.credentials()}
        self.aws.configure({"sources": sources}, {**defaults, **secrets})

    # -- exports

    def next_tick(self) -> datetime:
        """Return a time that no run had yet."""
        self.runs += 1
        return TICK + timedelta(hours=self.runs)

    def run(self, moment: datetime | None = None) -> str:
        """Fire a tick as often as Lambda delivers it, and wait until the workflow ends; return the run's id."""
        moment = moment or self.next_tick()
        for _ in range(DELIVERIES_OF_A_TICK):
            outcome = self.aws.tick(moment)
            if not outcome.failed:
                break
        assert not outcome.failed, outcome.payload
        self.wait(outcome.payload["run_id"], outcome.payload["attempt"])
        return str(outcome.payload["run_id"])

    def wait(self, run_id: str, attempt: int, seconds: float = 60) -> str:
        """Wait for an execution's end and return its status."""
        end = time.monotonic() + seconds
        # moto is asked itself: a call of its API takes longer than the wait between two looks.
        machines = stepfunctions_parser_backends[ACCOUNT][REGION]
        execution = machines.describe_execution(self.aws.execution_arn(run_id, attempt))
        while (status := execution.status) == "RUNNING":
            assert time.monotonic() < end, f"the execution of {run_id} does not end"
            time.sleep(0.01)
        return str(status)

    def run_manifest(self, run_id: str, attempt: int = 1) -> dict[str, Any]:
        """Return the manifest of a run."""
        name = "_manifest.json" if attempt == 1 else f"_manifest-{attempt}.json"
        day = f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}"
        document: dict[str, Any] = self.aws.read_json(f"runs/dt={day}/run={run_id}/{name}")
        return document

    def archived(self) -> dict[str, Archived]:
        """Return what is in the archive by export_id, proving that it is what the promises say.

        Every object has a manifest beside it that is true, every manifest its object, no folder two of them, and
        nothing was ever written over.
        """
        keys = self.aws.keys("archive/")
        manifests = [key for key in keys if key.endswith("/_manifest.json")]
        objects = {key for key in keys if not key.endswith("/_manifest.json")}
        found: dict[str, Archived] = {}
        for key in manifests:
            manifest = self.aws.read_json(key)
            named = manifest["object"]["key"]
            assert named in objects, f"{key} describes an object that is not there"
            assert named.rpartition("/")[0] == key.rpartition("/")[0]
            objects.remove(named)
            body = self.aws.read(named)
            assert hashlib.sha256(body).hexdigest() == manifest["object"]["sha256"], f"{key} is not true"
            assert len(body) == manifest["object"]["bytes"]
            assert manifest["export_id"] not in found, f"{manifest['export_id']} is archived twice"
            found[manifest["export_id"]] = Archived(manifest, body)
        assert not objects, f"objects without a manifest: {sorted(objects)}"
        assert self.overwritten() == []
        return found

    def overwritten(self) -> list[str]:
        """Return the keys that have more than one version, or were deleted."""
        answer = boto3.client("s3").list_object_versions(Bucket=self.aws.bucket)
        versions = [version["Key"] for version in answer.get("Versions", [])]
        return sorted({key for key in versions if versions.count(key) > 1}) + [
            marker["Key"] for marker in answer.get("DeleteMarkers", [])
        ]

    def invoke(self, function: str, event: Any = None) -> InvocationResult:
        """Invoke a function by its logical id."""
        (name,) = {found.name for found in self.service.functions() if found.logical_id == function}
        return self.aws.invoke_raw(name, json.dumps(event or {}).encode())

    def verify(self) -> dict[str, Any]:
        """Let the archive be verified, as its schedule would."""
        outcome = self.invoke("VerifyArchive")
        assert not outcome.failed, outcome.payload
        counts: dict[str, Any] = outcome.payload
        return counts

    def versions(self, prefix: str) -> list[tuple[str, str, str]]:
        """Return key, version and ETag of everything below a prefix."""
        answer = boto3.client("s3").list_object_versions(Bucket=self.aws.bucket, Prefix=prefix)
        return [(one["Key"], one["VersionId"], one["ETag"]) for one in answer.get("Versions", [])]

    def forget(self, prefix: str) -> None:
        """Take everything below a prefix out of the bucket without a trace."""
        keys = get_backend("s3")[ACCOUNT]["aws"].buckets[self.aws.bucket].keys
        for key in [one for one in keys if one.startswith(prefix)]:
            dict.pop(keys, key)

    # -- changes

    def let_time_pass(self) -> None:
        """Let every message on the queues be visible again, as it will be in time."""
        for queue in get_backend("sqs")[ACCOUNT][REGION].queues.values():
            for message in queue._messages:
                message.change_visibility(0)
                message.visible_at = 0.0
            queue._pending_messages.clear()

    def lines(self) -> list[dict[str, Any]]:
        """Return every outcome on record."""
        return [json.loads(line) for key in self.aws.keys("changes/") for line in self.aws.read(key).splitlines()]


class SkippingClock(SystemClock):
    """The machine's clock, put forward by each sleep instead of waiting."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def now(self) -> float:
        return super().now() + self.skipped

    def sleep(self, seconds: float) -> None:
        self.skipped += seconds


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Let the workflow's and the copy's waits take no time, and the copy's parts be small."""

    # What the interpreter calls is told from what the local system calls by the client.
    def client_of_the_workflow(**options: Any) -> Any:
        client = boto3.client(**options)
        setattr(client, MADE_FOR_THE_WORKFLOW, True)
        return client

    patch.setattr(boto_client, "boto3", types.SimpleNamespace(client=client_of_the_workflow))
    retry = "moto.stepfunctions.parser.asl.component.common.retry.retrier_decl.time"
    patch.setattr(retry, types.SimpleNamespace(sleep=lambda _seconds: None))
    wait = "moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function.WaitFunction._wait_interval"
    patch.setattr(wait, lambda *_args, **_options: None)
    patch.setattr("meibo.exports.create.SystemClock", SkippingClock)
    small = partial(CopyOptions, backoff_seconds=0.001, max_backoff_seconds=0.001)
    patch.setattr("meibo.exports.archive.CopyOptions", lambda **options: small(**{**options, "part_bytes": PART_BYTES}))
    patch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1024)


@contextmanager
def world(
    *,
    users: int = 300,
    organizations: int = 3,
    cybozu_users: int = 120,
    cybozu_organizations: int = 12,
    cybozu_groups: int = 6,
    copy_lanes: int = 1,
    max_expanded_bytes: int = MAX_EXPANDED_BYTES,
    **parameters: str,
) -> Iterator[WholeSystem]:
    """Bring everything up, for as many runs as are wanted."""
    tenant = SimulatedTenant("acme", users=users, organizations=organizations, members=3)
    domain = SimulatedDomain("example", users=cybozu_users, organizations=cybozu_organizations, groups=cybozu_groups)
    made: list[WholeSystem] = []

    def serve(functions: list[LocalFunction], _endpoint: str) -> LambdaService:
        return WatchedService(functions, recorder)

    recorder = Invocations()
    with (
        pytest.MonkeyPatch.context() as patch,
        Simulators([tenant], [domain]) as simulators,
        watched(lambda: made[0].watch if made else None),
        local_aws(
            # One at a time, so that the same run makes the same calls in the same order.
            parameters={"MaxParallelExports": "1", **parameters},
            environment=simulators.environment(),
            serve=serve,
        ) as aws,
    ):
        impatient(patch)
        patch.setattr(archive, "COPY_LANES", copy_lanes)
        patch.setattr(archive, "MAX_EXPANDED_BYTES", max_expanded_bytes)
        assert isinstance(aws.service, WatchedService)
        made.append(WholeSystem(aws, tenant, domain, aws.service, recorder))
        made[0].empty()
        yield made[0]
        made.clear()
        forget_what_a_sandbox_keeps()


EXPORTS: tuple[list[dict[str, Any]], list[dict[str, Any]]] = (
    [{"dataset": "users", "connection_id": FIRST_CONNECTION}, {"dataset": "organizations"}],
    [{"dataset": "users", "format": "csv"}, {"dataset": "users", "format": "ndjson"}],
)
