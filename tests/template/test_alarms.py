"""Loud on failure, and on silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meibo.changes.apply import MAX_WAIT_SECONDS
from tests.template.conftest import Template

TOPIC = "arn:aws:sns:eu-central-1:123456789012:pager"
WEEK = 7 * 24 * 3600


@pytest.mark.parametrize(
    ("alarm", "missing"),
    [
        ("RunFailedAlarm", "notBreaching"),
        ("SilenceAlarm", "breaching"),
        ("SuspectExportsAlarm", "notBreaching"),
        ("DamageAlarm", "notBreaching"),
        ("UncheckedExportsAlarm", "notBreaching"),
        ("ScheduleDeadLettersAlarm", "notBreaching"),
        ("ChangesDeadLettersAlarm", "notBreaching"),
        ("ChangesAgeAlarm", "notBreaching"),
        ("ReturnedChangesAgeAlarm", "notBreaching"),
        ("FailedChangeGroupsAlarm", "notBreaching"),
        ("ChangeMembersErrorsAlarm", "notBreaching"),
        ("RejectedMembersAlarm", "notBreaching"),
    ],
)
def test_alarm_says_what_missing_data_means(template: Template, alarm: str, missing: str) -> None:
    assert template.properties(alarm)["TreatMissingData"] == missing


def test_these_are_all_the_alarms(template: Template) -> None:
    assert set(template.of_type("AWS::CloudWatch::Alarm")) == {
        "RunFailedAlarm",
        "SilenceAlarm",
        "SuspectExportsAlarm",
        "DamageAlarm",
        "UncheckedExportsAlarm",
        "ScheduleDeadLettersAlarm",
        "ChangesDeadLettersAlarm",
        "ChangesAgeAlarm",
        "ReturnedChangesAgeAlarm",
        "FailedChangeGroupsAlarm",
        "ChangeMembersErrorsAlarm",
        "RejectedMembersAlarm",
    }


def test_run_alarm_watches_every_way_to_end_badly(template: Template) -> None:
    metrics = {metric["Id"]: metric for metric in template.properties("RunFailedAlarm")["Metrics"]}

    watched = {found["MetricStat"]["Metric"]["MetricName"] for found in metrics.values() if "MetricStat" in found}

    assert watched == {"ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"}
    for name in metrics.keys() - {"unsuccessful"}:
        assert name in metrics["unsuccessful"]["Expression"]
        assert metrics[name]["MetricStat"]["Metric"]["Dimensions"] == [
            {"Name": "StateMachineArn", "Value": "ExportWorkflow"}
        ]


def test_run_alarm_evaluates_metrics_that_come_late(template: Template) -> None:
    # given: the alarm's expression and how long a period counts
    properties = template.properties("RunFailedAlarm")
    (expression,) = (metric["Expression"] for metric in properties["Metrics"] if "Expression" in metric)
    (period,) = {metric["MetricStat"]["Period"] for metric in properties["Metrics"] if "MetricStat" in metric}

    # then: a missing data point stays missing until it comes, and one of several periods suffices
    assert "FILL" not in expression
    assert expression == "SUM([failed, timed_out, aborted])"
    assert properties["DatapointsToAlarm"] == 1
    assert (properties["EvaluationPeriods"] - 1) * period >= 15 * 60


@pytest.mark.parametrize("alarm", ["ReturnedChangesAgeAlarm", "FailedChangeGroupsAlarm", "ChangeMembersErrorsAlarm"])
def test_alarm_stays_on_until_a_stuck_change_is_received_again(template: Template, alarm: str) -> None:
    # given: a change that is returned is hidden for 15 minutes at most; after a killed invocation, for as long as the
    # queue says. Then an invocation may run for its whole time before it emits its metrics.
    hidden = MAX_WAIT_SECONDS
    if alarm == "ChangeMembersErrorsAlarm":
        hidden = template.properties("ChangesQueue")["VisibilityTimeout"]
    properties = template.properties(alarm)

    # then
    assert properties["DatapointsToAlarm"] == 1
    evaluated = (properties["EvaluationPeriods"] - 1) * properties["Period"]
    assert evaluated >= hidden + template.properties("ChangeMembers")["Timeout"]


@pytest.mark.parametrize(("state", "enabled"), [("ENABLED", True), ("DISABLED", False)])
def test_silence_alarm_acts_only_while_there_is_a_schedule(
    translate: Callable[..., Template], state: str, *, enabled: bool
) -> None:
    assert translate(ScheduleState=state).properties("SilenceAlarm")["ActionsEnabled"] is enabled


def test_silence_alarm_is_another_alarm_once_the_schedule_is_enabled(translate: Callable[..., Template]) -> None:
    # An alarm that was in ALARM while its actions were disabled does not act when they are enabled: its state does not
    # change. CloudFormation replaces an alarm whose name changes, and the new one is evaluated from the beginning.
    names = [
        translate(ScheduleState=state).properties("SilenceAlarm")["AlarmName"] for state in ("DISABLED", "ENABLED")
    ]

    assert names == ["meibo-silence-while-disabled", "meibo-silence"]


def test_no_other_alarm_is_ever_disabled(template: Template) -> None:
    disabled = {name for name, found in template.of_type("AWS::CloudWatch::Alarm").items() if "ActionsEnabled" in found}

    assert disabled == {"SilenceAlarm"}


@pytest.mark.parametrize("alarm", ["SilenceAlarm", "SuspectExportsAlarm"])
def test_alarm_looks_where_the_functions_put_their_metrics(template: Template, alarm: str) -> None:
    # given
    variables = template.properties("FinishRun")["Environment"]["Variables"]

    # then
    properties = template.properties(alarm)
    assert properties["Namespace"] == variables["POWERTOOLS_METRICS_NAMESPACE"]
    assert properties["Dimensions"] == [{"Name": "service", "Value": variables["POWERTOOLS_SERVICE_NAME"]}]


@pytest.mark.parametrize(
    ("alarm", "metric"), [("DamageAlarm", "DamagedObjects"), ("UncheckedExportsAlarm", "UncheckedExports")]
)
def test_verification_alarm_watches_the_metric_of_the_function(template: Template, alarm: str, metric: str) -> None:
    variables = template.properties("VerifyArchive")["Environment"]["Variables"]

    properties = template.properties(alarm)

    assert properties["MetricName"] == metric
    assert properties["Namespace"] == variables["POWERTOOLS_METRICS_NAMESPACE"]
    assert properties["Dimensions"] == [{"Name": "service", "Value": variables["POWERTOOLS_SERVICE_NAME"]}]


@pytest.mark.parametrize("hours", [2, 26, 168])
def test_silence_alarm_goes_off_after_the_hours_asked_for(translate: Callable[..., Template], hours: int) -> None:
    properties = translate(MaxSilenceHours=hours).properties("SilenceAlarm")

    assert properties["Period"] * properties["EvaluationPeriods"] == hours * 3600
    assert properties["DatapointsToAlarm"] == hours
    assert (properties["ComparisonOperator"], properties["Threshold"]) == ("LessThanThreshold", 1)


def test_silence_alarm_stays_within_what_cloudwatch_looks_back(source: dict[str, Any]) -> None:
    # Seven days where the period is an hour or more:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
    assert source["Parameters"]["MaxSilenceHours"]["MaxValue"] * 3600 <= WEEK


def test_every_queue_has_an_alarm(template: Template) -> None:
    watched = {
        dimension["Value"]
        for alarm in template.of_type("AWS::CloudWatch::Alarm").values()
        for dimension in alarm.get("Dimensions", ())
        if dimension["Name"] == "QueueName"
    }

    assert watched == {f"{queue}.QueueName" for queue in template.of_type("AWS::SQS::Queue")}


def test_every_queue_is_encrypted_and_reached_over_tls_only(template: Template) -> None:
    queues = template.of_type("AWS::SQS::Queue")
    guarded = {
        queue
        for policy in template.of_type("AWS::SQS::QueuePolicy").values()
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Deny" and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
        for queue in policy["Queues"]
    }

    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues.values())
    assert guarded == set(queues)


@pytest.mark.parametrize(
    ("parameters", "actions"),
    [
        ({}, None),
        ({"AlarmEmail": "ops@example.com"}, ["AlarmTopic"]),
        ({"AlarmTopicArn": TOPIC}, [TOPIC]),
    ],
)
def test_alarms_go_where_the_parameters_say(
    translate: Callable[..., Template], parameters: dict[str, str], actions: list[str] | None
) -> None:
    template = translate(**parameters)

    for alarm in template.of_type("AWS::CloudWatch::Alarm").values():
        assert alarm.get("AlarmActions") == actions


def test_topic_is_made_only_for_an_email_address(template: Template, translate: Callable[..., Template]) -> None:
    mailing = translate(AlarmEmail="ops@example.com")

    assert template.of_type("AWS::SNS::Topic") == {}
    assert mailing.properties("AlarmTopic")["Subscription"] == [{"Protocol": "email", "Endpoint": "ops@example.com"}]
