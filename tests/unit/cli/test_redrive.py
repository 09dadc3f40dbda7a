"""DLQ messages are redriven once, even if the confirmation takes longer than their visibility timeout."""

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
from meibo_cli.stack import Queues

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
    """The FIFO queue and its DLQ, with the behavior of SQS.

    An expired receipt handle neither deletes nor hides a message. A group with a hidden message is not received.
    """

    now: float = 0.0
    messages: list[Message] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    receives: int = 0

    def add(self, body: str, reason: str = "refused", group: str = ORGANIZATION) -> None:
        self.messages.append(Message(f"m-{len(self.messages)}", group, body, reason))

    def receive_message(self, **request: Any) -> dict[str, Any]:
        blocked = {message.group for message in self.messages if message.visible_at > self.now}
        received = [message for message in self.messages if message.group not in blocked][:10]
        for message in received:
            self.receives += 1
            message.receipt = f"{message.id}/{self.receives}"
            message.visible_at = self.now + request["VisibilityTimeout"]
        return {
            "Messages": [
                {
                    "MessageId": message.id,
                    "Body": message.body,
                    "ReceiptHandle": message.receipt,
                    "MessageAttributes": {"MeiboReason": {"DataType": "String", "StringValue": message.reason}},
                }
                for message in received
            ]
        }

    def _held(self, receipt: str, operation: str) -> Message:
        for message in self.messages:
            if message.receipt == receipt and message.visible_at > self.now:
                return message
        reason = f"Value {receipt} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."
        raise ClientError({"Error": {"Code": "InvalidParameterValue", "Message": reason}}, operation)

    def change_message_visibility(self, **request: Any) -> None:
        message = self._held(request["ReceiptHandle"], "ChangeMessageVisibility")
        message.visible_at = self.now + request["VisibilityTimeout"]

    def delete_message(self, **request: Any) -> None:
        self.messages.remove(self._held(request["ReceiptHandle"], "DeleteMessage"))

    def send_message(self, **request: Any) -> dict[str, str]:
        self.sent.append(json.loads(request["MessageBody"]))
        return {"MessageId": f"s-{len(self.sent)}"}

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        hidden = sum(message.visible_at > self.now for message in self.messages)
        return {
            "Attributes": {
                "ApproximateNumberOfMessages": str(len(self.messages) - hidden),
                "ApproximateNumberOfMessagesNotVisible": str(hidden),
            }
        }


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Sqs:
    fake = Sqs()
    client: Any = fake
    monkeypatch.setattr(redrive, "queues_of", lambda _stack: Queues(client, "changes", "dead-letters"))
    return fake


@pytest.fixture
def run(sqs: Sqs, monkeypatch: pytest.MonkeyPatch) -> Redrive:
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(
        *words: str, answer: bool = True, after: float = 0.0, meanwhile: Callable[[], None] | None = None
    ) -> Result:
        def confirm(_question: str, *, err: bool) -> bool:
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
def test_message_is_moved_once_however_late_the_prompt_is_answered(sqs: Sqs, run: Redrive, after: float) -> None:
    for number in range(12):
        organization = f"org_{number:016d}"
        sqs.add(_change(f"auth0|{number}", organization_id=organization), group=organization)

    result = run(after=after)

    assert result.exit_code == 0, result.output
    assert sorted(change["members"][0] for change in sqs.sent) == sorted(f"auth0|{number}" for number in range(12))
    assert sqs.messages == []


def test_messages_that_were_not_listed_are_not_moved_after_a_late_answer(sqs: Sqs, run: Redrive) -> None:
    # given: another change, and a message that arrives while the prompt waits
    sqs.add(_change("auth0|1"))
    sqs.add(_change("auth0|2", change_id="hr-2"))

    result = run("--change-id", "hr-1", after=301.0, meanwhile=lambda: sqs.add(_change("auth0|3")))

    assert result.exit_code == 0, result.output
    assert [change["members"] for change in sqs.sent] == [["auth0|1"]]
    assert [json.loads(message.body)["members"] for message in sqs.messages] == [["auth0|2"], ["auth0|3"]]
    assert {message.visible_at <= sqs.now for message in sqs.messages} == {True}


def test_message_that_another_command_moved_is_not_sent_again(sqs: Sqs, run: Redrive) -> None:
    sqs.add(_change("auth0|1"))
    sqs.add(_change("auth0|2"))

    result = run(after=301.0, meanwhile=lambda: sqs.messages.pop(0) and None)

    assert [change["members"] for change in sqs.sent] == [["auth0|2"]]
    assert result.exit_code == 1
    assert "another command received or moved 1 message; run the command again" in " ".join(result.output.split())


def test_sending_longer_than_the_visibility_timeout_moves_each_message_once(
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

    result = run("--yes")

    assert result.exit_code == 0, result.output
    assert sorted(change["members"][0] for change in sqs.sent) == [f"auth0|{number}" for number in range(5)]
    assert sqs.messages == []


def test_declined_prompt_leaves_every_message_visible(sqs: Sqs, run: Redrive) -> None:
    sqs.add(_change("auth0|1"))

    result = run(answer=False, after=301.0)

    assert result.exit_code == 2
    assert sqs.sent == []
    assert [message.visible_at <= sqs.now for message in sqs.messages] == [True]


def test_messages_are_moved_to_a_private_file_once_after_a_late_answer(sqs: Sqs, run: Redrive, tmp_path: Path) -> None:
    # given: a message that is not a change, and a message that is not valid UTF-8
    sqs.add("{broken")
    sqs.add(_change("auth0|\ud83d"))
    path = tmp_path / "rejected.ndjson"

    result = run("--take", str(path), after=301.0)

    assert result.exit_code == 0, result.output
    assert sqs.messages == []
    moved = [json.loads(line)["change"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert moved == ["{broken", json.loads(_change("auth0|\ud83d"))]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_text_of_the_queue_does_not_control_the_terminal(sqs: Sqs, run: Redrive) -> None:
    # given: a reason that contains markup, an emoji code and terminal escape sequences
    sqs.add(_change("auth0|1"), reason="[/x][red]:cat:\x1b]0;title\x07\u202e")

    result = run("--yes")

    assert result.exit_code == 0, result.output
    assert "[/x][red]:cat:\\u001b]0;title\\u0007\\u202e" in result.output
    assert "\x1b" not in result.output
