"""``meibo changes redrive``: move DLQ messages to the queue of changes again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from botocore.exceptions import ClientError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from meibo.changes.messages import Change, InvalidChange, parse_change
from meibo.changes.queue import REASON_ATTRIBUTE
from meibo.errors import ConfigurationError
from meibo.formatting import format_count
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_FAILURE, report_errors
from meibo_cli.queues import DEFAULT_STACK, Queues, StackOption, queues_of
from meibo_cli.terminal import escape_control_characters, printable

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

# DLQ messages stay hidden for this time after they were received, and again before each is moved.
HIDDEN_SECONDS: Final = 300
# The receipt handle of a FIFO queue expires with the visibility time-out.
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
    """A DLQ message of the queue, or of a file with corrected messages; then it has no receipt."""

    id: str
    body: str = field(repr=False)
    reason: str
    receipt: str | None = field(default=None, repr=False)

    @property
    def change(self) -> Change | InvalidChange:
        """The change as the function parses it, except that the limit of removals is not checked."""
        return parse_change(self.body)


def redrive(
    stack: StackOption = DEFAULT_STACK,
    change_id: Annotated[str, typer.Option("--change-id", help="Only the DLQ messages of this change.")] = "",
    take: Annotated[
        Path | None,
        typer.Option("--take", help="Move DLQ messages that are not valid changes to this file."),
    ] = None,
    repaired: Annotated[
        Path | None,
        typer.Option("--from", exists=True, dir_okay=False, help="Send the corrected DLQ messages of this file."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Move without confirmation.")] = False,
) -> None:
    """Move DLQ messages to the queue again after the cause of their rejection is fixed.

    A DLQ message has exactly the members that were rejected. DLQ messages that are not valid changes stay on the
    DLQ, or are moved to a file with --take. Correct them there, and send them with --from.
    """
    console = Console(emoji=False)
    with report_errors():
        queues = queues_of(stack)
        letters = list(_of_file(repaired) if repaired else _of_queue(queues))
        chosen = [dead_letter for dead_letter in letters if change_id in ("", dead_letter.change.change_id)]
        valid = [dead_letter for dead_letter in chosen if not isinstance(dead_letter.change, InvalidChange)]
        invalid = [dead_letter for dead_letter in chosen if isinstance(dead_letter.change, InvalidChange)]
        _release(queues, [dead_letter for dead_letter in letters if dead_letter not in chosen])
        if not chosen:
            console.print("no matching DLQ messages")
            return
        console.print(_table(chosen))
        if repaired and invalid:
            typer.echo("the file contains invalid changes and nothing was sent; correct them", err=True)
            raise typer.Exit(EXIT_FAILURE)
        if not yes and not typer.confirm(f"Move {len(valid)} of {len(chosen)}?"):
            _release(queues, chosen)
            raise typer.Exit(EXIT_FAILURE)
        moved = _send(queues, valid)
        if take and invalid:
            taken = _take(queues, invalid, take)
        else:
            taken = 0
            _release(queues, invalid)
        left = queues.count_dead_letters() - (0 if take else len(invalid))
    console.print(f"moved {moved} to the queue" + (f", {taken} to {printable(take)}" if taken else ""))
    if missing := len(valid) - moved + (len(invalid) - taken if take else 0):
        console.print(f"another command received or moved {format_count(missing, 'message')}; run the command again")
    elif left > 0:
        # SQS returns at most ten messages of a group before the first of them are deleted.
        console.print(f"{format_count(left, 'message')} left in the DLQ; run the command again")
    if invalid and not take:
        remaining = format_count(len(invalid), "invalid change")
        console.print(f"{remaining} left in the DLQ; --take FILE moves invalid changes to a file")
    if missing or (invalid and not take):
        raise typer.Exit(EXIT_DIFFERENT)


def _send(queues: Queues, dead_letters: Sequence[StoredDeadLetter]) -> int:
    """Move DLQ messages to the queue of changes and return how many were moved."""
    moved = 0
    for dead_letter in _held(queues, dead_letters):
        change = dead_letter.change
        if not isinstance(change, InvalidChange):
            queues.send(change, deduplication_id=dead_letter.id)
            _remove(queues, dead_letter)
            moved += 1
    return moved


def _take(queues: Queues, dead_letters: Sequence[StoredDeadLetter], path: Path) -> int:
    """Move DLQ messages to a file and return how many were moved."""
    held = list(_held(queues, dead_letters))
    _write(path, held)
    for dead_letter in held:
        _remove(queues, dead_letter)
    return len(held)


def _held(queues: Queues, dead_letters: Sequence[StoredDeadLetter]) -> Iterator[StoredDeadLetter]:
    """Yield each DLQ message, hidden for another ``HIDDEN_SECONDS``, so that it can be moved and deleted.

    A DLQ message whose receipt has expired, for example because the prompt was not answered in time, is received again.
    It is not yielded if it is no longer on the queue, or if another command holds it.
    """
    pending, received_again = list(dead_letters), False
    while pending:
        expired: set[str] = set()
        for dead_letter in pending:
            if _hide(queues, dead_letter, HIDDEN_SECONDS):
                yield dead_letter
            else:
                expired.add(dead_letter.id)
        if not expired or (received_again and len(expired) == len(pending)):
            return
        received = list(_of_queue(queues))
        _release(queues, [dead_letter for dead_letter in received if dead_letter.id not in expired])
        pending, received_again = [dead_letter for dead_letter in received if dead_letter.id in expired], True


def _hide(queues: Queues, dead_letter: StoredDeadLetter, seconds: int) -> bool:
    """Hide a DLQ message for this many seconds from now; return False if its receipt has expired."""
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


def _release(queues: Queues, dead_letters: Sequence[StoredDeadLetter]) -> None:
    """Make DLQ messages visible immediately."""
    for dead_letter in dead_letters:
        _hide(queues, dead_letter, 0)


def _of_queue(queues: Queues) -> Iterator[StoredDeadLetter]:
    while messages := _receive(queues):
        for message in messages:
            attribute = message.get("MessageAttributes", {}).get(REASON_ATTRIBUTE)
            reason = (
                attribute.get("StringValue", "")
                if attribute
                else "exceeded the receives of the queue without an outcome"
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
    # The DLQ messages are deleted from the queue afterwards: an existing file is not overwritten, and the data is on
    # disk before. They contain user ids and e-mail addresses, so only the owner may read the file.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        for dead_letter in dead_letters:
            try:
                change: Any = json.loads(dead_letter.body)
            except (ValueError, RecursionError):
                change = dead_letter.body
            line = {"message_id": dead_letter.id, "reason": dead_letter.reason, "change": change}
            file.write(escape_control_characters(json.dumps(line, ensure_ascii=False)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _remove(queues: Queues, dead_letter: StoredDeadLetter) -> None:
    if dead_letter.receipt:
        queues.client.delete_message(QueueUrl=queues.dead_letters, ReceiptHandle=dead_letter.receipt)


def _table(dead_letters: Sequence[StoredDeadLetter]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("change", "organization", "action"):
        table.add_column(name, overflow="fold")
    table.add_column("members", justify="right")
    table.add_column("reason", overflow="fold")
    for dead_letter in dead_letters:
        change = dead_letter.change
        if isinstance(change, InvalidChange):
            table.add_row("–", "–", "–", "–", f"[red]is not valid:[/] {printable(change.reason)}")
        else:
            table.add_row(
                printable(change.change_id),
                printable(change.organization_id),
                change.action,
                f"{len(change.members):,}",
                printable(dead_letter.reason),
            )
    return table
