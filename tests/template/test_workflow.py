"""The workflow and its schedule: functions, retries, errors, logs and ticks."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from meibo import errors
from meibo_local.template import ROOT
from tests.support.template import Template

# Errors of Step Functions and Lambda:
# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
SERVICE_ERRORS = re.compile(r"(States|Lambda|Sandbox|Runtime)\.[A-Za-z]+")


def _states(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in definition["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from _states(state["ItemProcessor"])


def _tasks(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: state for name, state in _states(definition) if state["Type"] == "Task"}


def test_definition_uses_every_substitution_of_the_template(source: dict[str, Any], workflow: dict[str, Any]) -> None:
    defined = set(source["Resources"]["ExportWorkflow"]["Properties"]["DefinitionSubstitutions"])

    used = set(re.findall(r"\$\{(\w+)\}", json.dumps(workflow)))

    assert used == defined


def test_workflow_invokes_only_functions_of_the_template(source: dict[str, Any], workflow: dict[str, Any]) -> None:
    substitutions = source["Resources"]["ExportWorkflow"]["Properties"]["DefinitionSubstitutions"]

    for name, task in _tasks(workflow).items():
        placeholder = task["Parameters"]["FunctionName"].strip("${}")
        assert substitutions[placeholder] == {"Fn::GetAtt": [placeholder.removesuffix("Arn"), "Arn"]}, name


def test_workflow_does_not_fix_the_partition(source: dict[str, Any], workflow: dict[str, Any]) -> None:
    substitutions = source["Resources"]["ExportWorkflow"]["Properties"]["DefinitionSubstitutions"]
    arns = [state["Resource"] for state in _tasks(workflow).values()]
    arns.append(workflow["States"]["Exports"]["ItemReader"]["Resource"])

    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html: aws, aws-cn, aws-us-gov
    assert {arn.partition(":states:::")[0] for arn in arns} == {"arn:${Partition}"}
    assert "arn:aws" not in json.dumps(workflow)
    assert substitutions["Partition"] == {"Ref": "AWS::Partition"}


def test_throttling_is_retried_longer_than_any_function_timeout(template: Template, workflow: dict[str, Any]) -> None:
    longest = max(function["Timeout"] for function in template.of_type("AWS::Lambda::Function").values())

    for name, task in _tasks(workflow).items():
        waits = _waits(_retrier(task, "Lambda.TooManyRequestsException"))

        # Full jitter halves the waits on average. Earlier invocations may reach their timeout twice.
        assert max(waits) == 60, name
        assert sum(waits) / 2 > 2 * longest, name


def test_task_timeout_exceeds_the_function_timeout(template: Template, workflow: dict[str, Any]) -> None:
    for name, task in _tasks(workflow).items():
        function = task["Parameters"]["FunctionName"].strip("${}").removesuffix("Arn")
        if name == "RecordFailure":
            # RecordFailure only writes a small object, so its timeout is shorter than that of its function, FinishRun.
            continue
        assert task["TimeoutSeconds"] > template.properties(function)["Timeout"], name


def test_every_error_name_belongs_to_meibo_or_to_aws(workflow: dict[str, Any]) -> None:
    own_errors = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}

    unknown = {
        name
        for _, state in _states(workflow)
        for handler in (*state.get("Retry", ()), *state.get("Catch", ()))
        for name in handler["ErrorEquals"]
        if name not in own_errors and not SERVICE_ERRORS.fullmatch(name)
    }

    assert unknown == set()


# Retried by Retry, or caught by Catch, which creates a new job.
RETRIED_OR_CAUGHT = {
    "AwsBusyError",
    "ProviderBusyError",
    "CopyBrokenError",
    "SourceChangedError",
    "OutOfTimeError",
    "JobGoneError",
    "UnexpectedError",
}
# Recorded at once with the message. Base classes are never raised.
FATAL = {
    "MeiboError",
    "ConfigurationError",
    "EventError",
    "SecretError",
    "CredentialsRefusedError",
    "ScopeMissingError",
    "RequestRefusedError",
    "LocationRefusedError",
    "BadFileError",
    "CorruptFileError",
    "WrongFormatError",
    "FileTooLargeError",
    "ArchiveConflictError",
    "JobsExhaustedError",
}


def test_every_error_is_retried_or_caught_or_fatal(workflow: dict[str, Any]) -> None:
    own_errors = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert own_errors == RETRIED_OR_CAUGHT | FATAL

    handled = {
        name
        for _, state in _states(workflow)
        for handler in (*state.get("Retry", ()), *state.get("Catch", ()))
        for name in handler["ErrorEquals"]
        if not SERVICE_ERRORS.fullmatch(name)
    }
    assert handled == RETRIED_OR_CAUGHT


def test_documented_reaction_to_each_error_matches_the_workflow(workflow: dict[str, Any]) -> None:
    tree = re.findall(r"^ [ │]*(?:[├└]── )?(\w+Error) +(\S+)", str(errors.__doc__), re.MULTILINE)
    caught = {
        name
        for _, state in _states(workflow)
        for catcher in state.get("Catch", ())
        for name in catcher["ErrorEquals"]
        if not SERVICE_ERRORS.fullmatch(name)
    }

    reactions = {name: reaction.rstrip(":") for name, reaction in tree}

    assert reactions.keys() == RETRIED_OR_CAUGHT | FATAL
    assert {name for name, reaction in reactions.items() if reaction == "caught"} == caught
    assert {name for name, reaction in reactions.items() if reaction == "retried"} == RETRIED_OR_CAUGHT - caught
    assert {name for name, reaction in reactions.items() if reaction == "base"} == {"MeiboError", "BadFileError"}


def _retrier(task: dict[str, Any], error: str) -> dict[str, Any]:
    (retrier,) = (retrier for retrier in task["Retry"] if error in retrier["ErrorEquals"])
    # A retrier counts the attempts of all its errors together, so each error has a separate retrier.
    assert retrier["ErrorEquals"] == [error]
    assert isinstance(retrier, dict)
    return retrier


def _waits(retrier: dict[str, Any]) -> list[float]:
    return [
        min(retrier["IntervalSeconds"] * retrier["BackoffRate"] ** attempt, retrier["MaxDelaySeconds"])
        for attempt in range(retrier["MaxAttempts"])
    ]


def test_every_task_retries_a_busy_aws_service_for_more_than_an_hour(workflow: dict[str, Any]) -> None:
    for name, task in _tasks(workflow).items():
        retrier = _retrier(task, "AwsBusyError")

        waits = _waits(retrier)

        # Full jitter halves the waits on average.
        assert retrier["JitterStrategy"] == "FULL", name
        assert waits[1] > waits[0], name
        assert sum(waits) / 2 > 3600, name


def test_every_task_retries_an_unexpected_error_twice(workflow: dict[str, Any]) -> None:
    for name, task in _tasks(workflow).items():
        retrier = _retrier(task, "UnexpectedError")

        assert (retrier["MaxAttempts"], retrier["BackoffRate"], retrier["JitterStrategy"]) == (2, 2, "FULL"), name


def test_every_failure_of_an_export_is_recorded(workflow: dict[str, Any]) -> None:
    for name, task in _tasks(workflow["States"]["Exports"]["ItemProcessor"]).items():
        last = task["Catch"][-1]
        assert last["ErrorEquals"] == ["States.ALL"], name
        assert last["Next"] == ("Archived" if name == "RecordFailure" else "RecordFailure"), name


def test_every_next_state_exists(workflow: dict[str, Any]) -> None:
    def check(definition: dict[str, Any]) -> None:
        names = set(definition["States"])
        assert definition["StartAt"] in names
        for state in definition["States"].values():
            targets = [state.get("Next"), state.get("Default")]
            targets += [branch.get("Next") for branch in (*state.get("Choices", ()), *state.get("Catch", ()))]
            assert {target for target in targets if target} <= names
            if "ItemProcessor" in state:
                check(state["ItemProcessor"])

    check(workflow)


def test_functions_use_the_name_of_the_workflow(template: Template) -> None:
    (machine,) = template.of_type("AWS::StepFunctions::StateMachine").values()
    arn = template.properties("CreateExports")["Environment"]["Variables"]["MEIBO_STATE_MACHINE_ARN"]

    assert machine["StateMachineType"] == "STANDARD"
    assert arn == f"arn:aws:states:eu-central-1:123456789012:stateMachine:{machine['StateMachineName']}"


def test_workflow_logs_errors_without_execution_data(template: Template) -> None:
    (machine,) = template.of_type("AWS::StepFunctions::StateMachine").values()

    logging = machine["LoggingConfiguration"]

    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ERROR", False)
    assert logging["Destinations"] == [{"CloudWatchLogsLogGroup": {"LogGroupArn": "ExportWorkflowLogs.Arn"}}]


def test_schedule_follows_the_parameters(source: dict[str, Any], template: Template) -> None:
    schedule = template.properties("Schedule")

    for parameter, name in (
        ("ScheduleExpression", "ScheduleExpression"),
        ("ScheduleTimezone", "ScheduleExpressionTimezone"),
        ("ScheduleState", "State"),
    ):
        assert schedule[name] == source["Parameters"][parameter]["Default"]
    assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}


def test_schedule_passes_the_scheduled_time_to_create_exports(template: Template) -> None:
    target = template.properties("Schedule")["Target"]

    assert target["Arn"] == "CreateExports.Arn"
    assert json.loads(target["Input"]) == {"scheduled_time": "<aws.scheduler.scheduled-time>"}


def test_undelivered_tick_is_retried_and_dead_lettered(template: Template) -> None:
    target = template.properties("Schedule")["Target"]

    assert target["RetryPolicy"]["MaximumRetryAttempts"] > 0
    assert target["DeadLetterConfig"] == {"Arn": "ScheduleDeadLetters.Arn"}


@pytest.mark.parametrize("output", ["ArchiveBucketName", "ExportWorkflowArn", "CreateExportsName"])
def test_outputs_for_the_first_run_exist(source: dict[str, Any], output: str) -> None:
    assert source["Outputs"][output]["Description"]


def test_definition_is_formatted_json() -> None:
    text = (ROOT / "statemachines/export.asl.json").read_text()

    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
