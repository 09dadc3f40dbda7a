"""``meibo history``: list the changes of one user in all runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

import typer

from meibo.archive.runs import find_run, run_ids
from meibo.errors import ConfigurationError
from meibo.formatting import format_count
from meibo.providers import provider_title
from meibo_cli.history import HistoryEvent, UserHistory, user_histories
from meibo_cli.selection import (
    DEFAULT_ARCHIVE,
    MAX_PARALLEL_READS,
    ArchiveOption,
    ExportsArgument,
    open_archive,
    reading_pool,
)
from meibo_cli.terminal import Column, TextConsole, json_text, print_table, printable, show_activity

_COLUMNS: Final = (
    Column("run"),
    Column("export"),
    Column("change"),
    Column("row", optional=True),
    Column("fields", wraps=True),
)
_STYLES: Final = {"present": "", "added": "green", "changed": "yellow", "removed": "red"}


def history(
    user: Annotated[str, typer.Argument(help="The id, login name, e-mail address or phone number of the user.")],
    export: ExportsArgument = "",
    *,
    fields: Annotated[
        str,
        typer.Option(
            "--fields",
            help="Print only changes of these fields (separated by commas). Rows that were added or removed are always"
            " printed.",
            show_default=False,
        ),
    ] = "",
    values: Annotated[bool, typer.Option("--values", help="Also print the old and new values of fields.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as JSON.")] = False,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """List the runs in which a user, or a membership or role of the user, was added, changed or removed."""
    reader = open_archive(archive)
    with show_activity("reading the runs"), reading_pool(MAX_PARALLEL_READS) as pool:
        results = pool.map(lambda run_id: find_run(reader, run_id), reversed(list(run_ids(reader))))
        runs = [run for run in results if run is not None]
    with show_activity(f"searching {format_count(len(runs), 'run')}"):
        histories = user_histories(reader, runs, user, export)
    if not histories:
        exports = f" in an export that matches {export!r}" if export else ""
        raise ConfigurationError(
            "no user with this id, login name, e-mail address or phone number was found in"
            f" {format_count(len(runs), 'run')} of {reader.name}{exports}; check the spelling, or"
            " choose another archive with --archive"
        )
    names = {name.strip() for name in fields.split(",") if name.strip()}
    if names:
        histories = [replace(item, events=_filtered(item.events, names)) for item in histories]
    if as_json:
        typer.echo(json_text([_to_json(item, values=values) for item in histories], indent=2))
        return
    for item in histories:
        _print(item, values=values)


def _filtered(events: list[HistoryEvent], names: set[str]) -> list[HistoryEvent]:
    """Return the events with only the named fields. A changed row without any of these fields is omitted."""

    def is_named(field: str) -> bool:
        return field in names or field.partition(".")[0] in names

    named = [
        replace(event, fields={name: event.fields[name] for name in filter(is_named, event.fields)}) for event in events
    ]
    return [event for event in named if event.fields or event.change != "changed"]


def _to_json(item: UserHistory, *, values: bool) -> dict[str, Any]:
    return {
        "provider": item.provider,
        "source": item.source,
        "ids": list(item.ids),
        "events": [
            {
                "run_id": event.run_id,
                "export_id": event.export_id,
                "change": event.change,
                "row": event.row,
                "suspect": event.suspect,
                "fields": {name: {"before": old, "after": new} for name, (old, new) in event.fields.items()}
                if values
                else list(event.fields),
            }
            for event in item.events
        ],
        "runs_without_export": item.gaps,
    }


def _print(item: UserHistory, *, values: bool) -> None:
    console = TextConsole()
    # A user has several rows of memberships and roles, but one row in the export of users.
    has_rows = any(event.row for event in item.events)
    columns = [column for column in _COLUMNS if has_rows or column.name != "row"]
    rows = [
        [
            event.run_id,
            printable(event.export_id),
            _change(event),
            *([printable(event.row)] if has_rows else []),
            _fields(event.fields, values=values),
        ]
        for event in item.events
    ]
    title = f"{', '.join(map(printable, item.ids))} in {printable(item.source)} ({provider_title(item.provider)})"
    print_table(console, columns, rows, title=f"[bold]{title}[/]")
    for export_id, gap in item.gaps.items():
        console.print(f"{format_count(gap, 'run')} without {printable(export_id)}")


def _change(event: HistoryEvent) -> str:
    style = _STYLES[event.change]
    text = f"[{style}]{event.change}[/]" if style else event.change
    return f"{text} (suspect export)" if event.suspect else text


def _fields(fields: Mapping[str, tuple[Any, Any]], *, values: bool) -> str:
    if not values:
        return printable(", ".join(fields))
    return "\n".join(printable(f"{name}: {_text(old)} → {_text(new)}") for name, (old, new) in fields.items())


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
