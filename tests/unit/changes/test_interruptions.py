"""Interrupted changes are returned to the queue in order, retried, and applied once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from meibo.changes.apply import MAX_LATE_RECEIVES
from meibo.changes.queue import DeadLetter
from meibo.errors import AwsBusyError
from meibo_simulators.faults import html, respond, too_many_requests
from tests.support.changes import ChangeQueueHarness, TerminatedError
from tests.support.wsgi import Instead

MEMBERS = "POST /api/v2/organizations/*/members"
ROLES = "POST /api/v2/organizations/*/members/*/roles"


def poll(world: ChangeQueueHarness) -> None:
    """Process a batch in a new execution environment, which may be terminated."""
    source = world.source()
    try:
        source.poll()
    except TerminatedError:
        # Lambda deletes no message, so SQS delivers them again after the visibility timeout.
        world.clock.sleep(world.queue.visibility)


def test_messages_beyond_the_time_limit_are_returned_in_order(world: ChangeQueueHarness, people: list[str]) -> None:
    # given: a slow provider, so that an invocation can send only a few requests
    world.seconds = world.adapter._seconds = 50.0
    for number in range(8):
        world.send(*people[number * 10 : number * 10 + 10], organization=number % 2, change_id=f"hr-{number}")

    # when
    world.drain()

    # then
    assert world.members(0) | world.members(1) == frozenset(people[:80])
    assert len(world.lines()) == 80
    assert world.queue.letters == []


@pytest.mark.parametrize("status", [400, 404])
def test_error_page_of_a_proxy_rejects_no_member(world: ChangeQueueHarness, people: list[str], status: int) -> None:
    # given: a proxy responds instead of Auth0
    world.tenant.faults.add("* /api/v2/organizations/*", html(status), times=4)
    world.send(*people[:3])

    # when
    world.drain()

    # then: the change is applied when Auth0 responds again
    assert world.members(0) == frozenset(people[:3])
    assert [line["outcome"] for line in world.lines()] == ["applied"] * 3
    assert world.queue.letters == []


def test_failed_organization_keeps_its_order_and_does_not_stop_others(
    world: ChangeQueueHarness, people: list[str]
) -> None:
    # given
    first = world.organizations[0]
    fault = world.tenant.faults.add(f"POST /api/v2/organizations/{first}/members", respond(503), times=None)
    stuck = [
        world.send(people[0], people[1]),
        world.send(people[0], action="remove"),
        world.send(people[2], change_id="hr-2"),
    ]
    other = [world.send(people[number], organization=number) for number in (1, 2, 3)]

    # when
    source = world.source()
    for _ in range(20):
        source.poll()
        world.clock.sleep(1000)
    waiting = [message.id for message in world.queue.messages]
    fault.times = 0
    world.drain()

    # then
    assert waiting == stuck
    assert [world.outcomes(message) for message in other] == [{people[number]: "applied"} for number in (1, 2, 3)]
    assert world.members() == {people[1], people[2]}


def test_finished_message_waits_for_an_unfinished_earlier_message(world: ChangeQueueHarness, people: list[str]) -> None:
    # given: the additions are sent first, in the same request; then the provider is busy
    first = world.send(people[0])
    stuck = world.send(people[1], action="remove")
    last = world.send(people[2])
    fault = world.tenant.faults.add(MEMBERS.replace("POST", "DELETE"), too_many_requests(retry_after=900), times=1)

    # when
    world.source().poll()
    waiting = [message.id for message in world.queue.messages]
    recorded = [world.outcomes(message) for message in (first, stuck, last)]
    world.drain()

    # then
    assert fault.hits == 1
    assert waiting == [stuck, last]
    assert recorded == [{people[0]: "applied"}, {}, {people[2]: "applied"}]
    assert [world.outcomes(message) for message in (first, stuck, last)] == [
        {people[number]: "applied"} for number in range(3)
    ]
    # recorded outcomes were not requested again
    assert world.requests("POST") == [204]


def test_message_that_outlasts_an_invocation_resumes(world: ChangeQueueHarness, people: list[str]) -> None:
    # given: 190 requests of 2 s for roles
    world.adapter._seconds = 2.0
    role = next(iter(world.tenant.organizations.roles))
    message = world.send(*people[:190], roles=[role])

    # when
    world.drain()

    # then
    assert world.outcomes(message) == dict.fromkeys(people[:190], "applied")
    assert len([key for key in world.storage.keys("changes/") if message in key]) > 1
    assert world.requests("POST", "roles").count(204) == 190


def test_outage_of_a_provider_moves_no_valid_change_to_the_dead_letter_queue(
    world: ChangeQueueHarness, people: list[str]
) -> None:
    # given
    down = world.tenant.faults.add("*", respond(503), times=None)
    message = world.send(people[0])
    days = 4 * 86400
    begin = world.clock.now()

    # when
    source = world.source()
    while world.clock.now() - begin < days:
        source.poll()
        world.clock.sleep(60)
    down.times = 0
    world.drain()

    # then
    assert world.outcomes(message) == {people[0]: "applied"}
    assert world.queue.expired == []
    assert world.queue.letters == []


def test_progress_of_one_organization_does_not_use_up_the_receives_of_another(
    world: ChangeQueueHarness, people: list[str]
) -> None:
    # given: invitations that fail immediately, and a steady flow of changes of other organizations
    invitations = f"POST /api/v2/organizations/{world.organizations[0]}/invitations"
    fault = world.tenant.faults.add(invitations, respond(503), times=None)
    terms = {"client_id": "portal", "inviter": "HR"}
    stuck = world.send("new@example.com", action="invite", invitation=terms)
    (message,) = world.queue.messages

    # when
    source = world.source()
    for number in range(360):
        world.send(people[number % 100], organization=1 + number % 4, change_id=f"hr-{number}")
        source.poll()
        world.clock.sleep(60)

    # then: six hours consist of the first five waits, and a wait every 15 minutes
    assert len(world.lines()) > 300
    assert message.received <= 5 + 6 * 4
    fault.times = 0
    world.drain()
    assert world.outcomes(stuck) == {"new@example.com": "applied"}


def test_organization_without_a_turn_is_received_again_without_a_delay(
    world: ChangeQueueHarness, people: list[str]
) -> None:
    # given: two organizations with more changes than an invocation can apply
    world.seconds = world.adapter._seconds = 100.0
    for number in range(2):
        world.send(*people[number * 100 : number * 100 + 100], organization=number)

    # when
    world.source().poll()

    # then
    assert [message.visible_at - world.clock.now() for message in world.queue.messages] == [0, 0]

    # when: the message was received often
    for message in world.queue.messages:
        message.received = MAX_LATE_RECEIVES
    world.source().poll()

    # then: only the organization whose turn came makes progress
    assert sorted(message.visible_at - world.clock.now() for message in world.queue.messages) == [0, 900]


def test_outage_of_nine_days_moves_no_valid_change_to_the_dead_letter_queue(
    world: ChangeQueueHarness, people: list[str]
) -> None:
    # given: more organizations than an invocation can process
    world.adapter.before = lambda _request: Instead(503)
    messages = [world.send(people[number], organization=number) for number in range(5)]
    begin = world.clock.now()

    # when
    source = world.source()
    while world.clock.now() - begin < 9 * 86400:
        source.poll()
        world.clock.sleep(60)
    world.adapter.before = lambda _request: None
    world.drain()

    # then
    assert [world.outcomes(message) for message in messages] == [{people[number]: "applied"} for number in range(5)]
    assert world.queue.expired == []


def test_function_does_not_wait_for_a_long_rate_limit(world: ChangeQueueHarness, people: list[str]) -> None:
    # given
    world.tenant.faults.add(MEMBERS, too_many_requests(retry_after=3600), times=3)
    message = world.send(people[0])
    begin = world.clock.now()

    # when
    world.drain()

    # then: the function did not wait for the rate limit
    assert world.outcomes(message) == {people[0]: "applied"}
    assert world.requests("POST").count(429) == 3
    assert world.clock.now() - begin > 3 * 900


@pytest.mark.parametrize("status", [401, 403])
def test_rejected_credentials_or_scopes_keep_the_change_on_the_queue(
    world: ChangeQueueHarness, people: list[str], status: int
) -> None:
    # given: rejected credentials or a missing OAuth scope, until it is corrected
    fault = world.tenant.faults.add(MEMBERS, respond(status), times=None)
    message = world.send(people[0])
    source = world.source()

    # when
    source.poll()
    held = world.queue.size()
    fault.times = 0
    world.drain()

    # then
    assert held == 1
    assert world.counts["failures"] == 1
    assert world.outcomes(message) == {people[0]: "applied"}
    assert world.queue.letters == []


@pytest.mark.parametrize("status", [401, 403])
def test_rejected_credentials_are_read_again_in_the_same_invocation(
    world: ChangeQueueHarness, people: list[str], status: int
) -> None:
    # given: an execution environment with a cached client, whose secret was rotated or OAuth scopes were granted since
    source = world.source()
    world.send(people[0])
    source.poll()
    # a rejected token is replaced once before the credentials count as rejected
    world.tenant.faults.add(MEMBERS, respond(status), times=2 if status == 401 else 1)
    message = world.send(people[1], change_id="hr-2")

    # when
    source.poll()

    # then
    assert world.outcomes(message) == {people[1]: "applied"}
    assert world.counts["failures"] == 0


def test_group_with_several_errors_counts_once(
    world: ChangeQueueHarness, people: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: an OAuth scope is missing, and SQS does not accept the visibility time-out either
    world.tenant.faults.add(MEMBERS, respond(403), times=None)
    world.send(people[0])

    def failing(_returned: Sequence[Any], _seconds: int) -> None:
        raise ConnectionError("sqs")

    monkeypatch.setattr(world.queue, "set_visibility_timeout", failing)

    # when
    world.source().poll()

    # then
    assert world.counts["failures"] == 1


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
    world: ChangeQueueHarness, people: list[str], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    message = world.send(people[0])

    def busy(_key: str, _body: bytes, *, content_type: str) -> bool:
        raise error

    # when: S3 accepts no record during an invocation
    with monkeypatch.context() as patch:
        patch.setattr(world.storage, "put_bytes", busy)
        world.source().poll()
    held = world.queue.size()
    world.drain()

    # then
    assert held == 1
    assert world.counts["failures"] == 0
    assert world.outcomes(message) == {people[0]: "applied"}
    assert world.queue.letters == []


def test_outcomes_that_s3_cannot_store_do_not_use_up_the_receives(
    world: ChangeQueueHarness, people: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: Auth0 applies the change at each delivery, and S3 stores no outcome for six hours
    world.send(people[0])
    (message,) = world.queue.messages

    def busy(_key: str, _body: bytes, *, content_type: str) -> bool:
        raise AwsBusyError("AWS answered PutObject with SlowDown; retry later")

    # when
    with monkeypatch.context() as patch:
        patch.setattr(world.storage, "put_bytes", busy)
        source = world.source()
        for _ in range(360):
            source.poll()
            world.clock.sleep(60)

    # then: the first five waits, and a wait every 15 minutes
    assert message.received <= 5 + 6 * 4
    assert world.counts["failures"] == 0
    world.drain()
    assert [line["outcome"] for line in world.lines()] == ["applied"]


@pytest.mark.parametrize("moment", ["before the record", "after the record", "after the DLQ message"])
def test_termination_between_two_steps_changes_no_outcome(
    world: ChangeQueueHarness, people: list[str], moment: str
) -> None:
    # given
    unknown = "auth0|0000000000000000000000ff"
    message = world.send(*people[:5], unknown)
    put, send_dead_letter = world.storage.put_bytes, world.queue.send_dead_letter
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
        world.storage.put_bytes = dying(put, first=True)  # type: ignore[method-assign]  # dies once
    elif moment == "after the record":
        world.storage.put_bytes = dying(put, first=False)  # type: ignore[method-assign]  # dies once
    else:
        world.queue.send_dead_letter = dying(send_dead_letter, first=False)  # type: ignore[method-assign]  # dies once

    # when
    poll(world)
    poll(world)

    # then
    assert terminations
    assert world.queue.size() == 0
    assert world.outcomes(message) == {**dict.fromkeys(people[:5], "applied"), unknown: "rejected"}
    assert {tuple(dead_letter["members"]) for dead_letter in world.letters()} == {(unknown,)}
    # the DLQ message exists twice if the function was terminated before the acknowledgement; a repetition does no harm
    assert len(world.letters()) == (2 if moment == "after the DLQ message" else 1)
    assert world.members() == frozenset(people[:5])


def test_recorded_message_is_not_applied_again(world: ChangeQueueHarness, people: list[str]) -> None:
    # given: the function was terminated after it wrote the record, and the member was removed manually meanwhile
    world.send(people[0])
    put = world.storage.put_bytes

    def record_and_die(key: str, body: bytes, *, content_type: str) -> bool:
        put(key, body, content_type=content_type)
        raise TerminatedError

    world.storage.put_bytes = record_and_die  # type: ignore[method-assign]  # dies once
    poll(world)
    world.storage.put_bytes = put  # type: ignore[method-assign]
    world.tenant.organizations.remove_members(world.organizations[0], [people[0]])

    # when
    poll(world)

    # then
    assert world.queue.size() == 0
    assert world.members() == frozenset()
    assert world.requests("POST") == [204]


def test_failure_to_send_a_dead_letter_keeps_the_message(world: ChangeQueueHarness) -> None:
    # given
    message = world.queue.send("{}", "none")
    send_dead_letter = world.queue.send_dead_letter
    calls: list[DeadLetter] = []

    def failing(letter: DeadLetter) -> None:
        calls.append(letter)
        if len(calls) == 1:
            raise ConnectionError("sqs")
        send_dead_letter(letter)

    world.queue.send_dead_letter = failing  # type: ignore[method-assign]  # fails once

    # when
    world.drain()

    # then
    assert len(world.letters()) == 1
    assert world.outcomes(message) == {None: "rejected"}
