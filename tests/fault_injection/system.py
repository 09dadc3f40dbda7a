"""The local system with its simulators, started once for many runs and reset between them."""

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
from botocore.config import Config
from moto.backends import get_backend
from moto.stepfunctions.parser.asl.utils import boto_client
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from meibo import aws as meibo_aws
from meibo.archive.copy import CopyOptions
from meibo.clock import SystemClock
from meibo.exports import archive
from meibo.exports.archive import MAX_EXPANDED_BYTES
from meibo_local.aws import REGION, local_aws
from meibo_local.lambda_service import InvocationResult, LambdaService, LocalFunction
from meibo_simulators import FIRST_CONNECTION, SimulatedDomain, SimulatedTenant, Simulators
from tests.fault_injection.external_calls import (
    WORKFLOW_CLIENT_FLAG,
    CallObserver,
    ObservedLambdaService,
    observe_calls,
    reset_sandbox,
)
from tests.support.stack import TICK, Invocations, Stack

# Lambda retries an asynchronous invocation twice (MaximumRetryAttempts in the template).
DELIVERIES_OF_A_TICK = 3
PART_BYTES = 8 * 1024
# The account of moto.
ACCOUNT = "123456789012"


@dataclass
class VerifiedExport:
    """The manifest and the object of an export."""

    manifest: dict[str, Any]
    body: bytes = field(repr=False)

    @property
    def content(self) -> Any:
        return self.manifest["content"]


@dataclass
class Snapshot:
    """The versions of every object in the bucket, and the executions of the workflow."""

    versions: dict[str, list[Any]] = field(default_factory=dict)
    executions: list[Any] = field(default_factory=list)


