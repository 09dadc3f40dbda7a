"""Interrupted changes are returned to the queue in order, retried, and applied once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError, ReadTimeoutError

from meibo.changes.apply import MAX_LATE_RECEIVES
from meibo.changes.queue import DeadLetter
from meibo.errors import AwsBusyError
from meibo_simulators.faults import html, respond, too_many_requests
from tests.support.changes import ChangeQueueHarness, TerminatedError
from tests.support.wsgi import ReplacedResponse

MEMBERS = "POST /api/v2/organizations/*/members"
ROLES = "POST /api/v2/organizations/*/members/*/roles"


def poll(harness: ChangeQueueHarness) -> None:
    """Process a batch in a new execution environment, which may be terminated."""
    source = harness.source()
    try:
        source.poll()
    except TerminatedError:
        # Lambda does not delete the messages, so SQS delivers them again after the visibility timeout.
        harness.clock.sleep(harness.queue.visibility)


def test_messages_beyond_the_time_limit_are_returned_in_order(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    # given: a slow provider, so that an invocation can send only a few requests
    harness.seconds = harness.adapter._seconds = 50.0
    for number in range(8):
        harness.send(*user_ids[number * 10 : number * 10 + 10], organization=number % 2, change_id=f"hr-{number}")

    harness.drain()

    assert harness.members(0) | harness.members(1) == frozenset(user_ids[:80])
    assert len(harness.lines()) == 80
    assert harness.queue.dead_letters == []


@pytest.mark.parametrize("status", [400, 404])
def test_error_page_of_a_proxy_rejects_no_member(harness: ChangeQueueHarness, user_ids: list[str], status: int) -> None:
    # given: a response from a proxy instead of Auth0
    harness.tenant.faults.add("* /api/v2/organizations/*", html(status), times=4)
    harness.send(*user_ids[:3])

    harness.drain()

    # then: the change is applied when Auth0 responds again
    assert harness.members(0) == frozenset(user_ids[:3])
    assert [line["outcome"] for line in harness.lines()] == ["applied"] * 3
    assert harness.queue.dead_letters == []


def test_failed_organization_keeps_its_order_and_does_not_stop_others(
    harness: ChangeQueueHarness, user_ids: list[str]
) -> None:
    first = harness.organizations[0]
    fault = harness.tenant.faults.add(f"POST /api/v2/organizations/{first}/members", respond(503), times=None)
    stuck = [
        harness.send(user_ids[0], user_ids[1]),
        harness.send(user_ids[0], action="remove"),
        harness.send(user_ids[2], change_id="hr-2"),
    ]
    other = [harness.send(user_ids[number], organization=number) for number in (1, 2, 3)]

    source = harness.source()
    for _ in range(20):
        source.poll()
        harness.clock.sleep(1000)
    waiting = [message.id for message in harness.queue.messages]
    fault.times = 0
    harness.drain()

    assert waiting == stuck
    assert [harness.outcomes(message) for message in other] == [{user_ids[number]: "applied"} for number in (1, 2, 3)]
    assert harness.members() == {user_ids[1], user_ids[2]}


def test_finished_message_waits_for_an_unfinished_earlier_message(
    harness: ChangeQueueHarness, user_ids: list[str]
) -> None:
    # given: the provider is busy after the first request, which contains the additions
    first = harness.send(user_ids[0])
    stuck = harness.send(user_ids[1], action="remove")
    last = harness.send(user_ids[2])
    fault = harness.tenant.faults.add(MEMBERS.replace("POST", "DELETE"), too_many_requests(retry_after=900), times=1)

    harness.source().poll()
    waiting = [message.id for message in harness.queue.messages]
    recorded = [harness.outcomes(message) for message in (first, stuck, last)]
    harness.drain()

    assert fault.hits == 1
    assert waiting == [stuck, last]
    assert recorded == [{user_ids[0]: "applied"}, {}, {user_ids[2]: "applied"}]
    assert [harness.outcomes(message) for message in (first, stuck, last)] == [
        {user_ids[number]: "applied"} for number in range(3)
    ]
    # No request was sent for members with a recorded outcome.
    assert harness.requests("POST") == [204]


def test_message_that_outlasts_an_invocation_resumes(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    # given: 190 requests for roles, each of which takes 2 s
    harness.adapter._seconds = 2.0
    role = next(iter(harness.tenant.roles.by_id))
    message = harness.send(*user_ids[:190], roles=[role])

    harness.drain()

    assert harness.outcomes(message) == dict.fromkeys(user_ids[:190], "applied")
    assert len([key for key in harness.storage.keys("changes/") if message in key]) > 1
    assert harness.requests("POST", "roles").count(204) == 190


def test_progress_of_one_organization_does_not_use_up_the_receives_of_another(
    harness: ChangeQueueHarness, user_ids: list[str]
) -> None:
    # given: invitations that fail immediately, while changes of other organizations arrive
    invitations = f"POST /api/v2/organizations/{harness.organizations[0]}/invitations"
    fault = harness.tenant.faults.add(invitations, respond(503), times=None)
    terms = {"client_id": "portal", "inviter": "HR"}
    stuck = harness.send("new@example.com", action="invite", invitation=terms)
    (message,) = harness.queue.messages

    source = harness.source()
    for number in range(360):
        harness.send(user_ids[number % 100], organization=1 + number % 4, change_id=f"hr-{number}")
        source.poll()
        harness.clock.sleep(60)

    # then: the number of requests in six hours, with five short waits and then a wait of 15 minutes each time
    assert len(harness.lines()) > 300
    assert message.received <= 5 + 6 * 4
    fault.times = 0
    harness.drain()
    assert harness.outcomes(stuck) == {"new@example.com": "applied"}


def test_organization_without_a_turn_is_received_again_without_a_delay(
    harness: ChangeQueueHarness, user_ids: list[str]
) -> None:
    # given: two organizations with more changes than an invocation can apply
    harness.seconds = harness.adapter._seconds = 100.0
    for number in range(2):
        harness.send(*user_ids[number * 100 : number * 100 + 100], organization=number)

    harness.source().poll()

    assert [message.visible_at - harness.clock.now() for message in harness.queue.messages] == [0, 0]

    # when: the message was received often
    for message in harness.queue.messages:
        message.received = MAX_LATE_RECEIVES
    harness.source().poll()

    # then: only the changes of the organization that is processed first are applied
    assert sorted(message.visible_at - harness.clock.now() for message in harness.queue.messages) == [0, 900]


@pytest.mark.parametrize("organizations", [1, 5])
def test_outage_of_nine_days_moves_no_valid_change_to_the_dead_letter_queue(
    harness: ChangeQueueHarness, user_ids: list[str], organizations: int
) -> None:
    # given: invocations that have time for the requests of only one organization
    def respond_late(_request: requests.PreparedRequest) -> ReplacedResponse:
        harness.clock.sleep(135)
        return ReplacedResponse(503)

    harness.adapter.before = respond_late
    messages = [harness.send(user_ids[number], organization=number) for number in range(organizations)]
    begin = harness.clock.now()

    source = harness.source()
    while harness.clock.now() - begin < 9 * 86400:
        source.poll()
        harness.clock.sleep(60)
    harness.adapter.before = lambda _request: None
    harness.drain()

    assert [harness.outcomes(message) for message in messages] == [
        {user_ids[number]: "applied"} for number in range(organizations)
    ]
    assert harness.queue.expired == []
    assert harness.queue.dead_letters == []


def test_function_does_not_wait_for_a_long_rate_limit(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    harness.tenant.faults.add(MEMBERS, too_many_requests(retry_after=3600), times=3)
    message = harness.send(user_ids[0])
    begin = harness.clock.now()

    harness.drain()

    # then: the function did not wait for the rate limit
    assert harness.outcomes(message) == {user_ids[0]: "applied"}
    assert harness.requests("POST").count(429) == 3
    assert harness.clock.now() - begin > 3 * 900


@pytest.mark.parametrize("status", [401, 403])
def test_rejected_credentials_or_scopes_keep_the_change_on_the_queue(
    harness: ChangeQueueHarness, user_ids: list[str], status: int
) -> None:
    # given: rejected credentials or a missing OAuth scope, until it is corrected
    fault = harness.tenant.faults.add(MEMBERS, respond(status), times=None)
    message = harness.send(user_ids[0])
    source = harness.source()

    source.poll()
    held = harness.queue.size()
    fault.times = 0
    harness.drain()

    assert held == 1
    assert harness.counts["failures"] == 1
    assert harness.outcomes(message) == {user_ids[0]: "applied"}
    assert harness.queue.dead_letters == []


@pytest.mark.parametrize("status", [401, 403])
def test_rejected_credentials_are_read_again_in_the_same_invocation(
    harness: ChangeQueueHarness, user_ids: list[str], status: int
) -> None:
    # given: an execution environment with a cached client, whose secret was rotated or OAuth scopes were granted since
    source = harness.source()
    harness.send(user_ids[0])
    source.poll()
    # A rejected token is replaced once. A second rejection means that the credentials are rejected.
    harness.tenant.faults.add(MEMBERS, respond(status), times=2 if status == 401 else 1)
    message = harness.send(user_ids[1], change_id="hr-2")

    source.poll()

    assert harness.outcomes(message) == {user_ids[1]: "applied"}
    assert harness.counts["failures"] == 0


def test_group_with_several_errors_counts_once(
    harness: ChangeQueueHarness, user_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: an OAuth scope is missing, and SQS does not accept the visibility timeout either
    harness.tenant.faults.add(MEMBERS, respond(403), times=None)
    harness.send(user_ids[0])

    def failing(_returned: Sequence[Any], _seconds: int) -> None:
        raise ConnectionError("sqs")

    monkeypatch.setattr(harness.queue, "set_visibility_timeout", failing)

    harness.source().poll()

    assert harness.counts["failures"] == 1


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject"),  # type: ignore[typeddict-item]  # botocore needs no more
        ReadTimeoutError(endpoint_url="https://sqs.ap-northeast-1.amazonaws.com"),
        AwsBusyError("AWS answered GetSecretValue with ThrottlingException; retry later"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_busy_aws_does_not_count_as_a_failure(
    harness: ChangeQueueHarness, user_ids: list[str], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = harness.send(user_ids[0])

    def busy(_key: str, _body: bytes, *, content_type: str) -> bool:
        raise error

    # when: S3 rejects every record during an invocation
    with monkeypatch.context() as patch:
        patch.setattr(harness.storage, "put_bytes", busy)
        harness.source().poll()
    held = harness.queue.size()
    harness.drain()

    assert held == 1
    assert harness.counts["failures"] == 0
    assert harness.outcomes(message) == {user_ids[0]: "applied"}
    assert harness.queue.dead_letters == []


def test_outcomes_that_s3_cannot_store_do_not_use_up_the_receives(
    harness: ChangeQueueHarness, user_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: Auth0 applies the change at each delivery, and S3 stores no outcome for six hours
    harness.send(user_ids[0])
    (message,) = harness.queue.messages

    def busy(_key: str, _body: bytes, *, content_type: str) -> bool:
        raise AwsBusyError("AWS answered PutObject with SlowDown; retry later")

    with monkeypatch.context() as patch:
        patch.setattr(harness.storage, "put_bytes", busy)
        source = harness.source()
        for _ in range(360):
            source.poll()
            harness.clock.sleep(60)

    # then: five short waits, and then a wait of 15 minutes each time
    assert message.received <= 5 + 6 * 4
    assert harness.counts["failures"] == 0
    harness.drain()
    assert [line["outcome"] for line in harness.lines()] == ["applied"]


@pytest.mark.parametrize("moment", ["before the record", "after the record", "after the DLQ message"])
def test_termination_between_two_steps_changes_no_outcome(
    harness: ChangeQueueHarness, user_ids: list[str], moment: str
) -> None:
    unknown = "auth0|0000000000000000000000ff"
    message = harness.send(*user_ids[:5], unknown)
    put, send_dead_letter = harness.storage.put_bytes, harness.queue.send_dead_letter
    terminations: list[str] = []

    def dying(work: Callable[..., Any], *, first: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if terminations:
                return work(*arguments, **options)
            terminations.append(moment)
            if not first:
                work(*arguments, **options)
            raise TerminatedError

        return call

    if moment == "before the record":
        harness.storage.put_bytes = dying(put, first=True)  # type: ignore[method-assign]  # dies once
    elif moment == "after the record":
        harness.storage.put_bytes = dying(put, first=False)  # type: ignore[method-assign]  # dies once
    else:
        harness.queue.send_dead_letter = dying(send_dead_letter, first=False)  # type: ignore[method-assign]  # dies once

    poll(harness)
    poll(harness)

    assert terminations
    assert harness.queue.size() == 0
    assert harness.outcomes(message) == {**dict.fromkeys(user_ids[:5], "applied"), unknown: "rejected"}
    assert {tuple(dead_letter["members"]) for dead_letter in harness.dead_letters()} == {(unknown,)}
    # The DLQ contains the message twice if the function was terminated before the acknowledgment, which is harmless.
    assert len(harness.dead_letters()) == (2 if moment == "after the DLQ message" else 1)
    assert harness.members() == frozenset(user_ids[:5])


def test_recorded_message_is_not_applied_again(harness: ChangeQueueHarness, user_ids: list[str]) -> None:
    # given: the function was terminated after it wrote the record, and the member was removed manually meanwhile
    harness.send(user_ids[0])
    put = harness.storage.put_bytes

    def record_and_die(key: str, body: bytes, *, content_type: str) -> bool:
        put(key, body, content_type=content_type)
        raise TerminatedError

    harness.storage.put_bytes = record_and_die  # type: ignore[method-assign]  # dies once
    poll(harness)
    harness.storage.put_bytes = put  # type: ignore[method-assign]
    harness.tenant.organizations.remove_members(harness.organizations[0], [user_ids[0]])

    poll(harness)

    assert harness.queue.size() == 0
    assert harness.members() == frozenset()
    assert harness.requests("POST") == [204]


def test_failure_to_send_a_dead_letter_keeps_the_message(harness: ChangeQueueHarness) -> None:
    message = harness.queue.send("{}", "none")
    send_dead_letter = harness.queue.send_dead_letter
    calls: list[DeadLetter] = []

    def failing(dead_letter: DeadLetter) -> None:
        calls.append(dead_letter)
        if len(calls) == 1:
            raise ConnectionError("sqs")
        send_dead_letter(dead_letter)

    harness.queue.send_dead_letter = failing  # type: ignore[method-assign]  # fails once

    harness.drain()

    assert len(harness.dead_letters()) == 1
    assert harness.outcomes(message) == {None: "rejected"}
