"""The local event source mapping behaves like Lambda's, and the function can call SQS."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from moto import mock_aws

from meibo.changes.messages import parse_queue_event
from meibo.changes.queue import DeadLetter, SqsChangeQueue
from meibo_local.lambda_service import InvocationResult
from meibo_local.queue import EventSource, SqsQueue


@pytest.fixture
def urls(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-northeast-1")
    with mock_aws():
        client = boto3.client("sqs")
        attributes: Any = {"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "1800"}
        yield [
            client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
            for name in ("changes.fifo", "dead-letters.fifo")
        ]


def _source(url: str, outcome: InvocationResult, batches: list[Any]) -> EventSource:
    def invoke(event: dict[str, Any]) -> InvocationResult:
        batches.append(event)
        return outcome

    queue = SqsQueue(boto3.client("sqs"), url)
    return EventSource(queue, "arn:aws:sqs:r:1:q", invoke, batch_size=10, concurrency=1, reports_failures=True)


@pytest.mark.parametrize(
    ("outcome", "left"),
    [
        (InvocationResult({"batchItemFailures": []}, failed=False), 0),
        (InvocationResult(None, failed=False), 0),
        (InvocationResult({"batchItemFailures": [{"itemIdentifier": "unheard of"}]}, failed=False), 3),
        (InvocationResult({"batchItemFailures": [{}]}, failed=False), 3),
        (InvocationResult({"errorType": "UnexpectedError"}, failed=True), 3),
    ],
)
def test_acknowledged_messages_are_deleted(urls: list[str], outcome: InvocationResult, left: int) -> None:
    for number in range(3):
        boto3.client("sqs").send_message(QueueUrl=urls[0], MessageBody=str(number), MessageGroupId="a")
    batches: list[Any] = []
    source = _source(urls[0], outcome, batches)

    polled = source.poll()

    assert polled
    assert [record["body"] for record in batches[0]["Records"]] == ["0", "1", "2"]
    assert source.queue.size() == left


def test_returned_messages_are_received_again_in_order(urls: list[str]) -> None:
    client = boto3.client("sqs")
    for number in range(3):
        client.send_message(QueueUrl=urls[0], MessageBody=str(number), MessageGroupId="a")
    batches: list[Any] = []
    source = _source(urls[0], InvocationResult({}, failed=True), batches)
    source.poll()
    assert not source.poll()

    SqsChangeQueue(client, *urls).set_visibility_timeout(parse_queue_event(batches[0]), 0)
    source.poll()

    again = parse_queue_event(batches[1])
    assert [delivery.body for delivery in again] == ["0", "1", "2"]
    assert {delivery.receive_count for delivery in again} == {2}


def test_repeated_dead_letter_is_a_single_message(urls: list[str]) -> None:
    client = boto3.client("sqs")
    dead_letter = DeadLetter("{}", "org_0000000000000001", "m-1", "$: 名簿")

    for _ in range(2):
        SqsChangeQueue(client, *urls).send_dead_letter(dead_letter)

    (message,) = client.receive_message(
        QueueUrl=urls[1], MaxNumberOfMessages=10, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
    )["Messages"]
    assert message["Body"] == "{}"
    assert message["MessageAttributes"]["MeiboReason"]["StringValue"] == "$: 名簿"
    assert message["Attributes"]["MessageGroupId"] == "org_0000000000000001"