@dataclass
class WholeSystem(Stack):
    """A stack for many runs. ``observer`` receives the functions' calls while it is set."""

    service: ObservedLambdaService
    observer: CallObserver | None = None
    runs: int = 0

    def reset(self) -> None:
        """Empty the bucket and the queues, delete the executions, discard the sandbox, and remove all faults."""
        self.restore(Snapshot())
        for queue in get_backend("sqs")[ACCOUNT][REGION].queues.values():
            queue._messages.clear()
            queue._pending_messages.clear()
        for site in (self.tenant, self.domain):
            site.faults.clear()
            site.requests.clear()
        self.invocations.calls.clear()
        self.observer = None
        reset_sandbox()

    def snapshot(self) -> Snapshot:
        """Return the state of the bucket and the workflow, without unfinished uploads."""
        keys = self._bucket.keys
        return Snapshot({key: list(keys.getlist(key)) for key in keys}, list(self._state_machine.executions))

    def restore(self, snapshot: Snapshot) -> None:
        """Restore the bucket and the workflow, and remove unfinished uploads."""
        bucket = self._bucket
        bucket.keys = type(bucket.keys)()
        for key, versions in snapshot.versions.items():
            bucket.keys.setlist(key, list(versions))
        bucket.multiparts.clear()
        self._state_machine.executions[:] = snapshot.executions

    # The internal state of moto. Its API returns this state more slowly, or does not return it.
    @property
    def _bucket(self) -> Any:
        return get_backend("s3")[ACCOUNT]["aws"].buckets[self.aws.bucket]

    @property
    def _state_machine(self) -> Any:
        return stepfunctions_parser_backends[ACCOUNT][REGION].describe_state_machine(self.aws.state_machine_arn)

    def configure_exports(self, auth0: list[dict[str, Any]], cybozu: list[dict[str, Any]], **secrets: Any) -> None:
        """Configure the tenant and the domain with these exports, and omit a source without exports."""
        sources = [self.auth0_source(*auth0)] if auth0 else []
        if cybozu:
            sources.append({**self.cybozu_source(*cybozu), "concurrency": 1})
        self.configure(*sources, secrets=secrets)

    # -- exports

    def next_tick(self) -> datetime:
        """Return a time at which no run was scheduled yet."""
        self.runs += 1
        return TICK + timedelta(hours=self.runs)

    def run(self, moment: datetime | None = None) -> str:
        """Deliver a tick with Lambda's retries, wait until the workflow ends, and return the run's id."""
        moment = moment or self.next_tick()
        for _ in range(DELIVERIES_OF_A_TICK):
            outcome = self.aws.tick(moment)
            if not outcome.failed:
                break
        assert not outcome.failed, outcome.payload
        self.wait(outcome.payload["run_id"], outcome.payload["attempt"])
        return str(outcome.payload["run_id"])

    def wait(self, run_id: str, attempt: int, seconds: float = 60) -> str:
        """Wait until an execution ends and return its status."""
        end = time.monotonic() + seconds
        machines = stepfunctions_parser_backends[ACCOUNT][REGION]
        execution = machines.describe_execution(self.aws.execution_arn(run_id, attempt))
        while (status := execution.status) == "RUNNING":
            assert time.monotonic() < end, f"the execution of {run_id} does not end"
            time.sleep(0.01)
        return str(status)

    def archived(self) -> dict[str, VerifiedExport]:
        """Return the archived exports by export_id, and check the archive's promises.

        Every object has a correct manifest in its folder, every manifest has its object, no export is archived twice,
        and no key was ever overwritten.
        """
        keys = self.aws.keys("archive/")
        manifests = [key for key in keys if key.endswith("/_manifest.json")]
        objects = {key for key in keys if not key.endswith("/_manifest.json")}
        exports: dict[str, VerifiedExport] = {}
        for key in manifests:
            manifest = self.aws.read_json(key)
            object_key = manifest["object"]["key"]
            assert object_key in objects, f"{key} describes an object that does not exist"
            assert object_key.rpartition("/")[0] == key.rpartition("/")[0]
            objects.remove(object_key)
            body = self.aws.read(object_key)
            assert hashlib.sha256(body).hexdigest() == manifest["object"]["sha256"], (
                f"{key} contains a digest that differs from the digest of the object"
            )
            assert len(body) == manifest["object"]["bytes"]
            assert manifest["export_id"] not in exports, f"{manifest['export_id']} is archived twice"
            exports[manifest["export_id"]] = VerifiedExport(manifest, body)
        assert not objects, f"objects without a manifest: {sorted(objects)}"
        assert self.overwritten() == []
        return exports

    def stored(self) -> tuple[str, ...]:
        """Return the top-level prefix of each object in the bucket, with its name if this begins with an underscore."""
        paths = [key.split("/") for key in self._bucket.keys]
        return tuple(sorted(f"{path[0]}/{path[-1] if path[-1].startswith('_') else 'object'}" for path in paths))

    def overwritten(self) -> list[str]:
        """Return the keys that have more than one version or a delete marker."""
        answer = boto3.client("s3").list_object_versions(Bucket=self.aws.bucket)
        versions = [version["Key"] for version in answer.get("Versions", [])]
        return sorted({key for key in versions if versions.count(key) > 1}) + [
            marker["Key"] for marker in answer.get("DeleteMarkers", [])
        ]

    def invoke(self, function: str, event: Any = None) -> InvocationResult:
        """Invoke a function by its logical id."""
        (name,) = {local.name for local in self.service.functions() if local.logical_id == function}
        return self.aws.invoke_raw(name, json.dumps(event or {}).encode())

    def verify(self) -> dict[str, Any]:
        """Verify the archive as its schedule does, and return the counts."""
        outcome = self.invoke("VerifyArchive")
        assert not outcome.failed, outcome.payload
        counts: dict[str, Any] = outcome.payload
        return counts

    def versions(self, prefix: str) -> list[tuple[str, str, str]]:
        """Return the key, version and ETag of every object below a prefix."""
        answer = boto3.client("s3").list_object_versions(Bucket=self.aws.bucket, Prefix=prefix)
        return [(version["Key"], version["VersionId"], version["ETag"]) for version in answer.get("Versions", [])]

    def remove(self, prefix: str) -> None:
        """Remove every version below a prefix, without delete markers."""
        keys = self._bucket.keys
        for key in [key for key in keys if key.startswith(prefix)]:
            dict.pop(keys, key)

    # -- changes

    def show_hidden_messages(self) -> None:
        """Make every message on the queues visible, as if its visibility timeout had passed."""
        for queue in get_backend("sqs")[ACCOUNT][REGION].queues.values():
            for message in queue._messages:
                message.change_visibility(0)
                message.visible_at = 0.0
            queue._pending_messages.clear()

    def outcomes(self) -> list[dict[str, Any]]:
        """Return every outcome record."""
        return [json.loads(line) for key in self.aws.keys("changes/") for line in self.aws.read(key).splitlines()]


