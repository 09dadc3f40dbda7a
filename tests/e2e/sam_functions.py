"""Invoke functions as ``sam build`` packaged them, each in a Lambda container of ``sam local invoke``.

If layers are resources of the template, ``sam local`` builds an image for each invocation, which takes longer than the
invocation. So most invocations use an image that contains the layer. The ``layered`` invocations use the template.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from meibo_local.aws import REGION
from meibo_local.lambda_service import InvocationResult, LambdaService, LocalFunction, Observer
from meibo_local.template import ROOT, of_type
from tests.e2e import relay

SAM = ROOT / ".venv-sam/bin/sam"
BUILT = ROOT / ".aws-sam/build/template.yaml"
# An image that is used instead of the Lambda image if it exists, for machines that cannot pull images.
STAND_IN_IMAGE = "lambda-python:3.13"
LAMBDA_IMAGE = "public.ecr.aws/lambda/python:3.13"
BAKED_IMAGE = "meibo-e2e"
# A container takes a few seconds to start, and the functions process little data in these tests.
MAX_CALL_SECONDS = 240
# The folder of the function in its container.
TASK_ROOT = "/var/task"
_NOT_PASSED_ON = ("AWS_", "MEIBO_", "POWERTOOLS_", "PYTHON", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass
class SamFunctions(LambdaService):
    """Invoke functions with ``sam local invoke``, and store the logs of the containers.

    ``endpoint`` is the address of AWS, which the functions reach through the relay, as they reach the providers.
    ``ca_file`` contains the certificates that they trust.
    """

    functions: list[LocalFunction]
    observer: Observer | None
    folder: Path
    endpoint: str
    ca_file: Path
    logs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.functions, self.observer)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.layer = BUILT.parent / "MeiboLayer"
        self._layered = self._write_template()
        self._image = _image_options()
        self._baked = self._bake()

    def ask(self, logical_id: str, event: Any) -> InvocationResult:
        """Invoke a function by its logical id."""
        (name,) = (function.name for function in self.functions if function.logical_id == logical_id)
        return self.invoke(name, json.dumps(event).encode())

    def ask_layered(self, logical_id: str, event: Any) -> InvocationResult:
        """Invoke a function with the layers of the template, as a user does."""
        (function,) = (function for function in self.functions if function.logical_id == logical_id)
        return self._invoke(function, event, self._layered, self._image)

    def _bake(self) -> Path:
        """Build an image with the layers, and return a template without them."""
        self.forget_image()
        context = self.folder / "image"
        shutil.rmtree(context, ignore_errors=True)
        for layer in (self.layer, self.folder / "relay"):
            shutil.copytree(layer, context / "opt", dirs_exist_ok=True)
        base = STAND_IN_IMAGE if self._image else LAMBDA_IMAGE
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY opt/ /opt/\n")
        command = [_docker(), "build", "--quiet", "--tag", BAKED_IMAGE, str(context)]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own command
        shutil.rmtree(context)
        template = json.loads(self._layered.read_text())
        del template["Globals"]["Function"]["Layers"]
        path = self.folder / "baked.json"
        path.write_text(json.dumps(template, indent=2))
        return path

    def forget_image(self) -> None:
        """Remove the image and the images that sam local derived from it, which it never updates."""
        listed = [_docker(), "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", BAKED_IMAGE]
        names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()  # noqa: S603
        if names:
            command = [_docker(), "image", "rm", "--force", *names]
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own images

    def _write_template(self) -> Path:
        """Write the built template with the environment that each function has in AWS.

        ``sam local`` does not resolve references to resources, and passes only variables that are in the template. The
        result of ``sam build`` is not changed. The certificates are in the folder of the handler, and the relay is a
        second layer.
        """
        template = yaml_parse(BUILT.read_text())
        for layer in of_type(template, "AWS::Serverless::LayerVersion").values():
            layer["Properties"]["ContentUri"] = str(BUILT.parent / layer["Properties"]["ContentUri"])
        template["Resources"]["Relay"] = {
            "Type": "AWS::Serverless::LayerVersion",
            "Properties": {"ContentUri": str(self._write_relay())},
        }
        template["Globals"]["Function"]["Layers"].append({"Ref": "Relay"})
        resources = of_type(template, "AWS::Serverless::Function")
        for function in self.functions:
            properties = resources[function.logical_id]["Properties"]
            code = self.code_folder(function)
            shutil.copytree(
                BUILT.parent / properties["CodeUri"],
                code,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
            shutil.copy(self.ca_file, code / "ca.pem")
            properties["CodeUri"] = str(code)
            properties["Environment"] = {"Variables": self._environment(function)}
        path = self.folder / "template.json"
        path.write_text(json.dumps(template, indent=2))
        return path

    def code_folder(self, function: LocalFunction) -> Path:
        """Return the folder with the code of a function."""
        return self.folder / function.logical_id

    def _write_relay(self) -> Path:
        layer = self.folder / "relay"
        extension = layer / "extensions" / Path(relay.__file__).name
        extension.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(relay.__file__, extension)
        extension.chmod(0o755)
        return layer

    def _environment(self, function: LocalFunction) -> dict[str, str]:
        ca_file = f"{TASK_ROOT}/ca.pem"
        return {
            **function.environment,
            "AWS_ENDPOINT_URL": self.endpoint,
            "SSL_CERT_FILE": ca_file,
            "REQUESTS_CA_BUNDLE": ca_file,
        }

    def _call(self, function: LocalFunction, event: Any) -> InvocationResult:
        return self._invoke(function, event, self._baked, ["--skip-pull-image", "--invoke-image", BAKED_IMAGE])

    def _invoke(self, function: LocalFunction, event: Any, template: Path, image: list[str]) -> InvocationResult:
        command = [str(SAM), "local", "invoke", function.logical_id, "--template", str(template), "--event", "-"]
        command += ["--region", REGION, *image]
        done = subprocess.run(  # noqa: S603  # our own command
            command,
            input=json.dumps(event),
            env=_command_environment(self.endpoint),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=MAX_CALL_SECONDS,
            check=False,
        )
        self.logs.append(done.stderr)
        print(done.stderr)  # noqa: T201  # pytest shows it if a test fails
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            raise RuntimeError(f"sam local invoke {function.logical_id} ended with {done.returncode}:\n{done.stderr}")
        payload = json.loads(lines[-1])
        failed = isinstance(payload, dict) and "errorType" in payload
        return InvocationResult(payload, failed=failed)


@cache
def _docker() -> str:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:  # noqa: S603
        raise RuntimeError("sam local invoke requires Docker, but no Docker engine responds; start one")
    return docker


def _image_options() -> list[str]:
    inspection = subprocess.run([_docker(), "image", "inspect", STAND_IN_IMAGE], capture_output=True, check=False)  # noqa: S603
    return ["--skip-pull-image", "--invoke-image", STAND_IN_IMAGE] if inspection.returncode == 0 else []


def _command_environment(endpoint: str) -> Mapping[str, str]:
    # A variable in the environment of sam local overrides the variable with the same name in the template.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)}
    return {
        **inherited,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        # sam local requests the account id.
        "AWS_ENDPOINT_URL_STS": endpoint,
        "SAM_CLI_TELEMETRY": "0",
    }
