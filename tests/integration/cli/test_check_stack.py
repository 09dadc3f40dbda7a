"""``meibo check --stack`` against moto, with the resources of the template that it reads, and simulated directories."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.sns.models import sns_backends

from meibo import aws
from meibo.providers import clear_clients
from meibo_local.caches import shared_clients
from meibo_local.template import read_template, translate
from tests.integration.cli.conftest import CommandResult, invoke
from tests.support.local_runs import LocalRuns, local_runs

REGION = "ap-northeast-1"
TOPIC = f"arn:aws:sns:{REGION}:123456789012:alarms"


class Schedule(CloudFormationModel):
    """A schedule, which moto's CloudFormation does not create."""

    def __init__(self, name: str) -> None:
        self.physical_resource_id = name

    @staticmethod
    def cloudformation_name_type() -> str:
        return "Name"

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Scheduler::Schedule"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, *_: Any, **__: Any
    ) -> Schedule:
        target = {"Arn": "arn:aws:lambda:::function", "RoleArn": "arn:aws:iam::123456789012:role/schedule"}
        properties: dict[str, Any] = {**cloudformation_json["Properties"], "Name": resource_name, "Target": target}
        boto3.client("scheduler").create_schedule(**properties)
        return cls(resource_name)

    def is_created(self) -> bool:
        return True


@dataclass
class DeployedStack:
    """The stack of the template, without its functions."""

    runs: LocalRuns
    meibo: Callable[..., CommandResult]

    def deploy(self, **parameters: str) -> None:
        """Create the stack, its configuration and its secrets."""
        template = translate(read_template(), parameters)
        names = ("ArchiveBucket", "Schedule", "AlarmTopic")
        template["Resources"] = {name: template["Resources"][name] for name in names}
        del template["Resources"]["Schedule"]["Properties"]["Target"]
        del template["Outputs"]
        boto3.client("cloudformation").create_stack(
            StackName="meibo",
            TemplateBody="\t" + json.dumps(template),  # moto parses JSON if YAML is not valid
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
        # moto's CloudFormation ignores this property.
        boto3.client("s3").put_bucket_versioning(
            Bucket=self.resource("ArchiveBucket"), VersioningConfiguration={"Status": "Enabled"}
        )
        self.configure((self.runs.folder / "sources.json").read_text(encoding="utf-8"))
        secrets = {"acme": self.runs.tenant.credentials(), "example": self.runs.domain.credentials()}
        for name, secret in secrets.items():
            boto3.client("secretsmanager").create_secret(Name=f"meibo/{name}", SecretString=json.dumps(secret))

    def resource(self, logical_id: str) -> str:
        response = boto3.client("cloudformation").describe_stack_resource(
            StackName="meibo", LogicalResourceId=logical_id
        )
        return response["StackResourceDetail"]["PhysicalResourceId"]

    def configure(self, text: str) -> None:
        boto3.client("ssm").put_parameter(Name="/meibo/sources", Value=text, Type="String", Overwrite=True)

    def check(self, name: str = "meibo") -> tuple[int, dict[str, Any]]:
        """Return the exit status and the checks by subject and name."""
        result = self.meibo("check", "--stack", name, "--json")
        assert result.errors == ""
        return result.status, {f"{check['subject']}: {check['check']}": check for check in result.json()["checks"]}


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeployedStack]:
    models: Mapping[str, Any] = {**parsing.get_model_map(), "AWS::Scheduler::Schedule": Schedule}
    with local_runs(tmp_path, monkeypatch) as runs:
        runs.configure([{"dataset": "users"}, {"dataset": "members"}], [{"dataset": "directory"}])
        # The credentials of a stack are in Secrets Manager only.
        (tmp_path / ".env").unlink()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        monkeypatch.setattr(parsing, "get_model_map", lambda: models)

        def meibo(*arguments: str) -> CommandResult:
            clear_clients()
            return invoke(*arguments)

        with mock_aws(), shared_clients():
            aws.clear_clients()
            yield DeployedStack(runs, meibo)
        aws.clear_clients()


def test_stack_and_its_sources_are_checked(stack: DeployedStack) -> None:
    boto3.client("sns").create_topic(Name="alarms")
    boto3.client("sns").subscribe(TopicArn=TOPIC, Protocol="email", Endpoint="ops@example.com")
    stack.deploy(ScheduleState="ENABLED", AlarmTopicArn=TOPIC)

    status, checks = stack.check()

    assert status == 0
    assert {check["status"] for check in checks.values()} == {"ok"}
    details = {name: check["detail"] for name, check in checks.items()}
    assert details["meibo: status"] == "CREATE_COMPLETE"
    assert details["meibo: parameter /meibo/sources"] == "2 sources with 9 exports"
    assert details["meibo: bucket"] == f"{stack.resource('ArchiveBucket')}, with versioning"
    assert details["meibo: schedule"] == "ENABLED: cron(0 3 * * ? *), Asia/Tokyo"
    assert details["meibo: alarm target"] == "1 confirmed subscription"
    assert {"acme: access token", "acme: read:organization_members", "example: CSV files"} <= set(checks)
    assert "ops@example.com" not in json.dumps(checks)


