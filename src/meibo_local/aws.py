"""Simulate the AWS resources of ``template.yaml`` on one machine.

The SAM transform translates the template to CloudFormation, moto creates its resources, and moto's interpreter runs the
workflow definition. This package implements the parts that moto does not support:

- The state machine is created through the API, because moto does not execute state machines of CloudFormation stacks.
- ``lambda:Invoke`` calls the handlers in this process, with the environment variables of the template.
- S3 is served over HTTP on loopback, because moto intercepts only boto3 calls, not requests to presigned URLs.
- :mod:`meibo_local.queue` replaces the event source mapping of the queue, with the settings of the template.
- :meth:`LocalAws.tick` invokes the target of the schedule, with the input of the template.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import boto3
from moto import mock_aws
from moto.moto_api._internal import mock_random

from meibo import aws as meibo_aws
from meibo.archive.keys import PARTS, REPORTS, RUNS
from meibo.archive.storage import FolderStorage
from meibo_local.caches import cached_definitions, shared_clients
from meibo_local.lambda_service import (
    InvocationResult,
    InvokeInterceptor,
    LambdaService,
    LocalFunction,
    Observer,
    environment_per_invocation,
    load_handler,
)
from meibo_local.queue import EventSource, LocalChanges, SqsQueue, concurrent_receives
from meibo_local.s3_server import Received, serve_s3
from meibo_local.template import ROOT, of_type, read_template, translate

if TYPE_CHECKING:
    from pathlib import Path

REGION: Final = "ap-northeast-1"
STACK = "meibo"

# Types of resources that are not created, because moto does not support them or implements them differently. The tests
# of the template check them.
_UNSUPPORTED: Final = frozenset(
    {
        "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Dashboard",
        "AWS::Glue::Database",
        "AWS::Glue::Table",
        "AWS::Lambda::EventInvokeConfig",
        # moto supports it, but invokes the function when a message is sent.
        "AWS::Lambda::EventSourceMapping",
        "AWS::S3::BucketPolicy",
        "AWS::SQS::QueuePolicy",
        "AWS::Scheduler::Schedule",
    }
)

# boto3 requires credentials to sign requests. Nothing on this machine checks the signatures.
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL": "",
    "AWS_PROFILE": "",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "POWERTOOLS_METRICS_NAMESPACE": "Meibo",
    "POWERTOOLS_SERVICE_NAME": STACK,
}


@dataclass
class LocalAws:
    """The stack on this machine."""

    bucket: str
    state_machine_arn: str
    configuration_parameter: str
    s3_endpoint: str
    schedule_input: str
    create_exports: str
    service: LambdaService
    changes: LocalChanges
    template: dict[str, Any] = field(repr=False)

    def configure(self, document: Any, secrets: Mapping[str, Any]) -> None:
        """Store the configuration in its SSM parameter, and the secrets in Secrets Manager."""
        text = document if isinstance(document, str) else json.dumps(document)
        boto3.client("ssm").put_parameter(
            Name=self.configuration_parameter, Value=text, Type="String", Tier="Advanced", Overwrite=True
        )
        client = boto3.client("secretsmanager")
        for name, secret in secrets.items():
            value = secret if isinstance(secret, str) else json.dumps(secret)
            try:
                client.create_secret(Name=name, SecretString=value)
            except client.exceptions.ResourceExistsException:
                client.put_secret_value(SecretId=name, SecretString=value)

    def tick(self, scheduled_time: datetime | None = None) -> InvocationResult:
        """Invoke ``create_exports`` once, as EventBridge Scheduler does."""
        moment = (scheduled_time or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self.invoke_raw(
            self.create_exports, self.schedule_input.replace("<aws.scheduler.scheduled-time>", moment).encode()
        )

    def invoke(self, event: Any) -> InvocationResult:
        """Invoke ``create_exports`` with an event."""
        return self.invoke_raw(self.create_exports, json.dumps(event).encode())

    def invoke_raw(self, name: str, payload: bytes) -> InvocationResult:
        """Invoke a function by name or ARN through the Lambda API."""
        response = boto3.client("lambda").invoke(FunctionName=name, Payload=payload)
        return InvocationResult(json.loads(response["Payload"].read()), failed="FunctionError" in response)

    def execution(self, run_id: str, attempt: int = 1) -> dict[str, Any]:
        """Return the description of the execution of an attempt."""
        arn = self.execution_arn(run_id, attempt)
        description: dict[str, Any] = dict(boto3.client("stepfunctions").describe_execution(executionArn=arn))
        return description

    def execution_arn(self, run_id: str, attempt: int = 1) -> str:
        """Return the ARN of the execution of an attempt."""
        return f"{self.state_machine_arn.replace(':stateMachine:', ':execution:')}:{run_id}-{attempt}"

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys in the archive bucket, sorted."""
        pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        """Return the content of an object in the archive bucket."""
        return boto3.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def read_json(self, key: str) -> Any:
        """Return the JSON document in an object of the archive bucket."""
        return json.loads(self.read(key))

    def unfinished_uploads(self) -> int:
        """Return the number of multipart uploads that were neither completed nor aborted."""
        return len(boto3.client("s3").list_multipart_uploads(Bucket=self.bucket).get("Uploads", []))

    def write(self, key: str, body: bytes) -> None:
        """Write an object to the archive bucket."""
        boto3.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body)

    def download(self, folder: Path) -> int:
        """Download the objects that are missing from a folder, and return their number.

        The paths in the folder are the keys in the bucket. A file is visible only when it is complete, and a manifest
        only after the files that it describes.
        """
        # Parts are temporary. In AWS, a lifecycle rule deletes them.
        missing = [key for key in self.keys() if not key.startswith(PARTS) and not (folder / key).exists()]
        client, storage = boto3.client("s3"), FolderStorage(folder)
        for key in sorted(missing, key=_download_order):
            with storage.temporary_file() as file:
                client.download_fileobj(self.bucket, key, file)
                storage.publish(file, key)
        return len(missing)


