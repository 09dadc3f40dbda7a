"""``meibo changes``: send a file, show outcomes, and redrive DLQ messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from meibo_cli.main import app
from tests.integration.changes.conftest import ChangesSystem

Meibo = Callable[..., Result]
UNKNOWN = "auth0|0000000000000000000000ff"


@pytest.fixture
def meibo(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()

    def invoke(*words: str, answer: str | None = None) -> Result:
        return runner.invoke(app, ["changes", *words], input=answer)

    return invoke


def _file(folder: Path, *rows: str, header: str = "organization,action,member,roles") -> str:
    path = folder / "joiners.csv"
    path.write_text("\ufeff" + "\r\n".join([header, *rows]) + "\r\n", encoding="utf-8")
    return str(path)


def test_file_is_sent_and_its_outcomes_shown(queue: ChangesSystem, meibo: Meibo, tmp_path: Path) -> None:
    # given: additions by id, by e-mail address and with a role, and a removal
    users = list(queue.tenant.expected_users())[:4]
    first, other = queue.organizations[:2]
    path = _file(
        tmp_path,
        f"{first},add,{users[0]['user_id']},",
        f"{first},add,{users[1]['email']},",
        f"{other},add,{users[2]['user_id']},{queue.roles[0]}",
        f"{other},remove,{users[3]['user_id']},",
    )

    sent = meibo("send", path, "--source", "acme", "--change-id", "hr-7", "--confirm-removals", "1", "--yes")
    queue.drain()
    shown = meibo("outcome", "hr-7", "--archive", f"s3://{queue.aws.bucket}")

    assert sent.exit_code == 0, sent.output
    assert "sent 3 messages" in sent.output
    assert shown.exit_code == 0, shown.output
    assert "4 applied" in shown.output
    assert queue.members() == {users[0]["user_id"], users[1]["user_id"]}


def test_file_with_an_invalid_line_is_not_sent(queue: ChangesSystem, meibo: Meibo, tmp_path: Path) -> None:
    line = f"{queue.organization},add,{queue.user_ids[0]},"
    path = _file(
        tmp_path,
        line,
        line,
        "org_short,add,auth0|x,",
        f"{queue.organization},ad,auth0|y,",
        f"{queue.organization},add,missing@example.invalid,",
    )

    sent = meibo("send", path, "--source", "acme", "--yes")

    assert sent.exit_code == 2
    faults = {line.partition(":")[0]: line for line in sent.output.splitlines()}
    assert "expected one row per organization and member, but line 2 is the same; keep one of them" in faults["line 3"]
    assert "organization_id: expected the id of an organization, such as org_0123456789abcdef" in faults["line 4"]
    assert "action: expected add, remove or invite" in faults["line 5"]
    assert "no user has this e-mail address" in faults["line 6"]
    assert "line 2" not in faults
    assert "missing@" not in sent.output
    assert queue.aws.changes.source.queue.size() == 0


@pytest.mark.parametrize(("typed", "messages"), [("2\n", 1), ("3\n", 0), ("\n", 0)])
def test_removals_are_sent_after_their_number_was_entered(
    queue: ChangesSystem, meibo: Meibo, tmp_path: Path, typed: str, messages: int
) -> None:
    rows = [f"{queue.organization},remove,{person}," for person in queue.user_ids[:2]]

    sent = meibo("send", _file(tmp_path, *rows), "--source", "acme", answer=typed)

    assert (sent.exit_code == 0) == bool(messages)
    assert queue.aws.changes.source.queue.size() == messages


def test_repaired_dead_letter_is_redriven(queue: ChangesSystem, meibo: Meibo) -> None:
    # given: a user who does not exist yet, and an invalid change
    queue.send(queue.user_ids[0], UNKNOWN)
    queue.aws.changes.send("{broken", group="none")
    queue.drain()
    queue.tenant.switches.unknown_member = "ignore"

    moved = meibo("redrive", "--yes")
    queue.drain()

    assert moved.exit_code == 1, moved.output
    assert "moved 1 to the queue" in moved.output
    assert "invalid: $: expected valid JSON" in moved.output
    lines = sorted((line for line in queue.lines() if line["member"] == UNKNOWN), key=lambda line: line["sent_at"])
    assert [line["outcome"] for line in lines] == ["rejected", "applied"]
    assert queue.aws.changes.dead_letter_count() == 1


def test_invalid_dead_letter_is_repaired_in_a_file(queue: ChangesSystem, meibo: Meibo, tmp_path: Path) -> None:
    wrong = {**queue.change(queue.user_ids[0]), "version": 2}
    queue.aws.changes.send(wrong)
    queue.drain()
    path = tmp_path / "dlq.ndjson"

    taken = meibo("redrive", "--take", str(path), "--yes")
    (line,) = map(json.loads, path.read_text().splitlines())
    path.write_text(json.dumps({**line, "change": {**line["change"], "version": 1}}))
    moved = meibo("redrive", "--from", str(path), "--yes")
    queue.drain()

    assert taken.exit_code == 0, taken.output
    assert "$.version" in line["reason"]
    assert moved.exit_code == 0, moved.output
    assert queue.members() == {queue.user_ids[0]}
    assert queue.aws.changes.dead_letter_count() == 0