def test_new_stack_has_warnings_that_state_what_to_do(stack: DeployedStack) -> None:
    stack.deploy()

    status, checks = stack.check()

    assert status == 0
    assert {name: check["detail"] for name, check in checks.items() if check["status"] == "warning"} == {
        "meibo: schedule": "DISABLED, so no runs are scheduled; set the parameter ScheduleState to ENABLED after a"
        " first manual run is complete",
        "meibo: alarm target": "alarms send no notifications; set the parameter AlarmEmail or AlarmTopicArn",
    }


def test_every_fault_of_a_stack_is_reported(stack: DeployedStack) -> None:
    stack.deploy(ScheduleState="ENABLED", AlarmTopicArn=TOPIC)
    bucket, schedule = stack.resource("ArchiveBucket"), stack.resource("Schedule")
    boto3.client("s3").put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    client = boto3.client("scheduler")
    current = client.get_schedule(Name=schedule)
    client.update_schedule(
        Name=schedule,
        State="DISABLED",
        ScheduleExpression=current["ScheduleExpression"],
        FlexibleTimeWindow=current["FlexibleTimeWindow"],
        Target=current["Target"],
    )
    boto3.client("secretsmanager").delete_secret(SecretId="meibo/acme", ForceDeleteWithoutRecovery=True)

    status, checks = stack.check()

    assert status == 1
    assert {name: check["detail"] for name, check in checks.items() if check["status"] == "failed"} == {
        "meibo: bucket": f"the bucket {bucket}: expected versioning to be Enabled, found Suspended; enable it, because"
        " it protects archived objects",
        "meibo: schedule": "the schedule is DISABLED, but the parameter ScheduleState is ENABLED, so the schedule was"
        " changed outside the stack; set its state in EventBridge Scheduler, or change the parameter and deploy the"
        " stack",
        "meibo: alarm target": f"the topic {TOPIC} cannot be read: AWS returned NotFound for"
        " ListSubscriptionsByTopic; check that it exists, and allow sns:ListSubscriptionsByTopic",
        "acme: credentials": "the secret 'meibo/acme' cannot be read (ResourceNotFoundException); create it in Secrets"
        " Manager in this region, and check that its name begins with the template's SecretPrefix",
    }
    assert checks["example: login"]["status"] == "ok"


@pytest.mark.parametrize(
    ("arn", "message"),
    [
        ("PendingConfirmation", "the subscription of the alarm topic is not confirmed; open the link in the e-mail"),
        (None, "has no subscription; subscribe an address to it"),
    ],
)
def test_alarm_topic_without_a_confirmed_subscription_is_reported(
    stack: DeployedStack, monkeypatch: pytest.MonkeyPatch, arn: str | None, message: str
) -> None:
    stack.deploy(AlarmEmail="ops@example.com")
    topic = stack.resource("AlarmTopic")
    client = boto3.client("sns")
    for subscription in client.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]:
        client.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    if arn is not None:
        created = client.subscribe(TopicArn=topic, Protocol="email", Endpoint="ops@example.com")["SubscriptionArn"]
        # moto confirms every subscription at once.
        sns_backends["123456789012"][REGION].subscriptions[created].arn = arn

    status, checks = stack.check()

    assert (status, checks["meibo: alarm target"]["status"]) == (1, "failed")
    assert message in checks["meibo: alarm target"]["detail"]
    assert "ops@example.com" not in json.dumps(checks)


def test_invalid_configuration_does_not_stop_the_other_checks(stack: DeployedStack) -> None:
    stack.deploy()
    stack.configure('{"sources": [{"provider": "okta"}]}')

    status, checks = stack.check()

    assert status == 2
    assert checks["meibo: parameter /meibo/sources"]["status"] == "failed"
    assert "SSM parameter /meibo/sources: " in checks["meibo: parameter /meibo/sources"]["detail"]
    assert "expected 'auth0' or 'cybozu'" in checks["meibo: parameter /meibo/sources"]["detail"]
    assert checks["meibo: bucket"]["status"] == "ok"
    assert {name.partition(":")[0] for name in checks} == {"meibo"}


def test_secret_that_the_functions_cannot_read_is_reported(stack: DeployedStack) -> None:
    stack.deploy()
    text = (stack.runs.folder / "sources.json").read_text(encoding="utf-8")
    stack.configure(text.replace("meibo/acme", "other/acme"))
    boto3.client("secretsmanager").create_secret(
        Name="other/acme", SecretString=json.dumps(stack.runs.tenant.credentials())
    )

    status, checks = stack.check()

    assert status == 1
    assert checks["acme: credentials"]["detail"] == (
        "the secret 'other/acme': expected a name that begins with 'meibo/' (parameter SecretPrefix), because the"
        " functions can read no other secret"
    )


def test_unknown_stack_is_reported(stack: DeployedStack) -> None:
    result = stack.meibo("check", "--stack", "meibu")

    assert (result.status, result.errors) == (
        2,
        f"--stack: no stack named 'meibu' in the region {REGION}; correct the name or the region\n",
    )


def test_stack_of_another_template_is_refused(stack: DeployedStack) -> None:
    boto3.client("cloudformation").create_stack(
        StackName="other", TemplateBody=json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
    )

    result = stack.meibo("check", "--stack", "other")

    assert result.status == 2
    assert result.errors.startswith("--stack: the stack other has no parameter ConfigurationParameter, so it is not")
