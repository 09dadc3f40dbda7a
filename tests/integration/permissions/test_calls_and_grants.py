"""Permissions, exactly: every AWS call is granted to the function that makes it, and every grant is used by a call."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import botocore.handlers
import pytest

from meibo.providers import clear_clients
from meibo_local.aws import REGION, STACK, local_aws
from meibo_local.lambda_service import InvocationResult
from meibo_simulators import FIRST_CONNECTION, SimulatedDomain, SimulatedTenant, Simulators
from tests.integration.pipeline.conftest import Invocations, System
from tests.support.iam import Need, action_of, grants
from tests.template.conftest import PSEUDO_PARAMETERS, Template

ROLES = {
    "CreateExports": "CreateExportsRole",
    "CheckExport": "CheckExportRole",
    "ArchiveExport": "ArchiveExportRole",
    "FinishRun": "FinishRunRole",
    "ChangeMembers": "ChangeMembersRole",
}
ARN = f"arn:aws:{{}}:{REGION}:{PSEUDO_PARAMETERS['AWS::AccountId']}:{{}}"
# Grants that no call here uses, by their statement, and who uses them.
USED_OTHERWISE = {
    "WriteLogs": "Lambda sends what a function prints",
    "WriteTraces": "Lambda traces",
    "SendFailedInvocations": "Lambda's destination of invocations that failed",
    "ReceiveChanges": "Lambda's event source mapping; the function hides what it hands back, and has nothing to here",
    "ReadWriteParts": "exports over many invocations, which have parts",
    "ListObjects": "not a call: S3 answers 404 instead of 403 for a missing key",
    "ListOutcomes": "not a call: S3 answers 404 instead of 403 for a missing key",
}
# A copy that breaks for good aborts its upload; here none does.
UNUSED_ACTIONS = {"s3:AbortMultipartUpload"}
# What the page of a run reads, where there is any: tests/fault_injection has changes and verifications before its last
# run.
USED_WITH_HISTORY = {("FinishRun", "changes/*"), ("FinishRun", "verifications/*")}

# What is recorded once serves all of them.
pytestmark = pytest.mark.xdist_group("calls and grants")

CHANGE = {"version": 1, "change_id": "hr-1", "source": "acme", "action": "add"}


@dataclass
class Recorder(Invocations):
    """Notes the AWS calls of whichever function is running; the workflow here runs one at a time."""

    recorded: set[Need] = field(default_factory=set)
    _running: list[str] = field(default_factory=list)

    def invoked(self, function: str, event: Any) -> None:
        # In AWS each function has a process, and so credentials and tokens, of its own.
        clear_clients()
        self._running.append(function)

    def returned(self, function: str, event: Any, outcome: InvocationResult) -> None:
        self._running.remove(function)
        super().returned(function, event, outcome)

    def on_call(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        """Is botocore's provide-client-params handler: sees calls and presigned requests alike."""
        service, operation = model.service_model.service_name, model.name
        if not self._running or _of_the_test_itself():
            return
        # No function invokes another: the workflow does, from threads of its own.
        if service == "lambda":
            return
        function = self._running[-1]
        action, resource, prefix = _as_iam_sees_it(service, operation, params)
        self.recorded.add(Need(function, action, resource, prefix))
        if "ObjectLockMode" in params:
            self.recorded.add(Need(function, "s3:PutObjectRetention", resource))


def _of_the_test_itself() -> bool:
    # A function that runs on this thread has its environment over the process's.
    on_main_thread = threading.current_thread() is threading.main_thread()
    return on_main_thread and not any(name.startswith("MEIBO_") for name in os.environ)


def _as_iam_sees_it(service: str, operation: str, params: dict[str, Any]) -> tuple[str, str, str | None]:
    action = action_of(f"{service}:{operation}")
    if service == "s3":
        key = params.get("Key")
        resource = f"ArchiveBucket.Arn/{key}" if key else "ArchiveBucket.Arn"
        return action, resource, params.get("Prefix", "") if action == "s3:ListBucket" else None
    if service == "ssm":
        return action, ARN.format("ssm", f"parameter{params.get('Name') or params['Path']}"), None
    if service == "secretsmanager":
        # The ARN of a secret ends with six characters of the service's own.
        return action, ARN.format(service, f"secret:{params['SecretId']}-a1B2c3"), None
    if service == "stepfunctions":
        return action, params.get("executionArn") or params["stateMachineArn"], None
    if service == "events":
        (entry,) = params["Entries"]
        return action, ARN.format("events", f"event-bus/{entry['EventBusName']}"), None
    if service == "sqs":
        queue = "ChangesDeadLetters" if "dead" in params["QueueUrl"].lower() else "ChangesQueue"
        return action, f"{queue}.Arn", None
    raise AssertionError(f"{service}:{operation} is a call that no role is known to grant")


