"""Execute a complete run on this machine, download its archive to a folder, and verify it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from meibo.archive.keys import MANIFEST_NAME, attempt_key, run_manifest_key
from meibo.archive.manifest import ArchivedExport, RunManifest
from meibo.archive.storage import FolderReader, FolderStorage
from meibo.exports.plan import Attempt
from meibo.formatting import format_count
from meibo.observability import logger
from meibo.report.page import render
from meibo.report.state import gather
from meibo_cli.archive_folder import PAGE
from meibo_cli.files import replace_file
from meibo_cli.progress import print_run
from meibo_cli.terminal import TextConsole, printable
from meibo_local.aws import LocalAws, local_aws
from meibo_local.progress import InvocationDisplay
from meibo_local.sample_changes import send_sample_changes
from meibo_local.sources import Sources
from meibo_simulators.proxy import SimulatedProxy

_POLL_SECONDS = 0.1


def run(sources: Sources, archive: Path, console: Console, log: Path, proxy: SimulatedProxy | None = None) -> int:
    """Archive the sources to a folder with the same keys as in the bucket. Return the exit status.

    The status is 0 if all exports are archived, the files have the SHA-256 of their manifests and the expected number
    of rows, and the changes have the expected outcomes. Otherwise, it is 1. The output of the functions is written to
    ``log``. As in AWS, the parameter HttpsProxy sets the proxy of the functions.
    """
    FolderStorage(archive).remove_temporary_files()
    log.parent.mkdir(parents=True, exist_ok=True)
    progress = InvocationDisplay(console)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(log.open("w", encoding="utf-8"))
        log.chmod(0o600)  # an existing log may have different permissions
        stack.enter_context(_output_to(file))
        aws = stack.enter_context(
            local_aws(
                parameters={"HttpsProxy": proxy.url} if proxy else {},
                environment=sources.environment,
                observer=progress,
                received=progress.received,
            )
        )
        aws.configure(sources.document, sources.secrets)
        earlier = _upload_earlier_manifests(aws, archive)
        if earlier:
            console.print(f"Comparing this run with {format_count(earlier, 'earlier export')} in {printable(archive)}/")
        result = aws.tick(datetime.now(UTC))
        if result.failed:
            console.print(f"[red]{result.payload['errorType']}[/]: {printable(result.payload['errorMessage'])}")
            return 1
        run_id, attempt = result.payload["run_id"], result.payload["attempt"]
        _follow(aws, run_id, attempt, progress)
        aws.download(archive)
        key = run_manifest_key(run_id, attempt)
        manifest = RunManifest.from_json(aws.read_json(key), key)
        checks = {
            export.export_id: _check(export, archive, sources.expected_rows[export.export_id])
            for export in manifest.exports
        }
        notes = {export_id: note for export_id, (_, note) in checks.items()}
        print_run(console, FolderReader(archive), manifest, notes)
        console.print(
            f"Sending {len(sources.changes)} membership changes to the queue, as an application would; some are invalid"
            " and must be rejected with a reason"
        )
        changes = send_sample_changes(aws, sources.changes)
        aws.download(archive)
        # The report in the bucket contains only this run. This page contains all runs in the folder, and the changes.
        replace_file(archive / PAGE, render(gather(FolderReader(archive), datetime.now(UTC))).encode())
    console.print(changes.table())
    if proxy:
        connections = ", ".join(f"{number} to {host}" for host, number in sorted(proxy.connections.items()))
        console.print(f"connections through the proxy: {connections or 'none'}")
    ok = manifest.complete and all(matches for matches, _ in checks.values()) and changes.ok
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
    # A run reads only the manifests of earlier runs.
    manifests = sorted(archive.glob(f"archive/**/{MANIFEST_NAME}"))
    for path in manifests:
        aws.write(path.relative_to(archive).as_posix(), path.read_bytes())
    return len(manifests)


def _check(export: ArchivedExport, archive: Path, expected_rows: int) -> tuple[bool, str]:
    """Return whether a file matches its manifest and the simulated directory, and the result as Rich markup."""
    with (archive / export.key).open("rb") as file:
        same_digest = hashlib.file_digest(file, "sha256").hexdigest() == export.sha256
    same_rows = export.rows == expected_rows
    digest = "[green]digest[/]" if same_digest else "[red]wrong digest[/]"
    rows = "[green]rows[/]" if same_rows else f"[red]{expected_rows:,} rows expected[/]"
    return same_digest and same_rows, f"{digest}, {rows}"


@contextlib.contextmanager
def _output_to(file: Any) -> Any:
    # The functions print their logs and metrics. moto uses the root logger.
    handler = logging.StreamHandler(file)
    # The handler of the logger writes to the standard output that was in use when the logger was imported.
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
        # After Ctrl-C, the threads of moto may log until the process ends.
        root.addHandler(logging.NullHandler())
        root.setLevel(level)
        if previous is not None and isinstance(functions_handler, logging.StreamHandler):
            functions_handler.setStream(previous)


def console_of_terminal() -> TextConsole:
    """Return a console that writes to the terminal while standard output is redirected."""
    return TextConsole(file=sys.__stdout__)
