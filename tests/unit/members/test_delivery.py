"""What arrives from the queue is read, and what does not come from a queue is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from meibo.errors import EventError
from meibo.members.change import read_change
from meibo.members.delivery import by_group, deliveries

from local.template import ROOT

EVENTS = sorted((ROOT / "events").glob("change_members.*.json"))


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_sample_event_holds_valid_changes(path: Any) -> None:
    for delivery in deliveries(json.loads(path.read_text(encoding="utf-8"))):
        reading = read_change(delivery.body, max_removals=0, group_id=delivery.group_id)

        assert reading.faults == ()
        assert delivery.dt == "2026-11-21"


def test_there_is_a_sample_event_for_each_action() -> None:
    names = {path.name.split(".")[1] for path in EVENTS}

    assert names == {"add", "remove", "dry_run", "invite"}


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        {},
        {"Records": []},
        {"Records": [{"messageId": "1", "body": "{}"}]},
        {"Records": [{"messageId": "1", "receiptHandle": "r", "body": "{}", "attributes": {"SentTimestamp": "x"}}]},
        {"Records": ["text"]},
    ],
)
def test_event_that_is_not_of_a_fifo_queue_is_refused(event: Any) -> None:
    with pytest.raises(EventError):
        deliveries(event)


def test_messages_keep_their_order_within_their_group() -> None:
    # given
    record = json.loads(EVENTS[0].read_text(encoding="utf-8"))["Records"][0]
    groups = ["a", "b", "a", "c", "b", "a"]
    records = [
        {**record, "messageId": str(number), "attributes": {**record["attributes"], "MessageGroupId": group}}
        for number, group in enumerate(groups)
    ]

    # when
    found = by_group(deliveries({"Records": records}))

    # then
    assert sorted([delivery.message_id for delivery in group] for group in found) == [
        ["0", "2", "5"],
        ["1", "4"],
        ["3"],
    ]
