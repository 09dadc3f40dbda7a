"""``meibo changes redrive``: repaired dead letters back to the queue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from meibo.errors import ConfigurationError
from meibo.members.change import MOST_MEMBERS, Reading, read_change
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cli.changes.queues import DEFAULT_STACK, Queues, StackOption, queues_of
from cli.ending import COULD_NOT, DIFFERENT, told_plainly

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

# How long letters stay hidden while a person reads the table.
_SECONDS = 300


@dataclass(frozen=True)
class Letter:
    """One dead letter, or one line of a file of repaired ones."""

    id: str
    body: str = field(repr=False)
    reason: str
    receipt: str | None = field(default=None, repr=False)

    @property
    def reading(self) -> Reading:
        """The letter as the queue will read it; the guard on removals stays the queue's own."""
        return read_change(self.body, max_removals=MOST_MEMBERS)


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
    """Move dead letters back to the queue, once what they died of is repaired.

    A letter holds exactly what was rejected, so it does what is missing and nothing else. Letters that are no valid
    change stay, or are moved to a file with --take; repaired there, they are sent with --from.
    """
    console = Console()
    with told_plainly():
        queues = queues_of(stack)
        letters = list(_of_file(repaired) if repaired else _of_queue(queues))
        chosen = [one for one in letters if not change_id or one.reading.document.get("change_id") == change_id]
        good = [one for one in chosen if one.reading.change]
        bad = [one for one in chosen if not one.reading.change]
        _show_again(queues, [one for one in letters if one not in chosen])
        if not chosen:
            console.print("there are no such dead letters")
            return
        console.print(_table(chosen))
        if repaired and bad:
            typer.echo("the file still has faults; nothing was sent", err=True)
            raise typer.Exit(COULD_NOT)
        if not yes and not typer.confirm(f"Move {len(good)} of {len(chosen)}?"):
            _show_again(queues, chosen)
            raise typer.Exit(COULD_NOT)
        for letter in good:
            queues.send(_without_rejections(letter), unique=letter.id)
            _remove(queues, letter)
        if take and not repaired:
            _write(take, bad)
            for letter in bad:
                _remove(queues, letter)
        else:
            _show_again(queues, bad)
    # Of one organization's letters SQS shows no more than ten at a time.
    left = queues.letters() - (0 if take else len(bad))
    console.print(f"moved {len(good)} back to the queue" + (f", {len(bad)} to {take}" if take and bad else ""))
    if left > 0:
        console.print(f"{left} more were hidden behind these: run it again")
    if bad and not take:
        console.print(f"{len(bad)} are no valid change and stay; --take FILE moves them to a file, to be repaired")
        raise typer.Exit(DIFFERENT)


def _of_queue(queues: Queues) -> Iterator[Letter]:
    while messages := _receive(queues):
        for message in messages:
            attribute = message.get("MessageAttributes", {}).get("MeiboReason")
            reason = attribute.get("StringValue", "") if attribute else "was received too often without an outcome"
            yield Letter(message["MessageId"], message["Body"], reason, message["ReceiptHandle"])


def _receive(queues: Queues) -> list[MessageTypeDef]:
    return queues.client.receive_message(
        QueueUrl=queues.dead_letters,
        MaxNumberOfMessages=10,
        VisibilityTimeout=_SECONDS,
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


def _write(path: Path, letters: list[Letter]) -> None:
    # "x": a file with letters that are nowhere else any more must not be overwritten.
    with path.open("x", encoding="utf-8") as file:
        for letter in letters:
            try:
                change: Any = json.loads(letter.body)
            except ValueError:
                change = letter.body
            line = {"message_id": letter.id, "reason": letter.reason, "change": change}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _without_rejections(letter: Letter) -> dict[str, Any]:
    return {name: value for name, value in letter.reading.document.items() if name != "rejections"}


def _remove(queues: Queues, letter: Letter) -> None:
    if letter.receipt:
        queues.client.delete_message(QueueUrl=queues.dead_letters, ReceiptHandle=letter.receipt)


def _show_again(queues: Queues, letters: list[Letter]) -> None:
    for letter in letters:
        if letter.receipt:
            queues.client.change_message_visibility(
                QueueUrl=queues.dead_letters, ReceiptHandle=letter.receipt, VisibilityTimeout=0
            )


def _table(letters: list[Letter]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("change", "organization", "action"):
        table.add_column(name, overflow="fold")
    table.add_column("members", justify="right")
    table.add_column("died of", overflow="fold")
    for letter in letters:
        reading = letter.reading
        told = letter.reason if reading.change else f"[red]cannot be sent:[/] {reading.reason}"
        change = reading.change
        table.add_row(
            change.change_id if change else "–",
            change.organization_id if change else "–",
            change.action if change else "–",
            f"{len(change.members):,}" if change else "–",
            told,
        )
    return table
