"""Run ``sam deploy`` against moto on loopback, as the README describes, with the result of ``make build``.

See ``tests.e2e.cloudformation`` for the limits of moto. Alarms, schedules, Glue tables and policies of buckets and
queues are not created here. tests/template checks them in the translated template.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from meibo_local.aws import REGION
from meibo_local.template import ROOT, read_template
from tests.e2e.sam_functions import SAM

STACK = "meibo"
MAX_START_SECONDS = 60
MAX_DEPLOY_SECONDS = 300
DEFAULTS = {name: str(declared["Default"]) for name, declared in read_template()["Parameters"].items()}
CONFIRM_CHANGE_SET = "y"

pytestmark = pytest.mark.timeout(6 * MAX_DEPLOY_SECONDS)


@dataclass(frozen=True)
class Deployment:
    """A stack as CloudFormation describes it, and its functions."""

    status: str
    parameters: dict[str, str]
    outputs: dict[str, str]
    environments: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Cloud:
    """An AWS on loopback, and a home folder with a copy of the repository's SAM configuration."""

    endpoint: str
    home: Path

    @property
    def configuration(self) -> Path:
        """The samconfig.toml that ``sam deploy`` reads."""
        return self.home / "samconfig.toml"

    def client(self, service: str) -> Any:
        """Return a client of a service of this AWS."""
        credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, region_name=REGION, endpoint_url=self.endpoint, **credentials)  # type: ignore[call-overload]  # any service

    def deploy(self, *arguments: str) -> Deployment:
        """Run ``sam deploy``, confirm the change set, and return the stack."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SAM_CLI_TELEMETRY": "0",
            # The SAM CLI checks for a newer version once a week. This request goes to a closed port of loopback.
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "localhost",
        }
        done = subprocess.run(  # noqa: S603  # the SAM CLI of this repository
            [str(SAM), "deploy", "--config-file", str(self.configuration), *arguments],
            cwd=ROOT,
            env=environment,
            input=f"{CONFIRM_CHANGE_SET}\n",
            capture_output=True,
            text=True,
            timeout=MAX_DEPLOY_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return self.describe()

    def describe(self) -> Deployment:
        """Return the current stack."""
        (stack,) = self.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        functions = self.client("lambda").list_functions()["Functions"]
        return Deployment(
            status=stack["StackStatus"],
            parameters={entry["ParameterKey"]: entry["ParameterValue"] for entry in stack["Parameters"]},
            outputs={entry["OutputKey"]: entry["OutputValue"] for entry in stack["Outputs"]},
            environments={entry["FunctionName"]: entry["Environment"]["Variables"] for entry in functions},
        )


@pytest.fixture(scope="module")
def cloud(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    assert built.exists()
    home = tmp_path_factory.mktemp("home")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # moto recognizes the bucket in a URL only with this host name.
    endpoint = f"http://localhost:{port}"
    with (home / "moto.log").open("w") as log:
        server = subprocess.Popen(  # noqa: S603  # a module of this repository
            [sys.executable, "-m", "tests.e2e.cloudformation", str(port)],
            cwd=ROOT,
            # The SAM transform reads the region from this variable.
            env={**os.environ, "AWS_DEFAULT_REGION": REGION},
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(server, endpoint)
        shutil.copy(ROOT / "samconfig.toml", home)
        yield Cloud(endpoint, home)
    finally:
        server.terminate()
        server.wait()


def _wait_for(server: subprocess.Popen[bytes], endpoint: str) -> None:
    end = time.monotonic() + MAX_START_SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, "moto's server ended; see moto.log"
        try:
            requests.get(f"{endpoint}/moto-api/", timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.2)
        else:
            return
    pytest.fail("moto's server does not respond")


@pytest.fixture(scope="module")
def created(cloud: Cloud) -> Deployment:
    """The stack after the first ``sam deploy``, without a parameter."""
    return cloud.deploy()


def _changes(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    return {
        name: (before.get(name), after.get(name)) for name in {*before, *after} if before.get(name) != after.get(name)
    }


def test_first_deployment_creates_the_stack_with_the_defaults(cloud: Cloud, created: Deployment) -> None:
    assert created.status == "CREATE_COMPLETE"
    assert _changes(DEFAULTS, created.parameters) == {}

    # Each function has the packaged code.
    assert len(created.environments) == len(list((ROOT / "functions").glob("*/app.py")))
    client = cloud.client("lambda")
    assert all(client.get_function(FunctionName=name)["Configuration"]["CodeSize"] for name in created.environments)
    # The outputs that the documentation uses name resources that exist.
    cloud.client("s3").head_bucket(Bucket=created.outputs["ArchiveBucketName"])
    assert created.outputs["CreateExportsName"] in created.environments
    arns = [entry["stateMachineArn"] for entry in cloud.client("stepfunctions").list_state_machines()["stateMachines"]]
    assert arns == [created.outputs["ExportWorkflowArn"]]


def test_deployment_does_not_change_the_configuration_file(cloud: Cloud, created: Deployment) -> None:
    assert cloud.configuration.read_text(encoding="utf-8") == (ROOT / "samconfig.toml").read_text(encoding="utf-8")


def test_update_changes_the_named_parameter_and_no_other(cloud: Cloud, created: Deployment) -> None:
    before = cloud.describe()

    updated = cloud.deploy("--parameter-overrides", "MaxRemovals=10")

    assert updated.status == "UPDATE_COMPLETE"
    assert _changes(before.parameters, updated.parameters) == {"MaxRemovals": ("50", "10")}

    # and: the function that reads it has the new value, and no other resource was changed or replaced
    assert updated.outputs == before.outputs
    assert updated.environments.keys() == before.environments.keys()
    changed = {name: _changes(before.environments[name], variables) for name, variables in updated.environments.items()}
    # moto does not convert a parameter of the type Number to a string, as Lambda does.
    (changes,) = (changes for changes in changed.values() if changes)
    assert {name: tuple(map(str, values)) for name, values in changes.items()} == {"MEIBO_MAX_REMOVALS": ("50", "10")}


def test_omitted_parameters_keep_their_previous_values(cloud: Cloud, created: Deployment) -> None:
    # given: a schedule that was enabled on the command line
    enabled = cloud.deploy("--parameter-overrides", "ScheduleState=ENABLED", "MaxRemovals=20")
    assert enabled.parameters["ScheduleState"] == "ENABLED"

    # when: the stack is deployed without parameters, for example to upgrade it, and with another parameter
    upgraded = cloud.deploy()
    changed = cloud.deploy("--parameter-overrides", "MaxSilenceHours=30")

    assert upgraded.parameters == enabled.parameters
    assert _changes(enabled.parameters, changed.parameters) == {"MaxSilenceHours": ("26", "30")}