class SkippingClock(SystemClock):
    """The system clock; ``sleep`` moves it forward and returns at once."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def now(self) -> float:
        return super().now() + self.skipped

    def sleep(self, seconds: float) -> None:
        self.skipped += seconds


def skip_waits(patch: pytest.MonkeyPatch) -> None:
    """Skip the waits of the workflow and of the copy, make the copy's parts small, and share AWS clients."""

    # The marked client distinguishes the interpreter's calls from those of the local system.
    def workflow_client(**options: Any) -> Any:
        client = boto3.client(**options)
        setattr(client, WORKFLOW_CLIENT_FLAG, True)
        return client

    patch.setattr(boto_client, "boto3", types.SimpleNamespace(client=workflow_client))

    # Creating the clients of a sandbox takes longer than most invocations. Their only state is the pool of connections,
    # which moto does not use.
    create_client, clients = meibo_aws._client, dict[tuple[str, str], Any]()

    def shared_client(service: str, config: Config | None = None) -> Any:
        key = service, repr(config and sorted(vars(config).items()))
        if key not in clients:
            clients[key] = create_client(service, config)
        return clients[key]

    patch.setattr(meibo_aws, "_client", shared_client)
    retry = "moto.stepfunctions.parser.asl.component.common.retry.retrier_decl.time"
    patch.setattr(retry, types.SimpleNamespace(sleep=lambda _seconds: None))
    wait = "moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function.WaitFunction._wait_interval"
    patch.setattr(wait, lambda *_args, **_options: None)
    patch.setattr("meibo.exports.create.SystemClock", SkippingClock)
    small_parts = partial(CopyOptions, backoff_seconds=0.001, max_backoff_seconds=0.001)
    patch.setattr(
        "meibo.exports.archive.CopyOptions", lambda **options: small_parts(**{**options, "part_bytes": PART_BYTES})
    )
    patch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1024)


@contextmanager
def start_system(
    *,
    users: int = 300,
    organizations: int = 3,
    cybozu_users: int = 120,
    cybozu_organizations: int = 12,
    cybozu_groups: int = 6,
    copy_workers: int = 1,
    max_expanded_bytes: int = MAX_EXPANDED_BYTES,
    **parameters: str,
) -> Iterator[WholeSystem]:
    """Start the simulators and the stack, and yield the system."""
    tenant = SimulatedTenant("acme", users=users, organizations=organizations, members=3)
    domain = SimulatedDomain("example", users=cybozu_users, organizations=cybozu_organizations, groups=cybozu_groups)
    started: list[WholeSystem] = []

    def serve(functions: list[LocalFunction], _endpoint: str) -> LambdaService:
        return ObservedLambdaService(functions, recorder)

    recorder = Invocations()
    with (
        pytest.MonkeyPatch.context() as patch,
        Simulators([tenant], [domain]) as simulators,
        observe_calls(lambda: started[0].observer if started else None),
        local_aws(
            # Exports run in sequence, so that the same run makes the same calls in the same order.
            parameters={"MaxParallelExports": "1", **parameters},
            environment=simulators.environment(),
            serve=serve,
        ) as aws,
    ):
        skip_waits(patch)
        patch.setattr(archive, "COPY_WORKERS", copy_workers)
        patch.setattr(archive, "MAX_EXPANDED_BYTES", max_expanded_bytes)
        assert isinstance(aws.service, ObservedLambdaService)
        started.append(WholeSystem(aws, simulators, recorder, aws.service))
        started[0].reset()
        yield started[0]
        started.clear()
        reset_sandbox()


EXPORTS: tuple[list[dict[str, Any]], list[dict[str, Any]]] = (
    [{"dataset": "users", "connection_id": FIRST_CONNECTION}, {"dataset": "organizations"}],
    [{"dataset": "users", "format": "csv"}, {"dataset": "users", "format": "ndjson"}],
)
