"""The queue of membership changes: order kept, nothing lost, only named senders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meibo.changes.apply import MAX_INVOCATIONS, MAX_WAIT_SECONDS, MIN_WAIT_SECONDS
from meibo.changes.queue import MAX_MESSAGE_BYTES, MAX_REASON_BYTES
from tests.template.conftest import Template

SENDERS = "arn:aws:iam::123456789012:role/hr-sync,arn:aws:iam::210987654321:user/ops"


def _mapping(template: Template) -> dict[str, Any]:
    (mapping,) = template.of_type("AWS::Lambda::EventSourceMapping").values()
    return mapping


def _policy(template: Template, name: str) -> dict[str, dict[str, Any]]:
    return {found["Sid"]: found for found in template.properties(name)["PolicyDocument"]["Statement"]}


def test_queues_are_fifo_and_named(template: Template) -> None:
    names = {name: template.properties(name)["QueueName"] for name in ("ChangesQueue", "ChangesDeadLetters")}

    assert names == {"ChangesQueue": "meibo-changes.fifo", "ChangesDeadLetters": "meibo-changes-dead-letters.fifo"}
    assert all(template.properties(name)["FifoQueue"] is True for name in names)


def test_organizations_do_not_slow_each_other_down(template: Template) -> None:
    properties = template.properties("ChangesQueue")

    assert (properties["DeduplicationScope"], properties["FifoThroughputLimit"]) == (
        "messageGroup",
        "perMessageGroupId",
    )


def test_batches_of_ten_answer_message_by_message(template: Template) -> None:
    mapping = _mapping(template)

    assert mapping["EventSourceArn"] == "ChangesQueue.Arn"
    assert mapping["BatchSize"] == 10
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_concurrency_is_limited_at_the_queue_to_what_the_function_expects(template: Template) -> None:
    assert _mapping(template)["ScalingConfig"] == {"MaximumConcurrency": MAX_INVOCATIONS}
    assert "ReservedConcurrentExecutions" not in template.properties("ChangeMembers")


@pytest.mark.parametrize(("senders", "enabled"), [("", False), (SENDERS, True)])
def test_queue_is_polled_only_while_somebody_may_send(
    translate: Callable[..., Template], senders: str, *, enabled: bool
) -> None:
    assert _mapping(translate(ChangeSenders=senders))["Enabled"] is enabled


def test_message_stays_hidden_for_six_times_the_functions_time(template: Template) -> None:
    timeout = template.properties("ChangeMembers")["Timeout"]

    assert template.properties("ChangesQueue")["VisibilityTimeout"] == 6 * timeout


def test_good_change_outlives_any_rate_limit_and_reaches_the_dead_letters_before_it_expires(
    template: Template,
) -> None:
    # given: how long a change for which nothing can be done is hidden after each receive
    properties = template.properties("ChangesQueue")
    receives = properties["RedrivePolicy"]["maxReceiveCount"]
    waits = [min(MAX_WAIT_SECONDS, MIN_WAIT_SECONDS * 2**number) for number in range(receives)]

    # when
    at_least = sum(waits)
    at_most = at_least + receives * template.properties("ChangeMembers")["Timeout"]

    # then
    assert at_least > 10 * 86400
    assert at_most < properties["MessageRetentionPeriod"]


def test_rejected_changes_are_kept_as_long_as_sqs_keeps_anything(template: Template) -> None:
    properties = template.properties("ChangesDeadLetters")

    assert template.properties("ChangesQueue")["RedrivePolicy"]["deadLetterTargetArn"] == "ChangesDeadLetters.Arn"
    assert properties["MessageRetentionPeriod"] == 14 * 86400
    assert properties["RedriveAllowPolicy"] == {
        "redrivePermission": "byQueue",
        "sourceQueueArns": ["arn:aws:sqs:eu-central-1:123456789012:meibo-changes.fifo"],
    }


def test_dead_letter_always_fits(template: Template) -> None:
    # given
    most = template.properties("ChangesQueue")["MaximumMessageSize"]
    dead_letters = template.properties("ChangesDeadLetters")["MaximumMessageSize"]

    # then: the whole message and the attribute with its name and type
    assert dead_letters >= MAX_MESSAGE_BYTES
    assert most + MAX_REASON_BYTES + 100 <= MAX_MESSAGE_BYTES


def test_nobody_may_send_until_somebody_is_named(template: Template) -> None:
    policy = _policy(template, "ChangesQueuePolicy")

    assert policy.keys() == {"DenyInsecureTransport", "DenyAllSenders"}
    assert policy["DenyAllSenders"]["Effect"] == "Deny"
    assert "Condition" not in policy["DenyAllSenders"]


def test_only_named_principals_may_send(translate: Callable[..., Template]) -> None:
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
def test_queue_is_watched(translate: Callable[..., Template], alarm: str, metric: str, queue: str) -> None:
    properties = translate(ChangeSenders=SENDERS).properties(alarm)

    assert (properties["Namespace"], properties["MetricName"]) == ("AWS/SQS", metric)
    assert properties["Dimensions"] == [{"Name": "QueueName", "Value": f"{queue}.QueueName"}]


def test_any_change_on_a_queue_that_is_not_polled_is_an_alarm(translate: Callable[..., Template]) -> None:
    # given: nobody may send, so the event source is disabled, and changes that were sent before are not applied
    properties = translate(ChangeSenders="", MaxChangeAgeSeconds=7200).properties("ChangesAgeAlarm")

    # then: the age would leave out those that were received three times
    assert properties["MetricName"] == "ApproximateNumberOfMessagesVisible"
    assert (properties["ComparisonOperator"], properties["Threshold"]) == ("GreaterThanThreshold", 0)


def test_age_alarms_have_the_threshold_of_their_parameter(translate: Callable[..., Template]) -> None:
    template = translate(ChangeSenders=SENDERS, MaxChangeAgeSeconds=7200)

    for alarm in ("ChangesAgeAlarm", "ReturnedChangesAgeAlarm"):
        properties = template.properties(alarm)
        assert (properties["ComparisonOperator"], properties["Threshold"]) == ("GreaterThanThreshold", 7200)


@pytest.mark.parametrize(
    ("alarm", "metric", "statistic"),
    [
        ("RejectedMembersAlarm", "RejectedMembers", "Sum"),
        ("FailedChangeGroupsAlarm", "FailedChangeGroups", "Sum"),
        ("ReturnedChangesAgeAlarm", "OldestReturnedChangeAge", "Maximum"),
    ],
)
def test_what_the_function_counts_is_watched_where_it_counts_it(
    template: Template, alarm: str, metric: str, statistic: str
) -> None:
    variables = template.properties("ChangeMembers")["Environment"]["Variables"]
    properties = template.properties(alarm)

    assert (properties["Namespace"], properties["MetricName"]) == ("Meibo", metric)
    assert properties["Statistic"] == statistic
    assert properties["Dimensions"] == [{"Name": "service", "Value": variables["POWERTOOLS_SERVICE_NAME"]}]


def test_invocations_that_fail_are_watched_where_lambda_counts_them(template: Template) -> None:
    properties = template.properties("ChangeMembersErrorsAlarm")

    assert (properties["Namespace"], properties["MetricName"]) == ("AWS/Lambda", "Errors")
    assert properties["Dimensions"] == [{"Name": "FunctionName", "Value": "ChangeMembers"}]
