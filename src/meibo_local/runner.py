"""A complete run on this machine: one schedule tick, archived into a folder and verified."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from meibo.archive.keys import MANIFEST_NAME, attempt_key, run_manifest_key
from meibo.archive.manifest import ArchivedExport, RunManifest
from meibo.archive.runs import suspect_reason
from meibo.archive.storage import FolderReader
from meibo.exports.plan import Attempt
from meibo.observability import logger
from meibo.report.page import render
from meibo.report.state import gather
from meibo_cli.archive_folder import write_page
from meibo_cli.terminal import printable
from meibo_local.aws import LocalAws, local_aws
from meibo_local.progress import InvocationDisplay
from meibo_local.sample_changes import send_sample_changes
from meibo_local.sources import Sources

_POLL_SECONDS = 0.1
_READ_BYTES = 1024 * 1024

_WIDE = 150
_SHORT_DIGEST = 12


@dataclass(frozen=True)
class CheckedExport:
    """An archived export and the check of its file."""

    export: ArchivedExport
    path: Path
    sha256_matches: bool
    expected_rows: int | None

    @property
    def ok(self) -> bool:
        """Return whether the file matches its manifest and the simulated directory."""
        return self.sha256_matches and self.expected_rows in (None, self.export.rows)


def run(sources: Sources, archive: Path, console: Console, log: Path) -> int:
    """Archive the sources into a folder with the same keys as in the bucket. Return the exit status.

    It is 0 if all exports are archived, the files have the SHA-256 of their manifests and the changes have the expected
    outcomes, and 1 otherwise. The output of the functions is written to ``log``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    progress = InvocationDisplay(console)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(log.open("w", encoding="utf-8"))
        log.chmod(0o600)  # the log may exist with other permissions
        stack.enter_context(_output_to(file))
        aws = stack.enter_context(
            local_aws(
                environment=sources.environment,
                observer=progress,
                received=progress.received,
            )
        )
        aws.configure(sources.document, sources.secrets)
        earlier = _upload_earlier_manifests(aws, archive)
        if earlier:
            console.print(f"Comparing this run with {earlier} earlier exports in {printable(archive)}/")
        outcome = aws.tick(datetime.now(UTC))
        if outcome.failed:
            console.print(f"[red]{outcome.payload['errorType']}[/]: {printable(outcome.payload['errorMessage'])}")
            return 1
        run_id, attempt = outcome.payload["run_id"], outcome.payload["attempt"]
        _follow(aws, run_id, attempt, progress)
        aws.download(archive)
        # The report in the bucket shows this run only; this page shows all runs in the folder.
        write_page(archive, render(gather(FolderReader(archive), datetime.now(UTC))))
        key = run_manifest_key(run_id, attempt)
        manifest = RunManifest.from_json(aws.read_json(key), key)
        console.print(f"Sending {len(sources.changes)} valid and invalid membership changes to the queue")
        changes = send_sample_changes(aws, sources.changes)
        aws.download(archive)
    checked = [_check(export, archive, sources) for export in manifest.exports]
    console.print(_summary(manifest, checked, console.width))
    for export in manifest.exports:
        if export.verdict == "suspect":
            reason = suspect_reason(FolderReader(archive), export)
            console.print(f"[yellow]suspect[/] {printable(export.export_id)}: {printable(reason)}")
    for missing in manifest.missing:
        console.print(f"[red]missing[/] {printable(missing.export_id)}: {missing.error}: {printable(missing.reason)}")
    console.print(changes.table())
    ok = manifest.complete and all(row.ok for row in checked) and changes.ok
    console.print(
        f"run {run_id}: {'[green]complete[/]' if ok else '[red]not complete[/]'};"
        f" archive: [bold]{printable(archive)}/[/], report: {printable(archive)}/index.html, log: {printable(log)}"
    )
    return 0 if ok else 1


def _follow(aws: LocalAws, run_id: str, attempt: int, progress: InvocationDisplay) -> None:
    for export in Attempt.from_json(aws.read_json(attempt_key(run_id, attempt))).exports:
        progress.expect(export.export_id, export.address.folder(run_id))
    with progress:
        while aws.execution(run_id, attempt)["status"] == "RUNNING":
            time.sleep(_POLL_SECONDS)


def _upload_earlier_manifests(aws: LocalAws, archive: Path) -> int:
    # Only manifests are uploaded: a run reads nothing else from earlier runs.
    manifests = sorted(archive.glob(f"archive/**/{MANIFEST_NAME}"))
    for path in manifests:
        aws.write(path.relative_to(archive).as_posix(), path.read_bytes())
    return len(manifests)


def _check(export: ArchivedExport, archive: Path, sources: Sources) -> CheckedExport:
    digest = hashlib.sha256()
    path = archive / export.key
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return CheckedExport(
        export=export,
        path=path,
        sha256_matches=digest.hexdigest() == export.sha256,
        expected_rows=sources.expected_rows.get(export.export_id),
    )


def _summary(manifest: RunManifest, checked: list[CheckedExport], width: int) -> Table:
    counts = manifest.counts
    table = Table(
        title=f"run {manifest.run_id}: {counts.archived} of {counts.planned} exports archived",
        title_justify="left",
        box=SIMPLE_HEAD,
        show_footer=True,
        pad_edge=False,
    )
    table.add_column("export", "total", overflow="fold")
    table.add_column("rows", f"{counts.rows:,}", justify="right", no_wrap=True)
    table.add_column("bytes", f"{counts.bytes:,}", justify="right", no_wrap=True)
    table.add_column("SHA-256", no_wrap=True)
    table.add_column("checked", no_wrap=True)
    # Shortened on a narrow terminal; the manifest contains the complete digest.
    digits = None if width >= _WIDE else _SHORT_DIGEST
    for row in checked:
        export = row.export
        notes = ["[green]digest[/]" if row.sha256_matches else "[red]digest wrong[/]"]
        if row.expected_rows is not None:
            matches = row.expected_rows == export.rows
            notes.append("[green]rows[/]" if matches else f"[red]{row.expected_rows:,} rows expected[/]")
        if export.verdict == "suspect":
            notes.append("[yellow]suspect[/]")
        rows = "not counted" if export.rows is None else f"{export.rows:,}"
        table.add_row(printable(export.export_id), rows, f"{export.bytes:,}", export.sha256[:digits], ", ".join(notes))
    return table


@contextlib.contextmanager
def _output_to(file: Any) -> Any:
    # The functions print their logs and metrics; moto uses the root logger.
    handler = logging.StreamHandler(file)
    # The logger's handler writes to the stdout that was current when it was imported.
    functions_handler = logger.registered_handler
    previous = functions_handler.setStream(file) if isinstance(functions_handler, logging.StreamHandler) else None
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        if previous is not None and isinstance(functions_handler, logging.StreamHandler):
            functions_handler.setStream(previous)


def console_of_terminal() -> Console:
    """Return a console that writes to the terminal while standard output is redirected."""
    return Console(file=sys.__stdout__, emoji=False)
