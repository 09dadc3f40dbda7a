"""The workflow is wired to its functions, and the schedule to the workflow's first."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from meibo import errors
from meibo_local.template import ROOT
from tests.template.conftest import Template

# Names that Step Functions and Lambda raise themselves:
# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
SERVICE_ERRORS = re.compile(r"(States|Lambda|Sandbox|Runtime)\.[A-Za-z]+")


def _states(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in definition["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from _states(state["ItemProcessor"])


def _tasks(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: state for name, state in _states(definition) if state["Type"] == "Task"}


def test_definition_names_exactly_what_the_template_substitutes(
    source: dict[str, Any], workflow: dict[str, Any]
) -> None:
    given = set(source["Resources"]["ExportWorkflow"]["Properties"]["DefinitionSubstitutions"])

    named = set(re.findall(r"\$\{(\w+)\}", json.dumps(workflow)))

    assert named == given


def test_workflow_invokes_only_functions_of_the_template(source: dict[str, Any], workflow: dict[str, Any]) -> None:
    substitutions = source["Resources"]["ExportWorkflow"]["Properties"]["DefinitionSubstitutions"]

    for name, task in _tasks(workflow).items():
        placeholder = task["Parameters"]["FunctionName"].strip("${}")
        assert substitutions[placeholder] == {"Fn::GetAtt": [placeholder.removesuffix("Arn"), "Arn"]}, name


def test_no_partition_is_written_out_in_the_workflow(source: dict[str, Any], workflow: dict[str, Any]) -> None:
    substitutions = source["Resources"]["ExportWorkflow"]["Properties"]["DefinitionSubstitutions"]
    arns = [state["Resource"] for state in _tasks(workflow).values()]
    arns.append(workflow["States"]["Exports"]["ItemReader"]["Resource"])

    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html: aws, aws-cn, aws-us-gov
    assert {arn.partition(":states:::")[0] for arn in arns} == {"arn:${Partition}"}
    assert "arn:aws" not in json.dumps(workflow)
    assert substitutions["Partition"] == {"Ref": "AWS::Partition"}


def test_throttling_is_retried_for_longer_than_any_function_runs(template: Template, workflow: dict[str, Any]) -> None:
    longest = max(function["Timeout"] for function in template.of_type("AWS::Lambda::Function").values())

    for name, task in _tasks(workflow).items():
        # given: throttling has a budget of its own, which no other error uses up
        (retrier,) = (found for found in task["Retry"] if "Lambda.TooManyRequestsException" in found["ErrorEquals"])
        assert retrier["ErrorEquals"] == ["Lambda.TooManyRequestsException"], name

        # when
        waits = [
            min(retrier["IntervalSeconds"] * retrier["BackoffRate"] ** attempt, retrier["MaxDelaySeconds"])
            for attempt in range(retrier["MaxAttempts"])
        ]

        # then: full jitter halves the waits on average, and every function ahead may run for its whole time, twice
        assert max(waits) == 60, name
        assert sum(waits) / 2 > 2 * longest, name


def test_every_step_waits_longer_than_its_function_may_run(template: Template, workflow: dict[str, Any]) -> None:
    for name, task in _tasks(workflow).items():
        function = task["Parameters"]["FunctionName"].strip("${}").removesuffix("Arn")
        if name == "RecordFailure":
            continue  # writes one small object; the time of a whole run's end would only hide that it hangs
        assert task["TimeoutSeconds"] > template.properties(function)["Timeout"], name


def test_every_error_name_is_ours_or_the_services(workflow: dict[str, Any]) -> None:
    ours = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}

    unknown = {
        name
        for _, state in _states(workflow)
        for handler in (*state.get("Retry", ()), *state.get("Catch", ()))
        for name in handler["ErrorEquals"]
        if name not in ours and not SERVICE_ERRORS.fullmatch(name)
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
# Recorded at once with their message. Base classes are never raised.
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


def test_each_error_is_retried_or_caught_or_fatal_on_purpose(workflow: dict[str, Any]) -> None:
    ours = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert ours == RETRIED_OR_CAUGHT | FATAL

    named = {
        name
        for _, state in _states(workflow)
        for handler in (*state.get("Retry", ()), *state.get("Catch", ()))
        for name in handler["ErrorEquals"]
        if not SERVICE_ERRORS.fullmatch(name)
    }
    assert named == RETRIED_OR_CAUGHT


def test_errors_are_documented_with_what_the_workflow_does(workflow: dict[str, Any]) -> None:
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
    (retrier,) = (found for found in task["Retry"] if error in found["ErrorEquals"])
    # A budget of its own, which no other error uses up.
    assert retrier["ErrorEquals"] == [error]
    assert isinstance(retrier, dict)
    return retrier


def test_every_step_outlasts_an_hour_in_which_aws_is_busy(workflow: dict[str, Any]) -> None:
    for name, task in _tasks(workflow).items():
        retrier = _retrier(task, "AwsBusyError")

        waits = [
            min(retrier["IntervalSeconds"] * retrier["BackoffRate"] ** attempt, retrier["MaxDelaySeconds"])
            for attempt in range(retrier["MaxAttempts"])
        ]

        # Full jitter halves the waits on average.
        assert retrier["JitterStrategy"] == "FULL", name
        assert waits[1] > waits[0], name
        assert sum(waits) / 2 > 3600, name


def test_every_step_retries_an_unexpected_error_twice(workflow: dict[str, Any]) -> None:
    for name, task in _tasks(workflow).items():
        retrier = _retrier(task, "UnexpectedError")

        assert (retrier["MaxAttempts"], retrier["BackoffRate"], retrier["JitterStrategy"]) == (2, 2, "FULL"), name


def test_whatever_a_step_of_an_export_raises_is_recorded(workflow: dict[str, Any]) -> None:
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


def test_functions_start_the_workflow_under_the_name_it_has(template: Template) -> None:
    (machine,) = template.of_type("AWS::StepFunctions::StateMachine").values()
    arn = template.properties("CreateExports")["Environment"]["Variables"]["MEIBO_STATE_MACHINE_ARN"]

    assert machine["StateMachineType"] == "STANDARD"
    assert arn == f"arn:aws:states:eu-central-1:123456789012:stateMachine:{machine['StateMachineName']}"


def test_workflow_logs_errors_without_data(template: Template) -> None:
    (machine,) = template.of_type("AWS::StepFunctions::StateMachine").values()

    logging = machine["LoggingConfiguration"]

    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ERROR", False)
    assert logging["Destinations"] == [{"CloudWatchLogsLogGroup": {"LogGroupArn": "ExportWorkflowLogs.Arn"}}]


def test_schedule_follows_its_parameters(source: dict[str, Any], template: Template) -> None:
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


def test_tick_is_tried_again_and_kept_when_it_cannot_be_delivered(template: Template) -> None:
    target = template.properties("Schedule")["Target"]

    assert target["RetryPolicy"]["MaximumRetryAttempts"] > 0
    assert target["DeadLetterConfig"] == {"Arn": "ScheduleDeadLetters.Arn"}


@pytest.mark.parametrize("output", ["ArchiveBucketName", "ExportWorkflowArn", "CreateExportsName"])
def test_stack_tells_what_a_first_run_needs(source: dict[str, Any], output: str) -> None:
    assert source["Outputs"][output]["Description"]


def test_definition_is_indented_json_that_diffs_well() -> None:
    text = (ROOT / "statemachines/export.asl.json").read_text()

    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
