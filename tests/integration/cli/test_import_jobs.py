"""Import files into a simulated tenant with a fake clock: limits, failures and resumed imports."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meibo.errors import ScopeMissingError
from meibo_cli.restore import import_jobs
from meibo_cli.restore.auth0_imports import create_users_import
from meibo_cli.restore.journal import Journal
from meibo_simulators import FIRST_CONNECTION, faults
from tests.support.imports import ImportTarget, import_target, user


@pytest.fixture
def target() -> Iterator[ImportTarget]:
    with import_target() as target:
        yield target


def states(journal: Journal) -> list[str]:
    return [file.state for file in journal.files]


def requests(target: ImportTarget) -> list[int]:
    return [request.status for request in target.tenant.requests if request.path.endswith("/users-imports")]


def occupy(target: ImportTarget, *, seconds: float) -> None:
    """Start two jobs of another program."""
    target.tenant.switches.import_seconds = seconds
    for _ in range(2):
        target.tenant.jobs.create_import({}, lambda _: None)
    target.tenant.switches.import_seconds = 5


def test_file_waits_while_other_jobs_run(target: ImportTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_jobs, "POLL_SECONDS", 60.0)
    target.journal(tmp_path / "a", files=3)
    occupy(target, seconds=7000)

    journal = target.send(tmp_path / "a")

    assert states(journal) == ["done"] * 3
    assert requests(target).count(202) == 3
    assert len(target.users()) == 6
    assert requests(target).count(429) == 7000 // 60 + 1


def test_file_that_waits_for_more_than_two_hours_can_be_resumed(
    target: ImportTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_jobs, "POLL_SECONDS", 60.0)
    target.journal(tmp_path / "a", files=1)
    occupy(target, seconds=10_000)

    journal = target.send(tmp_path / "a")

    assert states(journal) == ["waiting"]
    assert "returned 429" in (journal.files[0].reason or "")
    assert states(target.send(tmp_path / "a")) == ["done"]
    assert set(target.received.values()) == {1}


def test_no_file_is_sent_after_an_unknown_result(target: ImportTarget, tmp_path: Path) -> None:
    target.journal(tmp_path / "a", files=4)
    target.tenant.faults.add("POST */users-imports", faults.reset(after_processing=True), after=1)

    journal = target.send(tmp_path / "a")

    assert states(journal) == ["done", "uncertain", "waiting", "waiting"]
    assert len(requests(target)) == 2
    assert states(target.send(tmp_path / "a")) == ["done"] * 4
    assert len(requests(target)) == 4
    assert set(target.received.values()) == {1}


def test_no_file_is_sent_after_a_result_that_cannot_be_read(target: ImportTarget, tmp_path: Path) -> None:
    target.journal(tmp_path / "a", files=4)
    target.tenant.faults.add("GET */errors", faults.respond(400, b'{"message":"x"}'))

    journal = target.send(tmp_path / "a")

    assert states(journal) == ["sent", "done", "waiting", "waiting"]
    assert len(requests(target)) == 2
    assert states(target.send(tmp_path / "a")) == ["done"] * 4
    assert len(requests(target)) == 4


def test_rejected_file_is_sent_again_after_the_cause_is_fixed(target: ImportTarget, tmp_path: Path) -> None:
    target.journal(tmp_path / "a", files=2)
    target.tenant.directory.connections[FIRST_CONNECTION].enabled = False

    journal = target.send(tmp_path / "a")

    assert states(journal) == ["failed", "waiting"]
    assert "(400, invalid_body)" in (journal.files[0].reason or "")
    target.tenant.directory.connections[FIRST_CONNECTION].enabled = True
    assert states(target.send(tmp_path / "a")) == ["done", "done"]


def test_users_of_a_failed_job_are_sent_in_a_new_file(target: ImportTarget, tmp_path: Path) -> None:
    target.journal(tmp_path / "a", files=3)
    target.tenant.jobs.fates[0] = "failed"

    journal = target.send(tmp_path / "a")

    assert states(journal) == ["failed", "done", "waiting"]
    assert journal.files[0].reason == "the job ended with the status failed"
    resumed = target.send(tmp_path / "a")
    assert [file.name for file in resumed.files] == [
        *("users-0001.json", "users-0001-rest.json", "users-0002.json", "users-0003.json")
    ]
    assert states(resumed) == ["done"] * 4
    assert resumed.files[0].reason == "0 users found in the tenant"
    assert sum(file.inserted for file in resumed.files) == 6
    assert len(target.users()) == 6


@pytest.mark.parametrize("upsert", [False, True])
def test_result_of_a_deleted_job_is_read_from_the_tenant(target: ImportTarget, tmp_path: Path, upsert: bool) -> None:
    target.journal(tmp_path / "a", files=1, users=3, upsert=upsert)
    target.tenant.switches.job_ttl = 0.0
    assert target.send(tmp_path / "a").files[0].state == "uncertain"
    target.clock.advance(86400)
    assert len(target.users()) == 3
    changed = next(iter(target.tenant.directory.users()))
    target.tenant.directory.put(FIRST_CONNECTION, {**changed, "user_metadata": {"changed": True}})
    target.tenant.switches.job_ttl = 86400.0

    resumed = target.send(tmp_path / "a")

    if upsert:
        assert [(file.updated, file.inserted) for file in resumed.files] == [(2, 0), (1, 0)]
        assert len(json.loads((tmp_path / "a" / "users-0001-rest.json").read_bytes())) == 1
    else:
        assert [(file.inserted, file.failed, file.codes) for file in resumed.files] == [(2, 1, {"DUPLICATED_USER": 1})]
        report = json.loads((tmp_path / "a" / "failed-users-0001.ndjson").read_bytes())
        assert report["user_id"] == user(0)["user_id"]
        assert report["errors"] == [
            {"code": "DUPLICATED_USER", "message": "The tenant has a user with this id and different values."}
        ]


def test_file_that_was_never_received_is_sent_after_the_time_limit_of_a_job(
    target: ImportTarget, tmp_path: Path
) -> None:
    target.journal(tmp_path / "a", files=1)
    target.tenant.faults.add("POST */users-imports", faults.reset())
    assert states(target.send(tmp_path / "a")) == ["uncertain"]
    start = target.clock.now()

    resumed = target.send(tmp_path / "a")

    assert [(file.name, file.state, file.inserted) for file in resumed.files] == [
        ("users-0001.json", "done", 0),
        ("users-0001-rest.json", "done", 2),
    ]
    assert target.clock.now() - start >= import_jobs.MAX_JOB_SECONDS
    assert len(target.users()) == 2


def test_reasons_of_long_waits_are_reported(target: ImportTarget, tmp_path: Path) -> None:
    target.journal(tmp_path / "a", files=1)
    target.tenant.faults.add("POST */users-imports", faults.reset())
    target.send(tmp_path / "a")
    occupy(target, seconds=import_jobs.MAX_JOB_SECONDS + 60)
    messages: list[str] = []

    import_jobs.send(target.client(), Journal.read(tmp_path / "a"), clock=target.clock, notify=messages.append)

    assert len(messages) == 2
    assert messages[0].startswith("users-0001.json: 2 users not in the tenant yet; waiting until 2027-01-15 ")
    assert messages[1] == "Auth0 does not accept another import job at present; waiting for a running import job to end"


def test_missing_scope_is_named_before_a_file_is_sent_again(target: ImportTarget, tmp_path: Path) -> None:
    target.journal(tmp_path / "a", files=1)
    target.tenant.faults.add("POST */users-imports", faults.reset(after_processing=True))
    target.send(tmp_path / "a")
    client = target.tenant.limited_client("create:users")
    target.tenant.credentials = lambda: client  # type: ignore[method-assign]

    with pytest.raises(ScopeMissingError, match="read:users"):
        target.send(tmp_path / "a")

    target.clock.advance(5)
    assert len(target.users()) == 2
    assert set(target.received.values()) == {1}


def test_interrupt_is_delayed_until_the_response_is_recorded(
    target: ImportTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return create_users_import(*arguments, **options)

    target.journal(tmp_path / "a", files=2)
    with monkeypatch.context() as patch:
        patch.setattr(import_jobs, "create_users_import", interrupted)
        with pytest.raises(KeyboardInterrupt):
            target.send(tmp_path / "a")

    assert states(Journal.read(tmp_path / "a")) == ["sent", "waiting"]
    assert states(target.send(tmp_path / "a")) == ["done", "done"]
    assert set(target.received.values()) == {1}
