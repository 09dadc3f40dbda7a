"""S3 returns 409 to concurrent conditional writes of a key. The key may or may not exist afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from meibo.archive.outcomes import Outcome
from meibo.archive.storage import S3Storage
from meibo.changes.messages import InvalidChange, QueueMessage
from meibo.changes.outcome_store import OutcomeStore
from meibo.errors import AwsBusyError


class StoreHarness:
    """A store with stubbed S3 responses, and the seconds for which the store waited."""

    def __init__(self) -> None:
        client = boto3.client(
            "s3", region_name="eu-south-1", aws_access_key_id="testing", aws_secret_access_key="testing"
        )
        self.s3 = Stubber(client)
        self.waits: list[float] = []
        self.storage = S3Storage(client, "archive", wait=self.waits.append)

    def add_responses(self, *codes: tuple[str, int] | None) -> None:
        for code in codes:
            if code is None:
                self.s3.add_response("put_object", {"ETag": '"tag"'})
            else:
                self.s3.add_client_error("put_object", code[0], http_status_code=code[1])


NOW = datetime(2026, 11, 21, 18, tzinfo=UTC)
CONFLICT = ("ConditionalRequestConflict", 409)
EXISTS = ("PreconditionFailed", 412)


@pytest.fixture
def harness() -> Iterator[StoreHarness]:
    harness = StoreHarness()
    with harness.s3:
        yield harness
        harness.s3.assert_no_pending_responses()


def test_write_that_conflicts_is_retried_with_backoff(harness: StoreHarness) -> None:
    harness.add_responses(CONFLICT, CONFLICT, CONFLICT, None)

    assert harness.storage.put_json("runs/_plan.json", {}) is True

    assert len(harness.waits) == 3
    assert all(later >= earlier for earlier, later in zip(harness.waits, harness.waits[1:], strict=False))


def test_key_exists_after_the_conflicting_write_succeeded(harness: StoreHarness) -> None:
    harness.add_responses(CONFLICT, EXISTS)

    assert harness.storage.put_json("runs/_plan.json", {}) is False


def test_existing_key_is_not_written_again(harness: StoreHarness) -> None:
    harness.add_responses(EXISTS)

    assert harness.storage.put_json("runs/_plan.json", {}) is False
    assert harness.waits == []


def test_write_that_always_conflicts_is_reported_as_busy_aws(harness: StoreHarness) -> None:
    harness.add_responses(*[CONFLICT] * 8)

    with pytest.raises(AwsBusyError, match="PutObject with 409 8 times"):
        harness.storage.put_json("runs/_plan.json", {})
    assert sum(harness.waits) < 60


def test_other_error_is_not_retried(harness: StoreHarness) -> None:
    harness.add_responses(("AccessDenied", 403))

    with pytest.raises(ClientError, match="AccessDenied"):
        harness.storage.put_json("runs/_plan.json", {})
    assert harness.waits == []


def test_outcome_record_is_written_after_a_conflicting_write_failed(harness: StoreHarness) -> None:
    # given: two invocations write the first part of a record at the same time, and the other write fails
    harness.add_responses(CONFLICT, CONFLICT, None)
    message = QueueMessage("id", "receipt", "{}", "org_0000000000000001", NOW, receive_count=1)
    outcomes = OutcomeStore(harness.storage, message, InvalidChange(faults=(), source="acme"))
    outcomes.add(Outcome("auth0|1", "applied", NOW))

    written = outcomes.write()

    assert written
    assert outcomes.by_member["auth0|1"].kind == "applied"
    assert len(harness.waits) == 2
