"""The metrics of an invocation, as CloudWatch reads them from the function's output."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from meibo_simulators.faults import respond
from tests.integration.changes.conftest import ChangesSystem

HOUR_SECONDS = 3600


def _received(queue: ChangesSystem, *, sent_seconds_ago: int) -> dict[str, Any]:
    """Return an event with the messages of the queue, sent some time ago."""
    source = queue.aws.changes.source
    records = [source._record(message) for message in source.queue.receive(10)]
    for record in records:
        record["attributes"]["SentTimestamp"] = str(int((time.time() - sent_seconds_ago) * 1000))
    return {"Records": records}


def _metrics(output: str) -> dict[str, tuple[float, str]]:
    """Return the value and unit of each metric in the embedded metric format."""
    documents = [json.loads(line) for line in output.splitlines() if '"_aws"' in line]
    metrics = {}
    for document in documents:
        (directive,) = document["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "Meibo"
        for metric in directive["Metrics"]:
            (value,) = document[metric["Name"]]
            metrics[metric["Name"]] = (value, metric["Unit"])
    return metrics


def test_age_of_the_oldest_returned_change_is_counted(queue: ChangesSystem, capsys: pytest.CaptureFixture[str]) -> None:
    # given: an OAuth scope that is missing
    queue.tenant.faults.add("POST /api/v2/organizations/*/members", respond(403), times=None)
    queue.send(queue.user_ids[0])
    event = _received(queue, sent_seconds_ago=HOUR_SECONDS)
    capsys.readouterr()

    outcome = queue.aws.changes.source.invoke(event)

    assert len(outcome.payload["batchItemFailures"]) == 1
    metrics = _metrics(capsys.readouterr().out)
    value, unit = metrics["OldestReturnedChangeAge"]
    assert value >= HOUR_SECONDS
    assert unit == "Seconds"
    assert metrics["FailedChangeGroups"] == (1, "Count")


def test_returned_age_is_zero_if_nothing_is_returned(queue: ChangesSystem, capsys: pytest.CaptureFixture[str]) -> None:
    queue.send(queue.user_ids[0])
    event = _received(queue, sent_seconds_ago=HOUR_SECONDS)
    capsys.readouterr()

    outcome = queue.aws.changes.source.invoke(event)

    assert outcome.payload == {"batchItemFailures": []}
    assert _metrics(capsys.readouterr().out) == {
        "AppliedMembers": (1, "Count"),
        "RejectedMembers": (0, "Count"),
        "FailedChangeGroups": (0, "Count"),
        "OldestReturnedChangeAge": (0, "Seconds"),
    }
