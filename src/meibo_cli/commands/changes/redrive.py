"""``meibo changes redrive``: move dead letters back to the queue."""

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

from meibo.changes.dead_letters import REASON_ATTRIBUTE
from meibo.changes.messages import MAX_MEMBERS, ParsedMessage, parse_change
from meibo.errors import ConfigurationError
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_FAILURE, report_errors
from meibo_cli.queues import DEFAULT_STACK, Queues, StackOption, queues_of
from meibo_cli.terminal import escape_control_characters, printable

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

# Letters stay hidden for so long after they were received, and again before each one is moved.
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
class Letter:
    """One dead letter, or one line of a file of repaired ones."""

    id: str
    body: str = field(repr=False)
    reason: str
    receipt: str | None = field(default=None, repr=False)

    @property
    def reading(self) -> ParsedMessage:
        """The letter as the queue will read it; the guard on removals stays the queue's own."""
        return parse_change(self.body, max_removals=MAX_MEMBERS)

    @property
    def change_id(self) -> str | None:
        """The change's id, also of a letter that is not a valid change."""
        return self.reading.document.get("change_id")


def redrive(
    stack: StackOption = DEFAULT_STACK,
    change_id: Annotated[str, typer.Option("--change-id", help="Only the letters of this change.")] = "",
    take: Annotated[
        Path | None,
        typer.Option("--take", help="Move letters that cannot be sent as they are to this file, to repair."),
    ] = None,
    repaired: Annotated[
        Path | None, typer.Option("--from", exists=True, dir_okay=False, help="Send the repaired letters of this file.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Move without asking.")] = False,
) -> None:
    """Move dead letters back to the queue after the cause of their rejection is fixed.

    A letter holds exactly the members that were rejected. Letters that are not a valid change stay on the dead-letter
    queue, or are moved to a file with --take; repaired there, they are sent with --from.
    """
    console = Console(emoji=False)
    with report_errors():
        queues = queues_of(stack)
        letters = list(_of_file(repaired) if repaired else _of_queue(queues))
        chosen = [letter for letter in letters if not change_id or letter.change_id == change_id]
        valid = [letter for letter in chosen if letter.reading.change]
        invalid = [letter for letter in chosen if not letter.reading.change]
        _release(queues, [letter for letter in letters if change_id and letter.change_id != change_id])
        if not chosen:
            console.print("there are no such dead letters")
            return
        console.print(_table(chosen))
        if repaired and invalid:
            typer.echo("the file still has faults; nothing was sent", err=True)
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
        left = queues.letters() - (0 if take else len(invalid))
    console.print(f"moved {moved} back to the queue" + (f", {taken} to {printable(take)}" if taken else ""))
    if missing := len(valid) - moved + (len(invalid) - taken if take else 0):
        console.print(f"{missing} were not moved: another command holds them or has moved them; run it again")
    elif left > 0:
        # Of one organization's letters SQS returns at most ten at a time.
        console.print(f"{left} more were hidden behind these: run it again")
    if invalid and not take:
        console.print(f"{len(invalid)} are no valid change and stay; --take FILE moves them to a file, to be repaired")
    if missing or (invalid and not take):
        raise typer.Exit(EXIT_DIFFERENT)


def _send(queues: Queues, letters: Sequence[Letter]) -> int:
    """Move letters back to the queue and return how many were moved."""
    moved = 0
    for letter in _held(queues, letters):
        queues.send(_without_rejections(letter), unique=letter.id)
        _remove(queues, letter)
        moved += 1
    return moved


def _take(queues: Queues, letters: Sequence[Letter], path: Path) -> int:
    """Move letters to a file and return how many were moved."""
    held = list(_held(queues, letters))
    _write(path, held)
    for letter in held:
        _remove(queues, letter)
    return len(held)


def _held(queues: Queues, letters: Sequence[Letter]) -> Iterator[Letter]:
    """Yield each letter, hidden for another ``HIDDEN_SECONDS``, so that it can be moved and deleted.

    A letter whose receipt has expired, for example because the prompt stayed unanswered, is received again. One that
    is not on the queue any more, or that another command holds, is not yielded.
    """
    pending, received_again = list(letters), False
    while pending:
        expired: set[str] = set()
        for letter in pending:
            if _hide(queues, letter, HIDDEN_SECONDS):
                yield letter
            else:
                expired.add(letter.id)
        if not expired or (received_again and len(expired) == len(pending)):
            return
        received = list(_of_queue(queues))
        _release(queues, [letter for letter in received if letter.id not in expired])
        pending, received_again = [letter for letter in received if letter.id in expired], True


def _hide(queues: Queues, letter: Letter, seconds: int) -> bool:
    """Hide a letter for so many seconds from now; return False if its receipt has expired."""
    if letter.receipt is None:
        return True
    try:
        queues.client.change_message_visibility(
            QueueUrl=queues.dead_letters, ReceiptHandle=letter.receipt, VisibilityTimeout=seconds
        )
    except ClientError as error:
        if error.response["Error"]["Code"] in _EXPIRED_RECEIPT:
            return False
        raise
    return True


def _release(queues: Queues, letters: Sequence[Letter]) -> None:
    """Make letters visible again at once."""
    for letter in letters:
        _hide(queues, letter, 0)


def _of_queue(queues: Queues) -> Iterator[Letter]:
    while messages := _receive(queues):
        for message in messages:
            attribute = message.get("MessageAttributes", {}).get(REASON_ATTRIBUTE)
            reason = attribute.get("StringValue", "") if attribute else "was received too often without an outcome"
            yield Letter(message["MessageId"], message["Body"], reason, message["ReceiptHandle"])


def _receive(queues: Queues) -> list[MessageTypeDef]:
    return queues.client.receive_message(
        QueueUrl=queues.dead_letters,
        MaxNumberOfMessages=10,
        VisibilityTimeout=HIDDEN_SECONDS,
        MessageAttributeNames=["All"],
    ).get("Messages", [])


def _of_file(path: Path) -> Iterator[Letter]:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            body = document["change"]
            text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
            yield Letter(str(document["message_id"]), text, str(document.get("reason", "")))
        except (ValueError, KeyError, TypeError):
            raise ConfigurationError(f"{path.name}, line {number}: is not a letter that --take wrote") from None


def _write(path: Path, letters: Sequence[Letter]) -> None:
    # The letters will be nowhere else: an existing file is not overwritten, and the data is on disk before they are
    # deleted from the queue. They name people, so only the owner may read the file.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        for letter in letters:
            try:
                change: Any = json.loads(letter.body)
            except (ValueError, RecursionError):
                change = letter.body
            line = {"message_id": letter.id, "reason": letter.reason, "change": change}
            file.write(escape_control_characters(json.dumps(line, ensure_ascii=False)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _without_rejections(letter: Letter) -> dict[str, Any]:
    return {name: value for name, value in letter.reading.document.items() if name != "rejections"}


def _remove(queues: Queues, letter: Letter) -> None:
    if letter.receipt:
        queues.client.delete_message(QueueUrl=queues.dead_letters, ReceiptHandle=letter.receipt)


def _table(letters: Sequence[Letter]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("change", "organization", "action"):
        table.add_column(name, overflow="fold")
    table.add_column("members", justify="right")
    table.add_column("reason", overflow="fold")
    for letter in letters:
        reading = letter.reading
        change = reading.change
        table.add_row(
            printable(change.change_id) if change else "–",
            printable(change.organization_id) if change else "–",
            change.action if change else "–",
            f"{len(change.members):,}" if change else "–",
            printable(letter.reason) if change else f"[red]cannot be sent:[/] {printable(reading.reason)}",
        )
    return table
