"""``meibo changes outcome``: show the outcome of each member of a change."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from meibo.archive.reader import ArchiveReader
from meibo_cli.archive_option import DEFAULT_ARCHIVE, ArchiveOption, open_archive
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_FAILURE, report_errors
from meibo_cli.terminal import escape_control_characters, printable

_STYLES = {"applied": "green", "rejected": "red", "dry_run": "yellow"}
_PARALLEL_READS = 32


def outcome(
    change_id: Annotated[str, typer.Argument(help="The id that the change was sent with.", show_default=False)],
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    days: Annotated[int, typer.Option("--days", min=1, help="How many days back the change was sent at most.")] = 14,
    rejected: Annotated[bool, typer.Option("--rejected", help="Only rejected members.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="NDJSON, for programs.")] = False,
) -> None:
    """Show the newest outcome of each member, per organization and action.

    Exits with 1 if one of them is rejected, and with 2 if nothing is on record yet.
    """
    with report_errors():
        lines = sorted(
            _newest(line for line in _lines(open_archive(archive), days) if line.get("change_id") == change_id),
            key=lambda line: (line.get("organization_id") or "", line.get("sent_at") or "", line.get("member") or ""),
        )
    if not lines:
        typer.echo(
            f"{archive} has no outcome of {change_id} in the last {days} days; it may still be on the queue", err=True
        )
        raise typer.Exit(EXIT_FAILURE)
    counts = Counter(line["outcome"] for line in lines)
    shown = [line for line in lines if not rejected or line["outcome"] == "rejected"]
    if as_json:
        for line in shown:
            typer.echo(escape_control_characters(json.dumps(line, ensure_ascii=False)))
    else:
        console = Console(emoji=False)
        console.print(_table(shown))
        console.print(", ".join(f"[{_STYLES[kind]}]{counts[kind]:,} {kind}[/]" for kind in _STYLES if counts[kind]))
    if counts["rejected"]:
        raise typer.Exit(EXIT_DIFFERENT)


def _newest(lines: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Return the newest line per organization, member and action: a repaired change supersedes its rejection."""
    newest: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for line in sorted(lines, key=lambda line: (line.get("at") or "", line.get("sent_at") or "")):
        newest[line.get("organization_id"), line.get("member"), line.get("action")] = line
    return newest.values()


def _lines(archive: ArchiveReader, days: int) -> Iterator[dict[str, Any]]:
    first = (datetime.now(UTC) - timedelta(days=days)).strftime("dt=%Y-%m-%d")
    keys = [
        found.key
        for source in archive.folders("changes/")
        for day in archive.folders(source)
        if day.rstrip("/").rpartition("/")[2] >= first
        for found in archive.list(day)
    ]
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for body in pool.map(archive.read, keys):
            for line in (body or b"").split(b"\n"):
                if line:
                    yield json.loads(line)


def _table(lines: list[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("organization", "action", "member", "outcome"):
        table.add_column(name, overflow="fold")
    # The column takes room from the ids, so it is shown only if there is a reason.
    has_reasons = any(line.get("reason") for line in lines)
    if has_reasons:
        table.add_column("reason", overflow="fold")
    for line in lines:
        style = _STYLES[line["outcome"]]
        table.add_row(
            printable(line.get("organization_id") or "–"),
            printable(line.get("action") or "–"),
            printable(line.get("member") or "–"),
            f"[{style}]{line['outcome']}[/]",
            *([printable(line.get("reason") or "")] if has_reasons else []),
        )
    return table
