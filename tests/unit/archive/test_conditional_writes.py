"""S3 answers 409 to a conditional write that meets another one: whether the key is taken is not known then."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from meibo.archive.storage import S3ArchiveStore
from meibo.changes.messages import QueueMessage
from meibo.changes.outcomes import MessageOutcomes, Outcome
from meibo.errors import AwsBusyError


class World:
    """A store whose S3 gives the answers that a test prepared, and the seconds that the store waited."""

    def __init__(self) -> None:
        client = boto3.client(
            "s3", region_name="eu-south-1", aws_access_key_id="testing", aws_secret_access_key="testing"
        )
        self.s3 = Stubber(client)
        self.waits: list[float] = []
        self.store = S3ArchiveStore(client, "archive", wait=self.waits.append)

    def answers(self, *codes: tuple[str, int] | None) -> None:
        for code in codes:
            if code is None:
                self.s3.add_response("put_object", {"ETag": '"tag"'})
            else:
                self.s3.add_client_error("put_object", code[0], http_status_code=code[1])


NOW = datetime(2026, 11, 21, 18, tzinfo=UTC)
CONFLICT = ("ConditionalRequestConflict", 409)
TAKEN = ("PreconditionFailed", 412)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    with world.s3:
        yield world
        world.s3.assert_no_pending_responses()


def test_a_write_that_meets_another_one_is_repeated_with_backoff(world: World) -> None:
    world.answers(CONFLICT, CONFLICT, CONFLICT, None)

    assert world.store.put_json("runs/_plan.json", {}) is True

    assert len(world.waits) == 3
    assert all(later >= earlier for earlier, later in zip(world.waits, world.waits[1:], strict=False))


def test_a_key_is_taken_only_once_the_other_write_succeeded(world: World) -> None:
    world.answers(CONFLICT, TAKEN)

    assert world.store.put_json("runs/_plan.json", {}) is False


def test_a_taken_key_is_not_written_again(world: World) -> None:
    world.answers(TAKEN)

    assert world.store.put_json("runs/_plan.json", {}) is False
    assert world.waits == []


def test_a_write_that_always_meets_another_one_is_aws_being_busy(world: World) -> None:
    world.answers(*[CONFLICT] * 8)

    with pytest.raises(AwsBusyError, match="PutObject with 409 8 times"):
        world.store.put_json("runs/_plan.json", {})
    assert sum(world.waits) < 60


def test_another_error_is_not_repeated(world: World) -> None:
    world.answers(("AccessDenied", 403))

    with pytest.raises(ClientError, match="AccessDenied"):
        world.store.put_json("runs/_plan.json", {})
    assert world.waits == []


def test_a_record_waits_until_the_other_write_ends(world: World) -> None:
    # given: two invocations write the first part of a record at the same time, and the other one fails
    world.answers(CONFLICT, CONFLICT, None)
    message = QueueMessage("id", "receipt", "{}", "org_0000000000000001", NOW, receive_count=1)
    outcomes = MessageOutcomes(world.store, message, {"source": "acme"})
    outcomes.add(Outcome("auth0|1", "applied", NOW))

    # when
    written = outcomes.write()

    # then
    assert written
    assert outcomes.by_member["auth0|1"].kind == "applied"
    assert len(world.waits) == 2
