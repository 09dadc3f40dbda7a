"""Changes from the queue to the tenant and to their outcomes, with the real function and queue."""

from __future__ import annotations

import json

from meibo_local.sample_changes import sample_changes, send_sample_changes
from tests.integration.changes.conftest import ChangesSystem


def test_invalid_message_is_sent_to_the_dead_letter_queue_without_retries(queue: ChangesSystem) -> None:
    message = queue.aws.changes.send({**queue.change("no-prefix"), "surprise": 1})
    broken = queue.aws.changes.send("{not json")

    queue.drain()

    dead_letters = queue.aws.changes.take_dead_letters()
    bodies = [dead_letter["Body"] for dead_letter in dead_letters]
    reasons = {dead_letter["MessageAttributes"]["MeiboReason"]["StringValue"] for dead_letter in dead_letters}
    assert sorted(bodies) == sorted([json.dumps({**queue.change("no-prefix"), "surprise": 1}), "{not json"])
    assert any("$.members[0]" in reason and "$.surprise" in reason for reason in reasons)
    assert queue.outcomes(message) == {"no-prefix": "rejected"}
    assert queue.outcomes(broken) == {None: "rejected"}
    assert not any(request.path.endswith("/members") for request in queue.tenant.requests)


def test_changes_of_make_run_have_the_expected_outcomes(queue: ChangesSystem) -> None:
    planned = sample_changes("acme", queue.organizations, queue.user_ids, queue.roles, count=70)

    rehearsal = send_sample_changes(queue.aws, planned)

    assert rehearsal.drained
    assert rehearsal.actual == rehearsal.expected
    assert rehearsal.actual["rejected"] > 0
    assert rehearsal.actual["DLQ messages"] > 0
