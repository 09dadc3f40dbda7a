"""Loud on failure, and on silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Template

TOPIC = "arn:aws:sns:eu-central-1:123456789012:pager"
WEEK = 7 * 24 * 3600


@pytest.mark.parametrize(
    ("alarm", "missing"),
    [
        ("RunFailedAlarm", "notBreaching"),
        ("SilenceAlarm", "breaching"),
        ("SuspectExportsAlarm", "notBreaching"),
        ("DamageAlarm", "notBreaching"),
        ("ScheduleDeadLettersAlarm", "notBreaching"),
        ("ChangesDeadLettersAlarm", "notBreaching"),
        ("ChangesAgeAlarm", "notBreaching"),
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
        "ScheduleDeadLettersAlarm",
        "ChangesDeadLettersAlarm",
        "ChangesAgeAlarm",
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


@pytest.mark.parametrize("alarm", ["SilenceAlarm", "SuspectExportsAlarm"])
def test_alarm_looks_where_the_functions_put_their_metrics(template: Template, alarm: str) -> None:
    # given
    variables = template.properties("FinishRun")["Environment"]["Variables"]

    # then
    properties = template.properties(alarm)
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
