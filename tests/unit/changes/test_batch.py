"""The messages of an SQS event are parsed, and other events are rejected."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meibo.changes.messages import Change, by_group, parse_change, parse_queue_event
from meibo.errors import EventError
from meibo_local.template import ROOT

EVENTS = sorted((ROOT / "events").glob("change_members.*.json"))


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_sample_event_contains_valid_changes(path: Any) -> None:
    for message in parse_queue_event(json.loads(path.read_text(encoding="utf-8"))):
        assert isinstance(parse_change(message.body, max_removals=0, group_id=message.group_id), Change)
        assert message.dt == "2026-11-21"


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
def test_event_of_another_source_is_rejected(event: Any) -> None:
    with pytest.raises(EventError):
        parse_queue_event(event)


def test_messages_keep_their_order_within_their_group() -> None:
    record = json.loads(EVENTS[0].read_text(encoding="utf-8"))["Records"][0]
    groups = ["a", "b", "a", "c", "b", "a"]
    records = [
        {**record, "messageId": str(number), "attributes": {**record["attributes"], "MessageGroupId": group}}
        for number, group in enumerate(groups)
    ]

    batches = by_group(parse_queue_event({"Records": records}))

    assert sorted([message.message_id for message in group] for group in batches) == [
        ["0", "2", "5"],
        ["1", "4"],
        ["3"],
    ]
