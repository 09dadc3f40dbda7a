"""AWS on one machine, built from ``template.yaml``.

The SAM transform turns the template into CloudFormation, moto creates from that what the application needs, and
moto's interpreter runs the real workflow file. What moto cannot do is done here and nowhere else:

- the state machine is created through the API, because the interpreter does not see one made by CloudFormation;
- ``lambda:Invoke`` goes to the real handlers in this process, with the environment that the template gives them;
- S3 is also served over HTTP on loopback, because presigned URLs are not boto3 calls that moto could intercept;
- the event source mapping of the queue of changes is played by :mod:`meibo_local.queue`, from the template's numbers;
- the schedule's tick is fired by :meth:`LocalAws.tick`, with the input that the template's schedule has.
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
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import boto3
from moto import mock_aws
from moto.moto_api._internal import mock_random

from meibo import aws as meibo_aws
from meibo import secrets
from meibo_local.caches import cached_definitions, shared_clients
from meibo_local.environment import overlaid_environ
from meibo_local.folder import receive
from meibo_local.lambda_service import (
    InvocationResult,
    InvokeInterceptor,
    LambdaService,
    LocalFunction,
    Observer,
    load_handler,
)
from meibo_local.queue import EventSource, LocalChanges, SqsQueue
from meibo_local.s3_server import Received, serve_s3
from meibo_local.template import ROOT, of_type, read_template, translate

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions import SFNClient

REGION: Final = "ap-northeast-1"
STACK = "meibo"

# What moto's CloudFormation cannot create. Nothing here depends on them but the schedule, whose tick is fired by hand;
# that they are right is asserted on the translated template.
_UNKNOWN_TO_MOTO: Final = frozenset(
    {
        "AWS::CloudWatch::Alarm",
        "AWS::Glue::Database",
        "AWS::Glue::Table",
        "AWS::Lambda::EventInvokeConfig",
        # moto knows it and would invoke the function at each message that is sent.
        "AWS::Lambda::EventSourceMapping",
        "AWS::S3::BucketPolicy",
        "AWS::SQS::QueuePolicy",
        "AWS::Scheduler::Schedule",
    }
)

# Never sent anywhere: signatures are made with them, and nothing on this machine checks those.
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
    """The application's stack on this machine."""

    bucket: str
    state_machine_arn: str
    configuration_parameter: str
    s3_endpoint: str
    schedule_input: str
    create_exports: str
    service: LambdaService
    changes: LocalChanges
    template: dict[str, Any] = field(repr=False)

    # Kept, because making a client takes longer than what most calls of one take.
    @cached_property
    def _s3(self) -> S3Client:
        return boto3.client("s3")

    @cached_property
    def _functions(self) -> LambdaClient:
        return boto3.client("lambda")

    @cached_property
    def _workflow(self) -> SFNClient:
        return boto3.client("stepfunctions")

    def configure(self, document: Any, secrets: Mapping[str, Any]) -> None:
        """Write the configuration and the secrets where the functions look for them."""
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
        """Fire the schedule once, as EventBridge Scheduler would."""
        moment = (scheduled_time or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self.invoke_raw(
            self.create_exports, self.schedule_input.replace("<aws.scheduler.scheduled-time>", moment).encode()
        )

    def invoke(self, event: Any) -> InvocationResult:
        """Invoke ``create_exports`` by hand."""
        return self.invoke_raw(self.create_exports, json.dumps(event).encode())

    def invoke_raw(self, name: str, payload: bytes) -> InvocationResult:
        """Invoke a function by name or ARN through the Lambda API."""
        answer = self._functions.invoke(FunctionName=name, Payload=payload)
        return InvocationResult(json.loads(answer["Payload"].read()), failed="FunctionError" in answer)

    def execution(self, run_id: str, attempt: int = 1) -> dict[str, Any]:
        """Return the workflow's execution of one attempt."""
        arn = self.execution_arn(run_id, attempt)
        description: dict[str, Any] = dict(self._workflow.describe_execution(executionArn=arn))
        return description

    def execution_arn(self, run_id: str, attempt: int = 1) -> str:
        """Return the ARN of the workflow's execution of one attempt."""
        return f"{self.state_machine_arn.replace(':stateMachine:', ':execution:')}:{run_id}-{attempt}"

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys in the archive bucket, in order."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        """Return an object of the archive bucket."""
        return self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def read_json(self, key: str) -> Any:
        """Return a JSON object of the archive bucket."""
        return json.loads(self.read(key))

    def unfinished_uploads(self) -> int:
        """Return the number of multipart uploads that were neither completed nor aborted."""
        return len(self._s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []))

    def write(self, key: str, body: bytes) -> None:
        """Put an object into the archive bucket."""
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def download(self, folder: Path) -> int:
        """Copy the objects that a folder lacks to it, under the bucket's keys; return their number.

        All of them appear or none does, and a file that is there stays as it is.
        """
        # Parts are temporary: in AWS a lifecycle rule expires them.
        missing = [key for key in self.keys() if not key.startswith("parts/") and not (folder / key).exists()]
        receive(folder, missing, lambda key, file: self._s3.download_fileobj(self.bucket, key, file))
        return len(missing)


@contextmanager
def local_aws(
    *,
    parameters: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    observer: Observer | None = None,
    received: Received | None = None,
    serve: Callable[[list[LocalFunction], str], LambdaService] | None = None,
    root: Path = ROOT,
) -> Iterator[LocalAws]:
    """Bring the template's stack up on this machine, and take it down again.

    ``parameters`` are the stack's; ``environment`` is added to every function's, for what AWS would provide
    otherwise, such as which certificates are trusted. ``received`` is told the bytes that arrive for each key.
    ``serve`` makes the service that calls the functions, of them and the endpoint where AWS answers over HTTP.
    """
    source = read_template(root / "template.yaml")
    with ExitStack() as stack:
        stack.enter_context(_variables({**_CREDENTIALS, **(environment or {})}))
        stack.enter_context(overlaid_environ())
        stack.enter_context(
            mock_aws(config={"stepfunctions": {"execute_state_machine": True}, "lambda": {"use_docker": False}})
        )
        endpoint = stack.enter_context(serve_s3(received))
        stack.enter_context(_variables({"AWS_ENDPOINT_URL_S3": endpoint}))
        meibo_aws.clear_clients()
        secrets.clear_clients()
        stack.callback(meibo_aws.clear_clients)
        stack.callback(secrets.clear_clients)
        invocations = InvokeInterceptor()
        stack.enter_context(invocations.answered())
        stack.enter_context(shared_clients())
        stack.enter_context(cached_definitions())
        yield _create(
            source,
            parameters=dict(parameters or {}),
            invocations=invocations,
            serve=serve or (lambda functions, _: LambdaService(functions, observer)),
            endpoint=endpoint,
            root=root,
        )


def _create(
    source: dict[str, Any],
    *,
    parameters: dict[str, str],
    invocations: InvokeInterceptor,
    serve: Callable[[list[LocalFunction], str], LambdaService],
    endpoint: str,
    root: Path,
) -> LocalAws:
    translated = translate(source, parameters)
    _put_artifact()
    client = boto3.client("cloudformation")
    with _names_of_every_time():
        client.create_stack(
            StackName=STACK,
            # moto reads it as YAML first, which takes a hundred times longer; no YAML begins with a tab.
            TemplateBody="\t" + json.dumps(_for_moto(translated)),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
    resources = {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for resource in client.describe_stack_resources(StackName=STACK)["StackResources"]
        # A resource whose condition does not hold is listed without names.
        if "LogicalResourceId" in resource and "PhysicalResourceId" in resource
    }
    _complete_buckets(translated, resources)
    functions = _functions(source, resources, root)
    service = invocations.service = serve(functions, endpoint)
    arns = {function.logical_id: function.arn for function in functions}
    by_id = {function.logical_id: function for function in functions}
    schedule = next(iter(of_type(translated, "AWS::Scheduler::Schedule").values()))
    return LocalAws(
        bucket=resources["ArchiveBucket"],
        state_machine_arn=_create_state_machine(source, by_id["CreateExports"], arns, root),
        configuration_parameter=by_id["CreateExports"].environment["MEIBO_CONFIGURATION"],
        s3_endpoint=endpoint,
        schedule_input=schedule["Properties"]["Target"]["Input"],
        create_exports=by_id["CreateExports"].name,
        service=service,
        changes=_changes(translated, resources, by_id["ChangeMembers"], service),
        template=translated,
    )


@contextmanager
def _names_of_every_time() -> Iterator[None]:
    """Let the random part of the resources' names be the same in every stack, so that the workflow's definition is."""
    before = mock_random.getstate()
    mock_random.seed(STACK)
    try:
        yield
    finally:
        # Ids of messages and versions are never to come twice.
        mock_random.setstate(before)


def _for_moto(translated: dict[str, Any]) -> dict[str, Any]:
    resources = {
        name: resource for name, resource in translated["Resources"].items() if resource["Type"] not in _UNKNOWN_TO_MOTO
    }
    return {key: value for key, value in translated.items() if key != "Outputs"} | {"Resources": resources}


def _complete_buckets(translated: dict[str, Any], resources: Mapping[str, str]) -> None:
    # moto's CloudFormation makes buckets without these properties.
    client = boto3.client("s3")
    for logical_id, bucket in of_type(translated, "AWS::S3::Bucket").items():
        name, properties = resources[logical_id], bucket["Properties"]
        if "VersioningConfiguration" in properties:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"])
        if properties.get("ObjectLockEnabled"):
            client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})


def _functions(source: dict[str, Any], resources: Mapping[str, str], root: Path) -> list[LocalFunction]:
    client = boto3.client("lambda")
    functions = []
    for logical_id, resource in of_type(source, "AWS::Serverless::Function").items():
        made = client.get_function_configuration(FunctionName=resources[logical_id])
        functions.append(
            LocalFunction(
                logical_id=logical_id,
                name=made["FunctionName"],
                arn=made["FunctionArn"],
                handler=load_handler(resource["Properties"]["CodeUri"], made["Handler"], root),
                # moto keeps the types of Number parameters; an environment has texts only.
                environment={name: str(value) for name, value in made["Environment"]["Variables"].items()},
                timeout_seconds=made["Timeout"],
                memory_mb=made["MemorySize"],
            )
        )
    return functions


def _changes(
    translated: dict[str, Any],
    resources: Mapping[str, str],
    function: LocalFunction,
    service: LambdaService,
) -> LocalChanges:
    (mapping,) = (found["Properties"] for found in of_type(translated, "AWS::Lambda::EventSourceMapping").values())
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


def _create_state_machine(
    source: dict[str, Any], create_exports: LocalFunction, arns: Mapping[str, str], root: Path
) -> str:
    client = boto3.client("stepfunctions")
    properties = next(iter(of_type(source, "AWS::Serverless::StateMachine").values()))["Properties"]
    definition = (root / properties["DefinitionUri"]).read_text(encoding="utf-8")
    for name, value in properties["DefinitionSubstitutions"].items():
        definition = definition.replace(f"${{{name}}}", _substitution(name, value, arns))
    # The function was told this ARN by the template; the state machine must answer to it.
    arn = create_exports.environment["MEIBO_STATE_MACHINE_ARN"]
    for machine in client.list_state_machines()["stateMachines"]:
        client.delete_state_machine(stateMachineArn=machine["stateMachineArn"])
    made = client.create_state_machine(
        name=arn.rsplit(":", 1)[-1], definition=definition, roleArn="arn:aws:iam::123456789012:role/local"
    )
    if made["stateMachineArn"] != arn:
        raise ValueError(f"the template calls the workflow {arn}, but it is {made['stateMachineArn']}")
    return arn


def _substitution(name: str, value: dict[str, Any], arns: Mapping[str, str]) -> str:
    if value == {"Ref": "AWS::Partition"}:
        return "aws"
    logical_id, attribute = value.get("Fn::GetAtt", ("", ""))
    if attribute != "Arn" or logical_id not in arns:
        raise ValueError(
            f"DefinitionSubstitutions.{name}: expected the ARN of a function or AWS::Partition, got {value}"
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
    before = {name: os.environ.get(name) for name in values}
    for name, value in values.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old
