"""The calls that the functions make, against the policies that the template gives them, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from meibo_local.template import read_template
from meibo_local.template import translate as sam_translate
from meibo_simulators import FIRST_CONNECTION
from meibo_simulators import faults as broken
from tests.fault_injection.external_calls import WORKFLOW
from tests.fault_injection.required_permissions import Recorded
from tests.fault_injection.system import WholeSystem, world
from tests.support.iam import LOG_DELIVERY, Need, grants
from tests.template.conftest import PSEUDO_PARAMETERS, Template

pytestmark = pytest.mark.timeout(600)

ROLES = {
    "CreateExports": "CreateExportsRole",
    "CheckExport": "CheckExportRole",
    "ArchiveExport": "ArchiveExportRole",
    "FinishRun": "FinishRunRole",
    "ChangeMembers": "ChangeMembersRole",
    "VerifyArchive": "VerifyArchiveRole",
    # Its own calls: those of its interpreter, which are Step Functions' in AWS.
    WORKFLOW: "ExportWorkflowRole",
}
# Where each function may write; each object belongs to one of them.
OWN = {
    "CreateExports": ("ArchiveBucket.Arn/runs/",),
    "ArchiveExport": ("ArchiveBucket.Arn/archive/", "ArchiveBucket.Arn/parts/"),
    "FinishRun": ("ArchiveBucket.Arn/runs/", "ArchiveBucket.Arn/reports/"),
    "ChangeMembers": ("ArchiveBucket.Arn/changes/",),
    "VerifyArchive": ("ArchiveBucket.Arn/verifications/",),
}
# What no call of the function's own uses, and why it is granted all the same.
USED_BY_OTHERS = {
    "logs:CreateLogStream": "Lambda writes a function's log as the function's role",
    "logs:PutLogEvents": "Lambda writes a function's log as the function's role",
    "xray:PutTraceSegments": "Lambda sends traces as the function's role",
    "xray:PutTelemetryRecords": "Lambda sends traces as the function's role",
    "sqs:ReceiveMessage": "the event source mapping polls the queue as the function's role",
    "sqs:DeleteMessage": "the event source mapping deletes what is done as the function's role",
    "sqs:GetQueueAttributes": "the event source mapping watches the queue as the function's role",
}
# The failure destination of an asynchronous invocation is written by Lambda, as the function's role.
USED_BY_LAMBDA = {("CreateExports", "sqs:SendMessage"), ("VerifyArchive", "sqs:SendMessage")}
# S3 asks for it where a HEAD or GET misses: 404 for who may list the bucket, 403 for who may not.
ASKED_BY_A_MISS = {("ChangeMembers", "s3:ListBucket")}
# In AWS a Distributed Map runs its items as executions; here the interpreter runs them itself. Logs and traces are sent
# by Step Functions.
USED_BY_STEP_FUNCTIONS = {
    (WORKFLOW, action)
    for action in (
        "states:StartExecution",
        "states:DescribeExecution",
        "states:StopExecution",
        "states:RedriveExecution",
        "xray:GetSamplingRules",
        "xray:GetSamplingTargets",
        *LOG_DELIVERY,
    )
}
UNSEEN = USED_BY_LAMBDA | ASKED_BY_A_MISS | USED_BY_STEP_FUNCTIONS


@dataclass
class Observed:
    """What was called, and what is granted."""

    needs: set[Need]
    template: Template

    def statements(self, function: str) -> list[dict[str, Any]]:
        return list(self.template.statements(ROLES[function]))


def _everything_that_is_done(everything: WholeSystem) -> None:
    """Do what the functions do, failures included: those make calls of their own."""
    tenant = everything.tenant
    organization = tenant.organizations.ids()[0]
    exports: list[dict[str, Any]] = [
        {"dataset": "users", "connection_id": FIRST_CONNECTION},
        {"dataset": "users", "organization_id": organization, "format": "csv"},
        {"dataset": "members"},
    ]
    cybozu: list[dict[str, Any]] = [{"dataset": "users", "format": "csv"}, {"dataset": "users", "format": "ndjson"}]
    everything.configure(exports, cybozu)
    moment = everything.next_tick()
    everything.run(moment)
    # A tick that comes twice, and the next day's run, which looks at this one's manifests.
    everything.run(moment)
    everything.run()
    # A job that is lost, and made again by the workflow.
    tenant.jobs.fates[tenant.jobs.created] = "failed"
    everything.run()
    # Uploads that are given up, failures that are recorded, and a repair.
    tenant.faults.add("GET /job_*", broken.break_body(9000, reset=False), times=None)
    tenant.switches.file_ranges = False
    run_id = everything.run()
    tenant.faults.clear()
    tenant.switches.file_ranges = True
    outcome = everything.aws.invoke({"run_id": run_id, "repair": True})
    assert not outcome.failed, outcome.payload
    everything.wait(run_id, outcome.payload["attempt"])
    assert everything.run_manifest(run_id, outcome.payload["attempt"])["complete"] is True
    verified = everything.verify()
    assert (verified["damaged"], verified["unchecked"]) == (0, 0)
    # Changes: one that is done, one that is rejected, one that is handed back and comes again.
    people = [user["user_id"] for user in tenant.expected_users()]
    change = {"version": 1, "change_id": "c", "source": "acme", "organization_id": organization, "action": "add"}
    everything.aws.changes.send({**change, "members": [*people[:3], "auth0|0000000000000000000000ff"]})
    tenant.faults.add("POST /api/v2/organizations/*", broken.respond(401), times=2)
    for _ in range(8):
        while everything.aws.changes.source.poll():
            pass
        everything.let_time_pass()
    assert everything.aws.changes.source.queue.size() == 0, everything.recorder.calls[-1]
    # Whose report tells of the changes and of the verification.
    everything.run()


@pytest.fixture(scope="module")
def observed() -> Iterator[Observed]:
    lock = "GOVERNANCE"
    with world(users=120, organizations=2, cybozu_users=20, ObjectLockMode=lock) as everything:
        watch = Recorded(
            {
                "bucket": everything.aws.bucket,
                "queue": everything.aws.changes.queue_url,
                "dead": everything.aws.changes.dead_letters_url,
                **{function.arn: function.logical_id for function in everything.service.functions()},
            }
        )
        everything.watch = watch
        everything.service.cold = True
        _everything_that_is_done(everything)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", PSEUDO_PARAMETERS["AWS::Region"])
        parameters = {"ObjectLockMode": lock}
        yield Observed(watch.needs, Template(sam_translate(read_template(), parameters), parameters))


def test_every_function_was_seen_to_call(observed: Observed) -> None:
    assert {need.function for need in observed.needs} == set(ROLES)


@pytest.mark.parametrize("function", ROLES)
def test_each_call_is_allowed_on_its_resource(observed: Observed, function: str, tell: Callable[[str], None]) -> None:
    needs = {need for need in observed.needs if need.function == function}
    statements = observed.statements(function)

    refused = sorted(f"{need.action} on {need.resource}" for need in needs if grants(statements, need) is None)

    tell(f"permissions of {function}: {len(needs)} different calls, {len(refused)} not allowed")
    assert refused == []


@pytest.mark.parametrize("function", ROLES)
def test_each_grant_is_used_by_some_call(observed: Observed, function: str) -> None:
    # given: what is granted on which resource
    statements = observed.statements(function)
    granted = {(action, one) for found in statements for action in found["Action"] for one in found["Resource"]}

    # when
    used = {grants(statements, need) for need in observed.needs if need.function == function}

    # then
    unused = {
        (action, resource)
        for action, resource in granted - used
        if action not in USED_BY_OTHERS and (function, action) not in UNSEEN
    }
    assert unused == set()


def test_every_exception_is_needed(observed: Observed) -> None:
    granted = {
        (function, action)
        for function in ROLES
        for found in observed.statements(function)
        for action in found["Action"]
    }
    used = {(need.function, need.action) for need in observed.needs}

    assert {action for _, action in granted} >= USED_BY_OTHERS.keys()
    assert granted >= UNSEEN
    assert not used & UNSEEN


@pytest.mark.parametrize("function", ROLES)
def test_each_function_writes_where_its_own_objects_are(observed: Observed, function: str) -> None:
    written = {need.resource for need in observed.needs if need.function == function and need.action == "s3:PutObject"}
    allowed = {
        resource
        for found in observed.statements(function)
        for resource in found["Resource"]
        if "s3:PutObject" in found["Action"]
    }

    assert all(resource.startswith(OWN[function]) for resource in written)
    assert allowed == {f"{prefix}*" for prefix in OWN.get(function, ())}
    assert not any("s3:DeleteObject" in found["Action"] for found in observed.statements(function))


def test_object_lock_is_on_every_request_that_makes_a_part_of_the_archive(observed: Observed) -> None:
    locked = {need.resource for need in observed.needs if need.action == "s3:PutObjectRetention"}
    written = {need.resource for need in observed.needs if need.action == "s3:PutObject"}

    # Parts expire by a lifecycle rule; reports and verifications tell of the archive and are none of it.
    free = tuple(f"ArchiveBucket.Arn/{name}/" for name in ("parts", "reports", "verifications"))
    assert {resource for resource in written if not resource.startswith(free)} == locked