def _download_order(key: str) -> tuple[bool, bool, bool, str]:
    """Return a sort key: objects, their manifests, the documents of runs, the run manifests, then the reports."""
    return key.startswith(REPORTS), key.startswith(RUNS), "/_manifest" in key, key


@contextmanager
def local_aws(
    *,
    parameters: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    observer: Observer | None = None,
    received: Received | None = None,
    serve: Callable[[list[LocalFunction], str], LambdaService] | None = None,
) -> Iterator[LocalAws]:
    """Create the stack on this machine, and delete it when the context ends.

    ``parameters`` are the parameters of the stack. ``environment`` is added to the environment of the process, for
    example to trust other certificates. ``received`` is called with the key and the size of each upload. ``serve``
    returns the service that invokes the functions. Its parameters are the functions and the HTTP endpoint of S3.
    """
    source = read_template()
    with ExitStack() as stack:
        # Proxies are disabled, because they cannot reach local services. The parameter HttpsProxy can set a proxy.
        proxies = dict.fromkeys((name for name in os.environ if name.lower().endswith("_proxy")), "")
        stack.enter_context(_variables({**_CREDENTIALS, **proxies, **(environment or {})}))
        stack.enter_context(environment_per_invocation())
        stack.enter_context(
            mock_aws(config={"stepfunctions": {"execute_state_machine": True}, "lambda": {"use_docker": False}})
        )
        endpoint = stack.enter_context(serve_s3(received))
        stack.enter_context(_variables({"AWS_ENDPOINT_URL_S3": endpoint}))
        meibo_aws.clear_clients()
        stack.callback(meibo_aws.clear_clients)
        invocations = InvokeInterceptor()
        stack.enter_context(invocations.installed())
        stack.enter_context(shared_clients())
        stack.enter_context(cached_definitions())
        stack.enter_context(concurrent_receives())
        yield _create(
            source,
            parameters=dict(parameters or {}),
            invocations=invocations,
            serve=serve or (lambda functions, _: LambdaService(functions, observer)),
            endpoint=endpoint,
        )


def _create(
    source: dict[str, Any],
    *,
    parameters: dict[str, str],
    invocations: InvokeInterceptor,
    serve: Callable[[list[LocalFunction], str], LambdaService],
    endpoint: str,
) -> LocalAws:
    translated = translate(source, parameters)
    _put_artifact()
    client = boto3.client("cloudformation")
    with _reproducible_names():
        client.create_stack(
            StackName=STACK,
            # moto first parses a template as YAML, which is 100 times slower than JSON. The leading tab makes the YAML
            # parser fail at once, so moto parses JSON.
            TemplateBody="\t" + json.dumps(_for_moto(translated)),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
    resources = {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for resource in client.describe_stack_resources(StackName=STACK)["StackResources"]
        # A resource whose condition is false has no ids.
        if "LogicalResourceId" in resource and "PhysicalResourceId" in resource
    }
    _complete_buckets(translated, resources)
    functions = _functions(source, resources)
    service = invocations.service = serve(functions, endpoint)
    arns = {function.logical_id: function.arn for function in functions}
    by_id = {function.logical_id: function for function in functions}
    schedule = next(iter(of_type(translated, "AWS::Scheduler::Schedule").values()))
    return LocalAws(
        bucket=resources["ArchiveBucket"],
        state_machine_arn=_create_state_machine(source, by_id["CreateExports"], arns),
        configuration_parameter=by_id["CreateExports"].environment["MEIBO_CONFIGURATION"],
        s3_endpoint=endpoint,
        schedule_input=schedule["Properties"]["Target"]["Input"],
        create_exports=by_id["CreateExports"].name,
        service=service,
        changes=_changes(translated, resources, by_id["ChangeMembers"], service),
        template=translated,
    )


@contextmanager
def _reproducible_names() -> Iterator[None]:
    """Use the same random names for the resources of each stack, so that workflow definitions can be cached."""
    state = mock_random.getstate()
    mock_random.seed(STACK)
    try:
        yield
    finally:
        # Ids of messages and of object versions must be unique.
        mock_random.setstate(state)


def _for_moto(translated: dict[str, Any]) -> dict[str, Any]:
    resources = {
        name: resource for name, resource in translated["Resources"].items() if resource["Type"] not in _UNSUPPORTED
    }
    return {key: value for key, value in translated.items() if key != "Outputs"} | {"Resources": resources}


def _complete_buckets(translated: dict[str, Any], resources: Mapping[str, str]) -> None:
    # moto's CloudFormation ignores these properties of buckets.
    client = boto3.client("s3")
    for logical_id, bucket in of_type(translated, "AWS::S3::Bucket").items():
        name, properties = resources[logical_id], bucket["Properties"]
        if "VersioningConfiguration" in properties:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"])
        if properties.get("ObjectLockEnabled"):
            client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})


