"""The alarms: metrics, thresholds, missing data and actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meibo.changes.apply import MAX_BACKOFF_SECONDS
from tests.support.template import Template

TOPIC = "arn:aws:sns:eu-central-1:123456789012:pager"
WEEK = 7 * 24 * 3600


def test_missing_data_breaches_only_the_silence_alarm(template: Template) -> None:
    alarms = template.of_type("AWS::CloudWatch::Alarm")

    assert {name: alarm["TreatMissingData"] for name, alarm in alarms.items()} == {
        "RunFailedAlarm": "notBreaching",
        "SilenceAlarm": "breaching",
        "SuspectExportsAlarm": "notBreaching",
        "DamageAlarm": "notBreaching",
        "UncheckedExportsAlarm": "notBreaching",
        "ExpiringCertificatesAlarm": "notBreaching",
        "ScheduleDeadLettersAlarm": "notBreaching",
        "ChangesDeadLettersAlarm": "notBreaching",
        "ChangesAgeAlarm": "notBreaching",
        "ReturnedChangesAgeAlarm": "notBreaching",
        "FailedChangeGroupsAlarm": "notBreaching",
        "ChangeMembersErrorsAlarm": "notBreaching",
        "RejectedMembersAlarm": "notBreaching",
    }


def test_run_alarm_watches_failed_timed_out_and_aborted_executions(template: Template) -> None:
    metrics = {metric["Id"]: metric for metric in template.properties("RunFailedAlarm")["Metrics"]}

    watched = {metric["MetricStat"]["Metric"]["MetricName"] for metric in metrics.values() if "MetricStat" in metric}

    assert watched == {"ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"}
    for name in metrics.keys() - {"unsuccessful"}:
        assert name in metrics["unsuccessful"]["Expression"]
        assert metrics[name]["MetricStat"]["Metric"]["Dimensions"] == [
            {"Name": "StateMachineArn", "Value": "ExportWorkflow"}
        ]


def test_run_alarm_evaluates_late_metrics(template: Template) -> None:
    # given: the expression and the period of the alarm
    properties = template.properties("RunFailedAlarm")
    (expression,) = (metric["Expression"] for metric in properties["Metrics"] if "Expression" in metric)
    (period,) = {metric["MetricStat"]["Period"] for metric in properties["Metrics"] if "MetricStat" in metric}

    # then: a late data point is not replaced by 0, and a single breaching period is enough
    assert "FILL" not in expression
    assert expression == "SUM([failed, timed_out, aborted])"
    assert properties["DatapointsToAlarm"] == 1
    assert (properties["EvaluationPeriods"] - 1) * period >= 15 * 60


@pytest.mark.parametrize("alarm", ["ReturnedChangesAgeAlarm", "FailedChangeGroupsAlarm", "ChangeMembersErrorsAlarm"])
def test_alarm_lasts_until_a_stuck_change_is_received_again(template: Template, alarm: str) -> None:
    # given: a returned change is hidden for at most 15 minutes. After a killed invocation, a change is hidden for the
    # queue's visibility timeout. The next invocation may use its full timeout before it emits metrics.
    hidden = MAX_BACKOFF_SECONDS
    if alarm == "ChangeMembersErrorsAlarm":
        hidden = template.properties("ChangesQueue")["VisibilityTimeout"]
    properties = template.properties(alarm)

    assert properties["DatapointsToAlarm"] == 1
    evaluated = (properties["EvaluationPeriods"] - 1) * properties["Period"]
    assert evaluated >= hidden + template.properties("ChangeMembers")["Timeout"]


@pytest.mark.parametrize(("state", "enabled"), [("ENABLED", True), ("DISABLED", False)])
def test_silence_alarm_acts_only_while_the_schedule_is_enabled(
    translate: Callable[..., Template], state: str, *, enabled: bool
) -> None:
    assert translate(ScheduleState=state).properties("SilenceAlarm")["ActionsEnabled"] is enabled


def test_silence_alarm_is_replaced_when_the_schedule_is_enabled(translate: Callable[..., Template]) -> None:
    # An alarm that is in ALARM state when its actions are enabled runs no action, because its state does not change.
    # CloudFormation replaces an alarm if its name changes, and evaluates the new alarm from the beginning.
    names = [
        translate(ScheduleState=state).properties("SilenceAlarm")["AlarmName"] for state in ("DISABLED", "ENABLED")
    ]

    assert names == ["meibo-silence-while-disabled", "meibo-silence"]


def test_only_the_silence_alarm_can_be_disabled(template: Template) -> None:
    alarms = template.of_type("AWS::CloudWatch::Alarm")

    assert {name for name, alarm in alarms.items() if "ActionsEnabled" in alarm} == {"SilenceAlarm"}


@pytest.mark.parametrize(
    ("alarm", "function", "metric", "statistic"),
    [
        ("SilenceAlarm", "FinishRun", "CompleteRuns", "Sum"),
        ("SuspectExportsAlarm", "FinishRun", "SuspectExports", "Sum"),
        ("DamageAlarm", "VerifyArchive", "DamagedObjects", "Sum"),
        ("UncheckedExportsAlarm", "VerifyArchive", "UncheckedExports", "Sum"),
        ("RejectedMembersAlarm", "ChangeMembers", "RejectedMembers", "Sum"),
        ("FailedChangeGroupsAlarm", "ChangeMembers", "FailedChangeGroups", "Sum"),
        ("ReturnedChangesAgeAlarm", "ChangeMembers", "OldestReturnedChangeAge", "Maximum"),
    ],
)
def test_alarm_watches_the_metric_of_its_function(
    template: Template, alarm: str, function: str, metric: str, statistic: str
) -> None:
    variables = template.properties(function)["Environment"]["Variables"]
    properties = template.properties(alarm)

    assert (properties["MetricName"], properties["Statistic"]) == (metric, statistic)
    assert properties["Namespace"] == variables["POWERTOOLS_METRICS_NAMESPACE"] == "Meibo"
    assert properties["Dimensions"] == [{"Name": "service", "Value": variables["POWERTOOLS_SERVICE_NAME"]}]


@pytest.mark.parametrize("hours", [2, 26, 168])
def test_silence_alarm_covers_the_hours_of_its_parameter(translate: Callable[..., Template], hours: int) -> None:
    properties = translate(MaxSilenceHours=hours).properties("SilenceAlarm")

    assert properties["Period"] * properties["EvaluationPeriods"] == hours * 3600
    assert properties["DatapointsToAlarm"] == hours
    assert (properties["ComparisonOperator"], properties["Threshold"]) == ("LessThanThreshold", 1)


def test_silence_alarm_stays_within_the_evaluation_range_of_cloudwatch(source: dict[str, Any]) -> None:
    # Seven days if the period is at least an hour:
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


def test_every_queue_is_encrypted_and_requires_tls(template: Template) -> None:
    queues = template.of_type("AWS::SQS::Queue")
    protected = {
        queue
        for policy in template.of_type("AWS::SQS::QueuePolicy").values()
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Deny" and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
        for queue in policy["Queues"]
    }

    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues.values())
    assert protected == set(queues)


@pytest.mark.parametrize(
    ("parameters", "actions"),
    [
        ({}, None),
        ({"AlarmEmail": "ops@example.com"}, ["AlarmTopic"]),
        ({"AlarmTopicArn": TOPIC}, [TOPIC]),
    ],
)
def test_alarm_actions_follow_the_parameters(
    translate: Callable[..., Template], parameters: dict[str, str], actions: list[str] | None
) -> None:
    template = translate(**parameters)

    for alarm in template.of_type("AWS::CloudWatch::Alarm").values():
        assert alarm.get("AlarmActions") == actions


def test_topic_is_created_only_for_an_email_address(template: Template, translate: Callable[..., Template]) -> None:
    mailing = translate(AlarmEmail="ops@example.com")

    assert template.of_type("AWS::SNS::Topic") == {}
    assert mailing.properties("AlarmTopic")["Subscription"] == [{"Protocol": "email", "Endpoint": "ops@example.com"}]


def test_certificate_alarm_watches_the_warnings_in_the_log(template: Template) -> None:
    metric_filter = template.properties("ExpiringCertificates")
    (transformation,) = metric_filter["MetricTransformations"]
    alarm = template.properties("ExpiringCertificatesAlarm")
    service = template.properties("ArchiveExport")["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]

    assert metric_filter["LogGroupName"] == "ArchiveExportLogs"
    assert (alarm["Namespace"], alarm["MetricName"]) == ("Meibo", transformation["MetricName"])
    assert transformation["Dimensions"] == [{"Key": "service", "Value": "$.service"}]
    assert alarm["Dimensions"] == [{"Name": "service", "Value": service}]
