"""Print the exports of a finished run, with the reasons of those that are missing or suspect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from rich.console import Console

from meibo.archive.manifest import RunManifest
from meibo.archive.runs import suspect_reason
from meibo.archive.storage import ArchiveReader
from meibo.formatting import format_bytes, format_number
from meibo_cli.terminal import Column, print_table, printable

_DIGEST_LENGTH: Final = 12


def print_run(
    console: Console, archive: ArchiveReader, manifest: RunManifest, checks: Mapping[str, str] | None = None
) -> None:
    """Print a table of a run's exports, and the reasons below it.

    ``checks`` contains the results of other checks as Rich markup, by export id.
    """
    counts = manifest.counts
    columns = [
        Column("export", footer="total"),
        Column("rows", number=True, footer=format_number(counts.rows)),
        Column("size", number=True, footer=format_bytes(counts.bytes)),
        Column("verdict"),
        Column("checked", wraps=True),
        Column("SHA-256", optional=True),
    ]
    title = f"run {manifest.run_id}: {counts.archived} of {counts.planned} exports archived"
    print_table(console, columns, list(_rows(manifest, checks or {})), title=title)
    for export in manifest.suspects:
        console.print(f"[yellow]suspect[/] {printable(export.export_id)}: {printable(suspect_reason(archive, export))}")
    for missing in manifest.missing:
        console.print(f"[red]missing[/] {printable(missing.export_id)}: {missing.error}: {printable(missing.reason)}")


def _rows(manifest: RunManifest, checks: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    for export in manifest.exports:
        color = "yellow" if export.verdict == "suspect" else "green"
        yield (
            printable(export.export_id),
            format_number(export.rows),
            format_bytes(export.bytes),
            f"[{color}]{printable(export.verdict)}[/]",
            checks.get(export.export_id, ""),
            export.sha256[:_DIGEST_LENGTH],
        )
    for missing in manifest.missing:
        yield (printable(missing.export_id), "–", "–", "[red]missing[/]", "", "–")
