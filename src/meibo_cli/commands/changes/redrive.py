"""``meibo changes redrive``: move DLQ messages back to the queue of changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from botocore.exceptions import ClientError

from meibo.changes.messages import Change, InvalidChange, parse_change
from meibo.changes.queue import REASON_ATTRIBUTE
from meibo.errors import ConfigurationError
from meibo.formatting import format_count, format_number
from meibo_cli.exit_codes import EXIT_DIFFERENT
from meibo_cli.files import STDOUT, new_file
from meibo_cli.stack import DEFAULT_STACK, Queues, StackOption, queues_of
from meibo_cli.terminal import Column, TextConsole, escape_control_characters, print_table, printable

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

# Visibility timeout of a DLQ message after it is received. It is set again before the message is moved.
HIDDEN_SECONDS: Final = 300
_COLUMNS: Final = (
    Column("change"),
    Column("organization"),
    Column("action"),
    Column("members", number=True),
    Column("reason", wraps=True),
)
# The receipt handle of a FIFO queue expires with the visibility timeout.
# https://repost.aws/knowledge-center/sqs-receipt-handle-error
_EXPIRED_RECEIPT: Final = frozenset(
    {
        "InvalidParameterValue",
        "ReceiptHandleIsInvalid",
        "MessageNotInflight",
        "AWS.SimpleQueueService.MessageNotInflight",
    }
)


@dataclass(frozen=True)
class StoredDeadLetter:
    """A DLQ message from the queue, or from a file with corrected messages. A message from a file has no receipt."""

    id: str
    body: str = field(repr=False)
    reason: str
    receipt: str | None = field(default=None, repr=False)

    @property
    def change(self) -> Change | InvalidChange:
        """The change as the Lambda function parses it. The limit on removals and the MessageGroupId are not checked."""
        return parse_change(self.body)


def redrive(
    stack: StackOption = DEFAULT_STACK,
    change_id: Annotated[str, typer.Option("--change-id", help="Move only the DLQ messages of this change.")] = "",
    output: Annotated[
        Path | None,
        typer.Option("--take", help="Move DLQ messages that are not valid changes to this new file."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", exists=True, dir_okay=False, help="Send the corrected DLQ messages of this file."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Move without confirmation.")] = False,
) -> None:
    """Move DLQ messages back to the queue after the cause of their rejection is fixed.

    A DLQ message contains only the members that were rejected. DLQ messages that are not valid changes remain in the
    DLQ, or are moved to a file with --take. Correct them in the file, and send them with --from.
    """
    if output and (output == STDOUT or output.exists()):
        raise ConfigurationError(f"--take: expected the name of a new file, found {str(output)!r}")
    console = TextConsole()
    queues = queues_of(stack)
    dead_letters = list(_of_file(source) if source else _of_queue(queues))
    selected = [dead_letter for dead_letter in dead_letters if change_id in ("", dead_letter.change.change_id)]
    valid = [dead_letter for dead_letter in selected if not isinstance(dead_letter.change, InvalidChange)]
    invalid = [dead_letter for dead_letter in selected if isinstance(dead_letter.change, InvalidChange)]
    _show(queues, [dead_letter for dead_letter in dead_letters if dead_letter not in selected])
    if not selected:
        console.print("no matching DLQ messages")
        return
    print_table(console, _COLUMNS, list(map(_row, selected)))
    if source and invalid:
        raise ConfigurationError(
            "--from: the file contains invalid changes; correct them and run the command again. Nothing was sent"
        )
    try:
        is_confirmed = yes or typer.confirm(f"Move {len(valid)} of {format_count(len(selected), 'message')}?", err=True)
    except typer.Abort:
        _show(queues, selected)
        raise
    if not is_confirmed:
        _show(queues, selected)
        raise ConfigurationError("nothing was moved")
    sent = _send(queues, valid)
    saved = 0
    if output and invalid:
        saved = _save(queues, invalid, output)
    else:
        _show(queues, invalid)
    remaining = queues.count_dead_letters() - (0 if output else len(invalid))
    console.print(f"moved {sent} to the queue" + (f", {saved} to {printable(output)}" if saved else ""))
    if missing := len(valid) - sent + (len(invalid) - saved if output else 0):
        console.print(f"another command received or moved {format_count(missing, 'message')}; run the command again")
    elif remaining > 0:
        # SQS returns at most ten messages of a group before the first of them are deleted.
        console.print(f"{format_count(remaining, 'message')} left in the DLQ; run the command again")
    if invalid and not output:
        invalid_changes = format_count(len(invalid), "invalid change")
        console.print(f"{invalid_changes} left in the DLQ; --take FILE moves invalid changes to a file")
    if missing or (invalid and not output):
        raise typer.Exit(EXIT_DIFFERENT)


def _send(queues: Queues, dead_letters: Sequence[StoredDeadLetter]) -> int:
    """Move DLQ messages to the queue of changes and return how many were moved."""
    count = 0
    for dead_letter in _received(queues, dead_letters):
        change = dead_letter.change
        if not isinstance(change, InvalidChange):
            queues.send(change, deduplication_id=dead_letter.id)
            _delete(queues, dead_letter)
            count += 1
    return count


def _save(queues: Queues, dead_letters: Sequence[StoredDeadLetter], path: Path) -> int:
    """Move DLQ messages to a file and return how many were moved."""
    received = list(_received(queues, dead_letters))
    _write(path, received)
    for dead_letter in received:
        _delete(queues, dead_letter)
    return len(received)


def _received(queues: Queues, dead_letters: Sequence[StoredDeadLetter]) -> Iterator[StoredDeadLetter]:
    """Yield each DLQ message, hidden for another ``HIDDEN_SECONDS``, so that it can be moved and deleted.

    A DLQ message whose receipt has expired, for example because the prompt was not answered in time, is received again.
    It is not yielded if it is no longer on the queue, or if another command has received it.
    """
    pending, received_again = list(dead_letters), False
    while pending:
        expired: set[str] = set()
        for dead_letter in pending:
            if _change_visibility(queues, dead_letter, HIDDEN_SECONDS):
                yield dead_letter
            else:
                expired.add(dead_letter.id)
        if not expired or (received_again and len(expired) == len(pending)):
            return
        received = list(_of_queue(queues))
        _show(queues, [dead_letter for dead_letter in received if dead_letter.id not in expired])
        pending, received_again = [dead_letter for dead_letter in received if dead_letter.id in expired], True


def _change_visibility(queues: Queues, dead_letter: StoredDeadLetter, seconds: int) -> bool:
    """Set the visibility timeout of a DLQ message; return False if its receipt has expired."""
    if dead_letter.receipt is None:
        return True
    try:
        queues.client.change_message_visibility(
            QueueUrl=queues.dead_letters, ReceiptHandle=dead_letter.receipt, VisibilityTimeout=seconds
        )
    except ClientError as error:
        if error.response["Error"]["Code"] in _EXPIRED_RECEIPT:
            return False
        raise
    return True


def _show(queues: Queues, dead_letters: Sequence[StoredDeadLetter]) -> None:
    """Make DLQ messages visible immediately."""
    for dead_letter in dead_letters:
        _change_visibility(queues, dead_letter, 0)


def _of_queue(queues: Queues) -> Iterator[StoredDeadLetter]:
    while messages := _receive(queues):
        for message in messages:
            attribute = message.get("MessageAttributes", {}).get(REASON_ATTRIBUTE)
            reason = (
                attribute.get("StringValue", "") if attribute else "no outcome after the maximum number of receives"
            )
            yield StoredDeadLetter(message["MessageId"], message["Body"], reason, message["ReceiptHandle"])


def _receive(queues: Queues) -> list[MessageTypeDef]:
    return queues.client.receive_message(
        QueueUrl=queues.dead_letters,
        MaxNumberOfMessages=10,
        VisibilityTimeout=HIDDEN_SECONDS,
        MessageAttributeNames=["All"],
    ).get("Messages", [])


def _of_file(path: Path) -> Iterator[StoredDeadLetter]:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            body = document["change"]
            text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
            yield StoredDeadLetter(str(document["message_id"]), text, str(document.get("reason", "")))
        except (ValueError, KeyError, TypeError):
            raise ConfigurationError(
                f"{path.name}, line {number}: expected a DLQ message as written by --take"
            ) from None


def _write(path: Path, dead_letters: Sequence[StoredDeadLetter]) -> None:
    # The file is complete and on disk before the DLQ messages are deleted. It contains user ids and e-mail addresses.
    with new_file(path) as file:
        for dead_letter in dead_letters:
            try:
                change: Any = json.loads(dead_letter.body)
            except (ValueError, RecursionError):
                change = dead_letter.body
            line = {"message_id": dead_letter.id, "reason": dead_letter.reason, "change": change}
            file.write(f"{escape_control_characters(json.dumps(line, ensure_ascii=False))}\n".encode())


def _delete(queues: Queues, dead_letter: StoredDeadLetter) -> None:
    if dead_letter.receipt:
        queues.client.delete_message(QueueUrl=queues.dead_letters, ReceiptHandle=dead_letter.receipt)


def _row(dead_letter: StoredDeadLetter) -> tuple[str, ...]:
    change = dead_letter.change
    if isinstance(change, InvalidChange):
        return ("–", "–", "–", "–", f"[red]invalid:[/] {printable(change.reason)}")
    names = (change.change_id, change.organization_id, change.action)
    return (*map(printable, names), format_number(len(change.members)), printable(dead_letter.reason))