def _functions(source: dict[str, Any], resources: Mapping[str, str]) -> list[LocalFunction]:
    client = boto3.client("lambda")
    functions = []
    for logical_id, resource in of_type(source, "AWS::Serverless::Function").items():
        configuration = client.get_function_configuration(FunctionName=resources[logical_id])
        functions.append(
            LocalFunction(
                logical_id=logical_id,
                name=configuration["FunctionName"],
                arn=configuration["FunctionArn"],
                handler=load_handler(resource["Properties"]["CodeUri"], configuration["Handler"]),
                # moto does not convert numeric parameters to strings.
                environment={name: str(value) for name, value in configuration["Environment"]["Variables"].items()},
                timeout_seconds=configuration["Timeout"],
                memory_mb=configuration["MemorySize"],
            )
        )
    return functions


def _changes(
    translated: dict[str, Any],
    resources: Mapping[str, str],
    function: LocalFunction,
    service: LambdaService,
) -> LocalChanges:
    (resource,) = of_type(translated, "AWS::Lambda::EventSourceMapping").values()
    mapping = resource["Properties"]
    queue, dead_letters = resources["ChangesQueue"], resources["ChangesDeadLetters"]
    client = boto3.client("sqs")
    source = EventSource(
        SqsQueue(client, queue),
        client.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"],
        lambda event: service.invoke(function.name, json.dumps(event).encode()),
        batch_size=mapping["BatchSize"],
        concurrency=mapping["ScalingConfig"]["MaximumConcurrency"],
        reports_failures="ReportBatchItemFailures" in mapping["FunctionResponseTypes"],
    )
    return LocalChanges(client, queue, dead_letters, source)


def _create_state_machine(source: dict[str, Any], create_exports: LocalFunction, arns: Mapping[str, str]) -> str:
    client = boto3.client("stepfunctions")
    properties = next(iter(of_type(source, "AWS::Serverless::StateMachine").values()))["Properties"]
    definition = (ROOT / properties["DefinitionUri"]).read_text(encoding="utf-8")
    for name, value in properties["DefinitionSubstitutions"].items():
        definition = definition.replace(f"${{{name}}}", _substitution(name, value, arns))
    # The environment of the function already contains this ARN, so the state machine must be created with its name.
    arn = create_exports.environment["MEIBO_STATE_MACHINE_ARN"]
    for machine in client.list_state_machines()["stateMachines"]:
        client.delete_state_machine(stateMachineArn=machine["stateMachineArn"])
    created = client.create_state_machine(
        name=arn.rsplit(":", 1)[-1], definition=definition, roleArn="arn:aws:iam::123456789012:role/local"
    )
    if created["stateMachineArn"] != arn:
        raise ValueError(f"expected the state machine ARN from the template, {arn}, found {created['stateMachineArn']}")
    return arn


def _substitution(name: str, value: dict[str, Any], arns: Mapping[str, str]) -> str:
    if value == {"Ref": "AWS::Partition"}:
        return "aws"
    logical_id, attribute = value.get("Fn::GetAtt", ("", ""))
    if attribute != "Arn" or logical_id not in arns:
        raise ValueError(
            f"DefinitionSubstitutions.{name}: expected the ARN of a function or AWS::Partition, found {value}"
        )
    return arns[logical_id]


def _put_artifact() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("app.py", "")
    client = boto3.client("s3")
    client.create_bucket(Bucket="meibo-local-artifacts", CreateBucketConfiguration={"LocationConstraint": REGION})
    client.put_object(Bucket="meibo-local-artifacts", Key="artifact.zip", Body=archive.getvalue())


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and unset those with an empty value, until the context ends."""
    with patch.dict(os.environ, values):
        for name, value in values.items():
            if not value:
                del os.environ[name]
        yield
