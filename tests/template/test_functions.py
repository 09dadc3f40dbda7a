"""The functions: code, environment, timeouts, memory, logs, layers and failure destinations."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest

from meibo import settings
from meibo.exports import archive
from meibo_local.template import ROOT
from tests.support.template import Template

FUNCTIONS = ("CreateExports", "CheckExport", "ArchiveExport", "FinishRun", "ChangeMembers", "VerifyArchive")
SETTINGS: dict[str, tuple[type[settings.EnvironmentSettings], ...]] = {
    "CreateExports": (settings.CreateExportsSettings, settings.ObjectLock),
    "CheckExport": (),
    "ArchiveExport": (settings.BucketSettings, settings.ObjectLock),
    "FinishRun": (settings.FinishRunSettings, settings.ObjectLock),
    "ChangeMembers": (settings.ChangeMembersSettings, settings.ObjectLock),
    "VerifyArchive": (settings.VerifyArchiveSettings,),
}


def _environment(template: Template, function: str) -> dict[str, str]:
    variables = template.properties(function)["Environment"]["Variables"]
    return {name: str(value) for name, value in variables.items()}


def test_every_function_is_tested(template: Template) -> None:
    assert set(template.of_type("AWS::Lambda::Function")) == set(FUNCTIONS)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_code_exists_in_its_folder(source: dict[str, Any], function: str) -> None:
    folder = ROOT / source["Resources"][function]["Properties"]["CodeUri"]

    assert "def handler(" in (folder / "app.py").read_text()


def test_release_contains_every_folder_that_the_template_refers_to(source: dict[str, Any]) -> None:
    workflow = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    (archived,) = re.findall(r"tar --create (.+?)\n +\(", workflow, re.DOTALL)
    # The layers are in the folder of `sam build`.
    paths = [
        str(resource["Properties"][key])
        for resource in source["Resources"].values()
        for key in ("CodeUri", "DefinitionUri")
        if key in resource.get("Properties", {})
    ]

    assert {path.partition("/")[0] for path in paths} == {"functions", "statemachines"}
    assert {".aws-sam/build", "functions", "statemachines", "samconfig.toml"} <= set(archived.split())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_environment_matches_the_settings(template: Template, function: str) -> None:
    read = {field.metadata["name"] for kind in SETTINGS[function] for field in dataclasses.fields(kind)}

    defined = {name for name in _environment(template, function) if name.startswith("MEIBO_")}

    assert defined == read


@pytest.mark.parametrize("function", FUNCTIONS)
def test_settings_accept_the_defaults(template: Template, function: str) -> None:
    environment = _environment(template, function)

    for kind in SETTINGS[function]:
        kind.from_env(environment)


@pytest.mark.parametrize("bound", ["MinValue", "MaxValue"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_settings_accept_the_bounds_of_the_parameters(
    source: dict[str, Any], translate: Callable[..., Template], function: str, bound: str
) -> None:
    parameters = {name: declared[bound] for name, declared in source["Parameters"].items() if bound in declared}

    environment = _environment(translate(**parameters, ObjectLockMode="COMPLIANCE"), function)

    for kind in SETTINGS[function]:
        kind.from_env(environment)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_settings_have_the_defaults_and_bounds_of_the_parameters(source: dict[str, Any], function: str) -> None:
    variables = source["Resources"][function]["Properties"].get("Environment", {}).get("Variables", {})
    fields = [field.metadata for kind in SETTINGS[function] for field in dataclasses.fields(kind)]

    for field in fields:
        parameter = source["Parameters"].get(variables[field["name"]].get("Ref"))
        if parameter is None:
            assert field["default"] is None, f"{field['name']} has a default but no parameter"
            continue
        assert field["default"] in (None, str(parameter["Default"])), field["name"]
        if parameter["Type"] == "Number":
            assert isinstance(field["parse"], settings.Integer), field["name"]
            bounds = (field["parse"].minimum, field["parse"].maximum)
            assert bounds == (parameter["MinValue"], parameter["MaxValue"]), field["name"]
        if allowed := parameter.get("AllowedValues"):
            assert [field["parse"](value) for value in allowed] == allowed


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_has_a_log_group_with_retention(template: Template, function: str) -> None:
    properties = template.properties(function)

    group = template.properties(properties["LoggingConfig"]["LogGroup"])

    assert properties["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": f"{function}Logs"}
    assert group["RetentionInDays"] == 90


def test_every_log_group_has_a_retention(template: Template) -> None:
    groups = template.of_type("AWS::Logs::LogGroup")

    assert all("RetentionInDays" in group for group in groups.values())


@pytest.mark.parametrize(
    ("function", "seconds"),
    [
        ("CreateExports", 900),
        ("CheckExport", 60),
        ("ArchiveExport", 900),
        ("FinishRun", 300),
        ("ChangeMembers", 300),
        ("VerifyArchive", 900),
    ],
)
def test_function_has_the_expected_timeout(template: Template, function: str, seconds: int) -> None:
    assert template.properties(function)["Timeout"] == seconds


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_is_traced(template: Template, function: str) -> None:
    assert template.properties(function)["TracingConfig"] == {"Mode": "Active"}


def test_memory_holds_the_buffers_of_a_copy(template: Template) -> None:
    # In addition to the buffers, the interpreter, the libraries and the decoder need about 200 MB.
    buffers = archive.COPY_WORKERS * archive.COPY_PART_BYTES

    assert template.properties("ArchiveExport")["MemorySize"] * settings.MIB >= buffers + 200 * settings.MIB


def test_number_of_parallel_exports_is_bounded(template: Template, workflow: dict[str, Any]) -> None:
    # given: the workflow reads the limit from its input, which CreateExports writes from its environment
    assert workflow["States"]["Exports"]["MaxConcurrencyPath"] == "$.max_parallel_exports"

    # then: some of the 10 concurrent executions of a new account remain for changes and verifications
    assert _environment(template, "CreateExports")["MEIBO_MAX_PARALLEL_EXPORTS"] == "5"


@pytest.mark.parametrize(("architecture", "layer"), [("x86_64", "MeiboLayer"), ("arm64", "MeiboLayerArm64")])
def test_layer_has_the_architecture_of_the_functions(
    translate: Callable[..., Template], architecture: str, layer: str
) -> None:
    template = translate(Architecture=architecture)

    ((name, properties),) = template.of_type("AWS::Lambda::LayerVersion").items()
    assert name.startswith(layer)
    assert properties["CompatibleArchitectures"] == [architecture]
    for function in FUNCTIONS:
        assert template.properties(function)["Architectures"] == [architecture]
        assert template.properties(function)["Layers"] == [name]


def test_makefile_builds_every_layer(source: dict[str, Any]) -> None:
    makefile = (ROOT / "layers/meibo/Makefile").read_text()
    layers = [name for name, item in source["Resources"].items() if item["Type"] == "AWS::Serverless::LayerVersion"]

    for layer in layers:
        assert f"build-{layer}: processor := " in makefile


@pytest.mark.parametrize("function", ["CreateExports", "VerifyArchive"])
def test_failed_scheduled_invocation_goes_to_the_dead_letter_queue(template: Template, function: str) -> None:
    (invoke,) = (
        config
        for config in template.of_type("AWS::Lambda::EventInvokeConfig").values()
        if config["FunctionName"] == function
    )

    assert invoke["MaximumRetryAttempts"] == 2
    assert invoke["DestinationConfig"] == {"OnFailure": {"Destination": "ScheduleDeadLetters.Arn"}}
