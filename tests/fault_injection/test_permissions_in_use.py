"""Compare the functions' calls with the policies: every call must be allowed, and every grant must be used."""

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
from tests.fault_injection.required_permissions import PermissionRecorder
from tests.fault_injection.system import WholeSystem, start_system
from tests.support.changes import change_message
from tests.support.iam import LOG_DELIVERY, Need, grants
from tests.support.template import PSEUDO_PARAMETERS, Template

# The calls are recorded once, so all tests must run in the same process.
pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("permissions")]

ROLES = {
    "CreateExports": "CreateExportsRole",
    "CheckExport": "CheckExportRole",
    "ArchiveExport": "ArchiveExportRole",
    "FinishRun": "FinishRunRole",
    "ChangeMembers": "ChangeMembersRole",
    "VerifyArchive": "VerifyArchiveRole",
    # In AWS, Step Functions makes these calls. In the tests, moto's interpreter makes them.
    WORKFLOW: "ExportWorkflowRole",
}
# The prefixes to which each function may write. Every object is written by one function.
WRITE_PREFIXES = {
    "CreateExports": ("ArchiveBucket.Arn/runs/",),
    "ArchiveExport": ("ArchiveBucket.Arn/archive/", "ArchiveBucket.Arn/parts/"),
    "FinishRun": ("ArchiveBucket.Arn/runs/", "ArchiveBucket.Arn/reports/"),
    "ChangeMembers": ("ArchiveBucket.Arn/changes/",),
    "VerifyArchive": ("ArchiveBucket.Arn/verifications/",),
}
# Actions that AWS performs with the role of the function. The function does not call them.
USED_BY_OTHERS = {
    "logs:CreateLogStream": "Lambda writes a function's log as the function's role",
    "logs:PutLogEvents": "Lambda writes a function's log as the function's role",
    "xray:PutTraceSegments": "Lambda sends traces as the function's role",
    "xray:PutTelemetryRecords": "Lambda sends traces as the function's role",
    "sqs:ReceiveMessage": "the event source mapping polls the queue as the function's role",
    "sqs:DeleteMessage": "the event source mapping deletes processed messages as the function's role",
    "sqs:GetQueueAttributes": "the event source mapping watches the queue as the function's role",
}
# Lambda writes to the failure destination of an asynchronous invocation as the function's role.
USED_BY_LAMBDA = {("CreateExports", "sqs:SendMessage"), ("VerifyArchive", "sqs:SendMessage")}
# For a missing object S3 returns 404 with this permission and 403 without it.
CHECKED_FOR_MISSING_OBJECTS = {("ChangeMembers", "s3:ListBucket")}
# In AWS a Distributed Map runs its items as executions; moto's interpreter runs them itself. Step Functions sends logs
# and traces.
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
UNSEEN = USED_BY_LAMBDA | CHECKED_FOR_MISSING_OBJECTS | USED_BY_STEP_FUNCTIONS


@dataclass
class Observed:
    """The permissions that the calls needed, and the template that grants them."""

    needs: set[Need]
    template: Template

    def statements(self, function: str) -> list[dict[str, Any]]:
        return list(self.template.statements(ROLES[function]))


def _use_every_call(system: WholeSystem) -> None:
    """Use every function, including failures, which make additional calls."""
    tenant = system.tenant
    organization = tenant.organizations.ids()[0]
    exports: list[dict[str, Any]] = [
        {"dataset": "users", "connection_id": FIRST_CONNECTION},
        {"dataset": "users", "organization_id": organization, "format": "csv"},
        {"dataset": "members"},
    ]
    cybozu: list[dict[str, Any]] = [{"dataset": "users", "format": "csv"}, {"dataset": "users", "format": "ndjson"}]
    system.configure_exports(exports, cybozu)
    moment = system.next_tick()
    system.run(moment)
    # A tick that is delivered twice, and the next run, which reads the manifests of the first.
    system.run(moment)
    system.run()
    # A failed job, which the workflow creates again.
    tenant.jobs.fates[tenant.jobs.created] = "failed"
    system.run()
    # Aborted uploads, recorded failures, and a repair.
    tenant.faults.add("GET /job_*", broken.break_body(9000, reset=False), times=None)
    tenant.switches.file_ranges = False
    run_id = system.run()
    tenant.faults.clear()
    tenant.switches.file_ranges = True
    outcome = system.aws.invoke({"run_id": run_id, "repair": True})
    assert not outcome.failed, outcome.payload
    system.wait(run_id, outcome.payload["attempt"])
    assert system.run_manifest(run_id, outcome.payload["attempt"])["complete"] is True
    verified = system.verify()
    assert (verified["damaged"], verified["unchecked"]) == (0, 0)
    # Changes that are applied, rejected, and returned to the queue.
    user_ids = [user["user_id"] for user in tenant.expected_users()]
    system.aws.changes.send(change_message(organization, *user_ids[:3], "auth0|0000000000000000000000ff"))
    tenant.faults.add("POST /api/v2/organizations/*", broken.respond(401), times=2)
    for _ in range(8):
        while system.aws.changes.source.poll():
            pass
        system.show_hidden_messages()
    assert system.aws.changes.source.queue.size() == 0, system.invocations.calls[-1]
    # The report of this run covers the changes and the verification.
    system.run()


