"""``meibo changes outcome``: show the outcome of each member of a change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from meibo.archive.keys import OUTCOMES, partition
from meibo.archive.outcomes import OutcomeKind, OutcomeRecord, parse_records
from meibo.archive.storage import ArchiveReader
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_FAILURE
from meibo_cli.selection import DEFAULT_ARCHIVE, MAX_PARALLEL_READS, ArchiveOption, open_archive, reading_pool
from meibo_cli.terminal import Column, TextConsole, json_text, print_table, printable

_COLUMNS: Final = (
    Column("organization"),
    Column("action"),
    Column("member"),
    Column("outcome"),
    Column("reason", wraps=True),
)
_STYLES: Final[dict[OutcomeKind, str]] = {"applied": "green", "rejected": "red", "dry_run": "yellow"}


def outcome(
    change_id: Annotated[str, typer.Argument(help="The id of the change (change_id).", show_default=False)],
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    days: Annotated[int, typer.Option("--days", min=1, help="Maximum age of the change in days.")] = 14,
    rejected: Annotated[bool, typer.Option("--rejected", help="Show rejected members only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False,
) -> None:
    """Show the newest outcome of each member, per organization and action.

    The exit status is 1 if a member was rejected, and 2 if no outcome of the change was found.
    """
    records = sorted(
        _newest(record for record in _records(open_archive(archive), days) if record.change_id == change_id),
        key=lambda record: (record.organization_id or "", record.sent_at, record.outcome.member),
    )
    if not records:
        typer.echo(
            f"{archive} contains no outcome of {change_id} in the last {days} days; the change may still be on the"
            " queue",
            err=True,
        )
        raise typer.Exit(EXIT_FAILURE)
    counts = Counter(record.outcome.kind for record in records)
    shown = [record for record in records if not rejected or record.outcome.kind == "rejected"]
    if as_json:
        for record in shown:
            typer.echo(json_text(record.to_json()))
    else:
        console = TextConsole()
        print_table(console, _COLUMNS, list(_rows(shown)))
        console.print(", ".join(f"[{_STYLES[kind]}]{counts[kind]:,} {kind}[/]" for kind in _STYLES if counts[kind]))
    if counts["rejected"]:
        raise typer.Exit(EXIT_DIFFERENT)


def _newest(records: Iterable[OutcomeRecord]) -> Iterable[OutcomeRecord]:
    """Return the newest record per organization, member and action. After a redrive, it replaces the rejection."""
    newest: dict[tuple[str | None, ...], OutcomeRecord] = {}
    for record in sorted(records, key=lambda record: (record.outcome.at, record.sent_at)):
        newest[record.organization_id, record.outcome.member, record.action] = record
    return newest.values()


def _records(archive: ArchiveReader, days: int) -> Iterator[OutcomeRecord]:
    first = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d")
    keys = [
        listed.key
        for source in archive.folders(OUTCOMES)
        for day in archive.folders(source)
        if partition(day, "dt") >= first
        for listed in archive.list(day)
    ]
    with reading_pool(MAX_PARALLEL_READS) as pool:
        for key, body in zip(keys, pool.map(archive.read, keys), strict=True):
            yield from parse_records(body or b"", key)


def _rows(records: Iterable[OutcomeRecord]) -> Iterator[tuple[str, ...]]:
    for record in records:
        outcome = record.outcome
        yield (
            printable(record.organization_id or "–"),
            printable(record.action or "–"),
            printable(outcome.member or "–"),
            f"[{_STYLES[outcome.kind]}]{outcome.kind}[/]",
            printable(outcome.reason or ""),
        )
