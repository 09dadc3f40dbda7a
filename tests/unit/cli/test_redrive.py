"""Dead letters are moved once, also if the prompt stays unanswered for longer than they stay hidden."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner, Result

from meibo_cli.commands.changes import redrive
from meibo_cli.main import app
from meibo_cli.queues import Queues

ORGANIZATION = "org_0000000000000001"
Redrive = Callable[..., Result]


@dataclass
class Message:
    id: str
    group: str
    body: str
    reason: str
    receipt: str = ""
    visible_at: float = 0.0


@dataclass
class Sqs:
    """Both FIFO queues as SQS behaves.

    An expired receipt handle neither deletes nor hides a message, and a group with a hidden message is not received.
    """

    now: float = 0.0
    letters: list[Message] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    receives: int = 0

    def add(self, body: str, reason: str = "refused", group: str = ORGANIZATION) -> None:
        self.letters.append(Message(f"m-{len(self.letters)}", group, body, reason))

    def receive_message(self, **request: Any) -> dict[str, Any]:
        blocked = {letter.group for letter in self.letters if letter.visible_at > self.now}
        found = [letter for letter in self.letters if letter.group not in blocked][:10]
        for letter in found:
            self.receives += 1
            letter.receipt = f"{letter.id}/{self.receives}"
            letter.visible_at = self.now + request["VisibilityTimeout"]
        return {
            "Messages": [
                {
                    "MessageId": letter.id,
                    "Body": letter.body,
                    "ReceiptHandle": letter.receipt,
                    "MessageAttributes": {"MeiboReason": {"DataType": "String", "StringValue": letter.reason}},
                }
                for letter in found
            ]
        }

    def _held(self, receipt: str, operation: str) -> Message:
        for letter in self.letters:
            if letter.receipt == receipt and letter.visible_at > self.now:
                return letter
        message = f"Value {receipt} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."
        raise ClientError({"Error": {"Code": "InvalidParameterValue", "Message": message}}, operation)

    def change_message_visibility(self, **request: Any) -> None:
        letter = self._held(request["ReceiptHandle"], "ChangeMessageVisibility")
        letter.visible_at = self.now + request["VisibilityTimeout"]

    def delete_message(self, **request: Any) -> None:
        self.letters.remove(self._held(request["ReceiptHandle"], "DeleteMessage"))

    def send_message(self, **request: Any) -> dict[str, str]:
        self.sent.append(json.loads(request["MessageBody"]))
        return {"MessageId": f"s-{len(self.sent)}"}

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        hidden = sum(letter.visible_at > self.now for letter in self.letters)
        return {
            "Attributes": {
                "ApproximateNumberOfMessages": str(len(self.letters) - hidden),
                "ApproximateNumberOfMessagesNotVisible": str(hidden),
            }
        }


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Sqs:
    fake = Sqs()
    client: Any = fake
    monkeypatch.setattr(redrive, "queues_of", lambda _stack: Queues(client, "changes", "letters"))
    return fake


@pytest.fixture
def run(sqs: Sqs, monkeypatch: pytest.MonkeyPatch) -> Redrive:
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(
        *words: str, answer: bool = True, after: float = 0.0, meanwhile: Callable[[], None] | None = None
    ) -> Result:
        def confirm(_question: str) -> bool:
            sqs.now += after
            if meanwhile:
                meanwhile()
            return answer

        monkeypatch.setattr("typer.confirm", confirm)
        return CliRunner().invoke(app, ["changes", "redrive", *words])

    return invoke


def _change(*members: str, **more: Any) -> str:
    change = {"version": 1, "change_id": "hr-1", "source": "acme", "organization_id": ORGANIZATION, "action": "add"}
    return json.dumps({**change, "members": list(members), **more})


@pytest.mark.parametrize("after", [10.0, 299.0, 301.0, 40_000.0])
def test_letter_is_moved_once_however_late_the_answer_comes(sqs: Sqs, run: Redrive, after: float) -> None:
    # given
    for number in range(12):
        organization = f"org_{number:016d}"
        sqs.add(_change(f"auth0|{number}", organization_id=organization), group=organization)

    # when
    result = run(after=after)

    # then
    assert result.exit_code == 0, result.output
    assert sorted(change["members"][0] for change in sqs.sent) == sorted(f"auth0|{number}" for number in range(12))
    assert sqs.letters == []


def test_letters_that_were_not_listed_are_not_moved_after_a_late_answer(sqs: Sqs, run: Redrive) -> None:
    # given: another change, and a letter that arrives while the prompt waits
    sqs.add(_change("auth0|1"))
    sqs.add(_change("auth0|2", change_id="hr-2"))

    # when
    result = run("--change-id", "hr-1", after=301.0, meanwhile=lambda: sqs.add(_change("auth0|3")))

    # then
    assert result.exit_code == 0, result.output
    assert [change["members"] for change in sqs.sent] == [["auth0|1"]]
    assert [json.loads(letter.body)["members"] for letter in sqs.letters] == [["auth0|2"], ["auth0|3"]]
    assert {letter.visible_at <= sqs.now for letter in sqs.letters} == {True}


def test_letter_that_another_command_moved_meanwhile_is_not_sent_again(sqs: Sqs, run: Redrive) -> None:
    # given
    sqs.add(_change("auth0|1"))
    sqs.add(_change("auth0|2"))

    # when
    result = run(after=301.0, meanwhile=lambda: sqs.letters.pop(0) and None)

    # then
    assert [change["members"] for change in sqs.sent] == [["auth0|2"]]
    assert result.exit_code == 1
    assert "1 were not moved" in result.output


def test_sending_that_takes_longer_than_letters_stay_hidden_moves_each_once(
    sqs: Sqs, run: Redrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: a slow connection
    for number in range(5):
        sqs.add(_change(f"auth0|{number}"))
    send = sqs.send_message

    def slow(**arguments: Any) -> dict[str, str]:
        sqs.now += 200
        return send(**arguments)

    monkeypatch.setattr(sqs, "send_message", slow)

    # when
    result = run("--yes")

    # then
    assert result.exit_code == 0, result.output
    assert sorted(change["members"][0] for change in sqs.sent) == [f"auth0|{number}" for number in range(5)]
    assert sqs.letters == []


def test_refused_prompt_leaves_every_letter_visible(sqs: Sqs, run: Redrive) -> None:
    sqs.add(_change("auth0|1"))

    result = run(answer=False, after=301.0)

    assert result.exit_code == 2
    assert sqs.sent == []
    assert [letter.visible_at <= sqs.now for letter in sqs.letters] == [True]


def test_letters_are_taken_to_a_private_file_once_after_a_late_answer(sqs: Sqs, run: Redrive, tmp_path: Path) -> None:
    # given: what is no change, and what is no text in UTF-8
    sqs.add("{broken")
    sqs.add(_change("auth0|\ud83d"))
    path = tmp_path / "letters.ndjson"

    # when
    result = run("--take", str(path), after=301.0)

    # then
    assert result.exit_code == 0, result.output
    assert sqs.letters == []
    taken = [json.loads(line)["change"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert taken == ["{broken", json.loads(_change("auth0|\ud83d"))]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_text_of_the_queue_does_not_control_the_terminal(sqs: Sqs, run: Redrive) -> None:
    # given: a reason of markup, an emoji code and terminal escapes
    sqs.add(_change("auth0|1"), reason="[/x][red]:cat:\x1b]0;title\x07\u202e")

    # when
    result = run("--yes")

    # then
    assert result.exit_code == 0, result.output
    assert "[/x][red]:cat:\\u001b]0;title\\u0007\\u202e" in result.output
    assert "\x1b" not in result.output