@pytest.fixture(scope="module")
def observed() -> Iterator[Observed]:
    lock = "GOVERNANCE"
    with start_system(users=120, organizations=2, cybozu_users=20, ObjectLockMode=lock) as system:
        observer = PermissionRecorder(
            {
                "bucket": system.aws.bucket,
                "queue": system.aws.changes.queue_url,
                "dead": system.aws.changes.dead_letters_url,
                **{function.arn: function.logical_id for function in system.service.functions()},
            }
        )
        system.observer = observer
        system.service.cold = True
        _use_every_call(system)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", PSEUDO_PARAMETERS["AWS::Region"])
        parameters = {"ObjectLockMode": lock}
        yield Observed(observer.needs, Template(sam_translate(read_template(), parameters), parameters))


def test_calls_of_every_function_are_recorded(observed: Observed) -> None:
    assert {need.function for need in observed.needs} == set(ROLES)


@pytest.mark.parametrize("function", ROLES)
def test_every_call_is_allowed_on_its_resource(
    observed: Observed, function: str, report_line: Callable[[str], None]
) -> None:
    needs = {need for need in observed.needs if need.function == function}
    statements = observed.statements(function)

    refused = sorted(f"{need.action} on {need.resource}" for need in needs if grants(statements, need) is None)

    report_line(f"permissions of {function}: {len(needs)} different calls, {len(refused)} not allowed")
    assert refused == []


@pytest.mark.parametrize("function", ROLES)
def test_every_grant_is_used_by_a_call(observed: Observed, function: str) -> None:
    # given: the granted actions and resources
    statements = observed.statements(function)
    granted = {
        (action, arn) for statement in statements for action in statement["Action"] for arn in statement["Resource"]
    }

    used = {grants(statements, need) for need in observed.needs if need.function == function}

    unused = {
        (action, resource)
        for action, resource in granted - used
        if action not in USED_BY_OTHERS and (function, action) not in UNSEEN
    }
    assert unused == set()


def test_every_listed_exception_is_granted_and_unused(observed: Observed) -> None:
    granted = {
        (function, action)
        for function in ROLES
        for statement in observed.statements(function)
        for action in statement["Action"]
    }
    used = {(need.function, need.action) for need in observed.needs}

    assert {action for _, action in granted} >= USED_BY_OTHERS.keys()
    assert granted >= UNSEEN
    assert not used & UNSEEN


@pytest.mark.parametrize("function", ROLES)
def test_every_function_writes_only_below_its_own_prefixes(observed: Observed, function: str) -> None:
    written = {need.resource for need in observed.needs if need.function == function and need.action == "s3:PutObject"}
    allowed = {
        resource
        for statement in observed.statements(function)
        for resource in statement["Resource"]
        if "s3:PutObject" in statement["Action"]
    }

    assert all(resource.startswith(WRITE_PREFIXES[function]) for resource in written)
    assert allowed == {f"{prefix}*" for prefix in WRITE_PREFIXES.get(function, ())}
    assert not any("s3:DeleteObject" in statement["Action"] for statement in observed.statements(function))


def test_every_archived_object_is_written_with_object_lock(observed: Observed) -> None:
    locked = {need.resource for need in observed.needs if need.action == "s3:PutObjectRetention"}
    written = {need.resource for need in observed.needs if need.action == "s3:PutObject"}

    # Not part of the archive: parts expire by a lifecycle rule; reports and verifications describe the archive.
    free = tuple(f"ArchiveBucket.Arn/{name}/" for name in ("parts", "reports", "verifications"))
    assert {resource for resource in written if not resource.startswith(free)} == locked
