"""The queue of membership changes: order, retention, senders and alarms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meibo.changes.apply import MAX_BACKOFF_SECONDS, MAX_INVOCATIONS, MIN_BACKOFF_SECONDS
from meibo.changes.queue import MAX_MESSAGE_BYTES, MAX_REASON_BYTES
from tests.support.template import Template

SENDERS = "arn:aws:iam::123456789012:role/hr-sync,arn:aws:iam::210987654321:user/ops"


def _mapping(template: Template) -> dict[str, Any]:
    (mapping,) = template.of_type("AWS::Lambda::EventSourceMapping").values()
    return mapping


def _policy(template: Template, name: str) -> dict[str, dict[str, Any]]:
    return {statement["Sid"]: statement for statement in template.properties(name)["PolicyDocument"]["Statement"]}


def test_queues_are_fifo_and_named(template: Template) -> None:
    names = {name: template.properties(name)["QueueName"] for name in ("ChangesQueue", "ChangesDeadLetters")}

    assert names == {"ChangesQueue": "meibo-changes.fifo", "ChangesDeadLetters": "meibo-changes-dead-letters.fifo"}
    assert all(template.properties(name)["FifoQueue"] is True for name in names)


def test_throughput_is_limited_per_organization(template: Template) -> None:
    properties = template.properties("ChangesQueue")

    assert (properties["DeduplicationScope"], properties["FifoThroughputLimit"]) == (
        "messageGroup",
        "perMessageGroupId",
    )


def test_batch_of_ten_reports_failures_per_message(template: Template) -> None:
    mapping = _mapping(template)

    assert mapping["EventSourceArn"] == "ChangesQueue.Arn"
    assert mapping["BatchSize"] == 10
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_concurrency_is_limited_by_the_event_source_mapping(template: Template) -> None:
    assert _mapping(template)["ScalingConfig"] == {"MaximumConcurrency": MAX_INVOCATIONS}
    assert "ReservedConcurrentExecutions" not in template.properties("ChangeMembers")


@pytest.mark.parametrize(("senders", "enabled"), [("", False), (SENDERS, True)])
def test_queue_is_polled_only_if_senders_are_configured(
    translate: Callable[..., Template], senders: str, *, enabled: bool
) -> None:
    assert _mapping(translate(ChangeSenders=senders))["Enabled"] is enabled


def test_visibility_timeout_is_six_times_the_functions_timeout(template: Template) -> None:
    timeout = template.properties("ChangeMembers")["Timeout"]

    assert template.properties("ChangesQueue")["VisibilityTimeout"] == 6 * timeout


def test_change_is_retried_for_ten_days_and_dead_lettered_before_it_expires(
    template: Template,
) -> None:
    # given: the time for which a change is hidden after each failed receive
    properties = template.properties("ChangesQueue")
    receives = properties["RedrivePolicy"]["maxReceiveCount"]
    waits = [min(MAX_BACKOFF_SECONDS, MIN_BACKOFF_SECONDS * 2**number) for number in range(receives)]

    shortest = sum(waits)
    longest = shortest + receives * template.properties("ChangeMembers")["Timeout"]

    assert shortest > 10 * 86400
    assert longest < properties["MessageRetentionPeriod"]


def test_dead_letter_queue_has_the_maximum_retention(template: Template) -> None:
    properties = template.properties("ChangesDeadLetters")

    assert template.properties("ChangesQueue")["RedrivePolicy"]["deadLetterTargetArn"] == "ChangesDeadLetters.Arn"
    assert properties["MessageRetentionPeriod"] == 14 * 86400
    assert properties["RedriveAllowPolicy"] == {
        "redrivePermission": "byQueue",
        "sourceQueueArns": ["arn:aws:sqs:eu-central-1:123456789012:meibo-changes.fifo"],
    }


def test_longest_change_fits_into_the_dlq_with_its_reason(template: Template) -> None:
    max_change = template.properties("ChangesQueue")["MaximumMessageSize"]
    max_dead_letter = template.properties("ChangesDeadLetters")["MaximumMessageSize"]

    # then: the DLQ accepts the longest change with the name, type and value of the attribute that has the reason
    assert max_dead_letter >= MAX_MESSAGE_BYTES
    assert max_change + MAX_REASON_BYTES + 100 <= MAX_MESSAGE_BYTES


def test_sending_is_denied_without_configured_senders(template: Template) -> None:
    policy = _policy(template, "ChangesQueuePolicy")

    assert policy.keys() == {"DenyInsecureTransport", "DenyAllSenders"}
    assert policy["DenyAllSenders"]["Effect"] == "Deny"
    assert "Condition" not in policy["DenyAllSenders"]


def test_only_configured_principals_may_send(translate: Callable[..., Template]) -> None:
    policy = _policy(translate(ChangeSenders=SENDERS), "ChangesQueuePolicy")

    assert policy["AllowSenders"]["Principal"] == {"AWS": SENDERS.split(",")}
    assert policy["DenyOtherSenders"]["Effect"] == "Deny"
    assert policy["DenyOtherSenders"]["Action"] == "sqs:SendMessage"
    assert policy["DenyOtherSenders"]["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": SENDERS.split(",")}}


def test_only_the_function_writes_dead_letters(template: Template) -> None:
    denied = _policy(template, "ChangesDeadLettersPolicy")["DenyOtherSenders"]

    assert (denied["Effect"], denied["Action"]) == ("Deny", "sqs:SendMessage")
    assert denied["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": "ChangeMembersRole.Arn"}}


@pytest.mark.parametrize(
    ("alarm", "metric", "queue"),
    [
        ("ChangesDeadLettersAlarm", "ApproximateNumberOfMessagesVisible", "ChangesDeadLetters"),
        ("ChangesAgeAlarm", "ApproximateAgeOfOldestMessage", "ChangesQueue"),
    ],
)
def test_queue_alarm_watches_its_queue(translate: Callable[..., Template], alarm: str, metric: str, queue: str) -> None:
    properties = translate(ChangeSenders=SENDERS).properties(alarm)

    assert (properties["Namespace"], properties["MetricName"]) == ("AWS/SQS", metric)
    assert properties["Dimensions"] == [{"Name": "QueueName", "Value": f"{queue}.QueueName"}]


def test_change_on_a_queue_that_is_not_polled_raises_an_alarm(translate: Callable[..., Template]) -> None:
    # given: no senders, so that the event source is disabled and earlier changes are not applied
    properties = translate(ChangeSenders="", MaxChangeAgeSeconds=7200).properties("ChangesAgeAlarm")

    # then: the alarm counts messages, because the age excludes messages that were received three times
    assert properties["MetricName"] == "ApproximateNumberOfMessagesVisible"
    assert (properties["ComparisonOperator"], properties["Threshold"]) == ("GreaterThanThreshold", 0)


def test_age_alarms_use_the_threshold_of_the_parameter(translate: Callable[..., Template]) -> None:
    template = translate(ChangeSenders=SENDERS, MaxChangeAgeSeconds=7200)

    for alarm in ("ChangesAgeAlarm", "ReturnedChangesAgeAlarm"):
        properties = template.properties(alarm)
        assert (properties["ComparisonOperator"], properties["Threshold"]) == ("GreaterThanThreshold", 7200)


def test_failed_invocations_are_watched_by_the_metric_of_lambda(template: Template) -> None:
    properties = template.properties("ChangeMembersErrorsAlarm")

    assert (properties["Namespace"], properties["MetricName"]) == ("AWS/Lambda", "Errors")
    assert properties["Dimensions"] == [{"Name": "FunctionName", "Value": "ChangeMembers"}]