@contextmanager
def _recorded(recorder: Recorder) -> Iterator[None]:
    entry = ("provide-client-params", recorder.on_call)
    botocore.handlers.BUILTIN_HANDLERS.append(entry)
    try:
        yield
    finally:
        botocore.handlers.BUILTIN_HANDLERS.remove(entry)


@pytest.fixture(scope="module")
def recorded() -> set[Need]:
    """The calls of a run that fails in part, its repair, a tick that comes twice and a change, with Object Lock on."""
    recorder = Recorder()
    tenant = SimulatedTenant("acme", users=60, organizations=1)
    domain = SimulatedDomain("example", users=20)
    with _recorded(recorder), Simulators([tenant], [domain]) as simulators:
        parameters = {
            "MaxParallelExports": "1",
            "ObjectLockMode": "GOVERNANCE",
        }
        with local_aws(parameters=parameters, environment=simulators.environment(), observer=recorder) as aws:
            system = System(aws, simulators, recorder)
            sources = (
                system.auth0_source({"dataset": "users", "connection_id": FIRST_CONNECTION}),
                system.cybozu_source({"dataset": "users", "format": "csv"}, {"dataset": "users", "format": "ndjson"}),
            )
            system.configure(*sources, secrets={"meibo/example": {"login": "nobody", "password": "wrong"}})
            assert system.run()["complete"] is False
            system.configure(*sources)
            assert system.repair()["complete"] is True
            system.run(days=1)
            system.aws.invoke({"scheduled_time": "2026-11-22T18:00:00Z"})
            members = [next(iter(tenant.expected_users()))["user_id"], "auth0|nobody"]
            (organization_id,) = tenant.organizations.ids()
            aws.changes.send({**CHANGE, "organization_id": organization_id, "members": members})
            assert aws.changes.source.drain(60)
            # SQS may deliver a message twice.
            delivered = next(event for function, event, _ in recorder.calls if function == "ChangeMembers")
            names = [made["FunctionName"] for made in boto3.client("lambda").list_functions()["Functions"]]
            (change_members,) = (name for name in names if "ChangeMembers" in name)
            assert not aws.invoke_raw(change_members, json.dumps(delivered).encode()).failed
    return recorder.recorded


@pytest.fixture(scope="module")
def granting() -> Template:
    """The template as it was deployed there."""
    return Template.deployed({"ObjectLockMode": "GOVERNANCE"}, region=REGION, stack=STACK)


def test_every_function_was_seen_calling(recorded: set[Need]) -> None:
    assert {call.function for call in recorded} == set(ROLES)


def test_every_call_is_granted_to_the_function_that_makes_it(recorded: set[Need], granting: Template) -> None:
    denied = [call for call in recorded if not grants(granting.statements(ROLES[call.function]), call)]

    assert denied == []


@pytest.mark.parametrize("function", ROLES)
def test_every_grant_is_used_by_some_call(recorded: set[Need], granting: Template, function: str) -> None:
    unused = [
        (statement["Sid"], action)
        for statement in granting.statements(ROLES[function])
        if statement["Sid"] not in USED_OTHERWISE
        for action in statement["Action"]
        if action not in UNUSED_ACTIONS
        and not any(
            call.function == function and call.action == action and grants([statement], call) for call in recorded
        )
    ]

    assert unused == []


@pytest.mark.parametrize("function", ROLES)
def test_every_granted_resource_is_used_by_some_call(recorded: set[Need], granting: Template, function: str) -> None:
    unused = [
        (statement["Sid"], resource)
        for statement in granting.statements(ROLES[function])
        if statement["Sid"] not in USED_OTHERWISE
        for resource in statement["Resource"]
        if (function, resource.partition("/")[2]) not in USED_WITH_HISTORY
        and not any(
            call.function == function and grants([{**statement, "Resource": [resource]}], call) for call in recorded
        )
    ]

    assert unused == []
