"""``meibo run``: archive the sources of a configuration, without a stack."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from meibo.archive.keys import plan_key, report_key, run_moment
from meibo.archive.manifest import RunManifest
from meibo.archive.runs import Run, find_run, run_ids
from meibo.archive.storage import ArchiveReader, FolderStorage
from meibo.configuration import Configuration
from meibo.errors import ConfigurationError, UnexpectedError
from meibo.report.page import render
from meibo.report.state import gather
from meibo.settings import ObjectLock
from meibo_cli.archive_folder import PAGE, locked_archive, remove_parts
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_INTERRUPTED
from meibo_cli.files import replace_file
from meibo_cli.local_run import STDERR, LocalFunctions, log_to
from meibo_cli.progress import ProgressDisplay, print_run
from meibo_cli.selection import (
    DEFAULT_ARCHIVE,
    LATEST,
    MAX_IDS_SHOWN,
    ArchiveOption,
    bucket_name,
    checked_id,
    matches,
)
from meibo_cli.sources import ENV_FILE, SOURCES_FILE, SourcesOption, configured_secrets, read_sources, secret_reader
from meibo_cli.terminal import TextConsole, printable, show_activity
from meibo_cli.workflow import Execution

CONTINUE_HOURS: Final = 12
"""Maximum age of an interrupted run that is continued. Auth0 deletes jobs and cursors after 24 hours."""

DEFAULT_JOBS: Final = 4


def run(
    *,
    sources: SourcesOption = Path(SOURCES_FILE),
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Archive only these exports, such as acme or acme/users. Repeatable."),
    ] = None,
    run_id: Annotated[
        str, typer.Option("--run", "-r", help="Repair the run with this id, or `latest`: archive its missing exports.")
    ] = "",
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=64, help="The number of exports that run in parallel.")
    ] = DEFAULT_JOBS,
    log: Annotated[
        Path | None, typer.Option("--log", help="Append a log in JSON lines to this file (- for stderr).")
    ] = None,
) -> None:
    """Archive the sources of a configuration into a folder or a bucket, without a stack.

    Credentials are read from the environment (MEIBO_ACME_CLIENT_ID for the source acme), from the file .env beside the
    configuration, or from AWS Secrets Manager. If the latest run in a folder was interrupted and began less than 12
    hours ago, it is continued. Otherwise, or with --only, a new run begins. The exit status is 1 if exports of the run
    are missing.
    """
    progress = ProgressDisplay(TextConsole(stderr=True), live=log != STDERR)
    repair = _repair_command(sources, archive)
    attempt: list[str] = []
    try:
        with log_to(log):
            if run_id and only:
                raise ConfigurationError(
                    "--only and --run cannot be used together: a repair archives all missing exports"
                )
            configuration = _configuration(sources, only or [])
            with _functions(
                archive,
                progress.received,
                configuration=configuration,
                read_secret=secret_reader(configured_secrets(configuration), sources.parent / ENV_FILE),
                stopped=threading.Event(),
            ) as functions:
                finished = _run(functions, progress, jobs, _run_to_repair(functions, run_id, only), attempt)
                if isinstance(functions.storage, FolderStorage):
                    folder, now = Path(archive), datetime.now(UTC)
                    remove_parts(folder, now, finished.run_id if finished.manifest.complete else None)
                    replace_file(folder / PAGE, render(gather(functions.storage, now)).encode())
            _print(functions.storage, finished.manifest, archive, repair)
    except KeyboardInterrupt:
        state = (
            f"run {attempt[0]} is not complete; `{repair} {attempt[0]}` archives its missing exports"
            if attempt
            else "nothing was archived"
        )
        typer.echo(f"interrupted; {state}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if not finished.manifest.complete:
        raise typer.Exit(EXIT_DIFFERENT)


def _repair_command(sources: Path, archive: str) -> str:
    """Return the command that repairs a run, without the id of the run."""
    options = [] if sources == Path(SOURCES_FILE) else ["--sources", str(sources)]
    options += [] if archive in {DEFAULT_ARCHIVE, os.environ.get("MEIBO_ARCHIVE")} else ["--archive", archive]
    return shlex.join(["meibo", "run", *options, "--run"])


def _configuration(path: Path, only: Sequence[str]) -> Configuration:
    """Return the configuration. If there are patterns, it contains only the exports that match a pattern."""
    configuration = read_sources(path)
    if not only:
        return configuration
    ids: list[str] = []
    matched: set[str] = set()
    selected = []
    for source in configuration.sources:
        exports = []
        for export in (export for entry in source.exports_by_entry() for export in entry):
            export_id = f"{source.name}/{export.dataset}/{export.format}/{export.scope}"
            ids.append(export_id)
            patterns = {pattern for pattern in only if matches(export_id, pattern)}
            matched |= patterns
            if patterns:
                exports.append(export)
        if exports:
            selected.append(source.model_copy(update={"exports": exports}))
    if unmatched := [pattern for pattern in only if pattern not in matched]:
        raise ConfigurationError(
            f"--only: no export matches {unmatched[0]!r}; expected one of: {', '.join(ids[:MAX_IDS_SHOWN])}"
        )
    return Configuration(sources=selected)


@contextmanager
def _functions(archive: str, received: Callable[[str, int], None], **common: Any) -> Iterator[LocalFunctions]:
    bucket = bucket_name(archive)
    if bucket is not None:
        yield LocalFunctions.on_bucket(bucket, ObjectLock.from_env(), **common)
        return
    folder = Path(archive)
    with locked_archive(folder, "archive"):
        storage = FolderStorage(folder)
        storage.remove_temporary_files()
        yield LocalFunctions.on_folder(storage, received=received, **common)


def _run_to_repair(functions: LocalFunctions, run_id: str, only: Sequence[str] | None) -> str | None:
    """Return the id of the run to repair or to continue, or None to begin a new run."""
    storage = functions.storage
    if run_id and run_id != LATEST:
        return checked_id(run_id)
    # A run in a bucket may be executed by another process, or by the stack.
    if not run_id and (only or not isinstance(storage, FolderStorage)):
        return None
    # A run that was killed before it wrote its plan has nothing to repair.
    latest = next((run for run in run_ids(storage) if storage.exists(plan_key(run))), None)
    if run_id and latest is None:
        raise ConfigurationError(f"{storage.name} contains no run")
    if run_id or latest is None:
        return latest
    if find_run(storage, latest) is not None:
        return None
    age = datetime.now(UTC) - run_moment(latest)
    return latest if age < timedelta(hours=CONTINUE_HOURS) else None


def _run(
    functions: LocalFunctions, progress: ProgressDisplay, jobs: int, repaired: str | None, attempts: list[str]
) -> Run:
    """Execute an attempt of a run. The id of the run is added to ``attempts`` before the first export is archived."""
    attempt: tuple[str, int] | None
    if repaired is None:
        typer.echo(f"starting a run in {functions.storage.name}", err=True)
        with show_activity("planning the exports and creating their jobs"):
            attempt = functions.begin()
    else:
        attempts.append(repaired)
        typer.echo(f"continuing run {repaired} in {functions.storage.name}", err=True)
        attempt = functions.repair(repaired)
    if attempt is not None:
        run_id, number = attempt
        attempts.append(run_id)
        exports = functions.exports(run_id, number)
        for export in exports:
            progress.expect(export.export_id, export.address.folder(run_id))
        execution = Execution(
            run_id=run_id,
            attempt=number,
            functions=functions,
            jobs=jobs,
            stopped=functions.stopped,
            change=progress.change,
            wait=functions.stopped.wait,
        )
        with progress:
            execution.run(exports)
    finished = find_run(functions.storage, attempts[0])
    if finished is None:
        raise UnexpectedError(f"run {attempts[0]} ended, but its manifest cannot be read")
    return finished


def _print(storage: ArchiveReader, manifest: RunManifest, archive: str, repair: str) -> None:
    console = TextConsole()
    print_run(console, storage, manifest)
    state = "[green]complete[/]" if manifest.complete else "[red]not complete[/]"
    page = report_key(manifest.run_id, manifest.attempt) if bucket_name(archive) else "index.html"
    console.print(
        f"run {manifest.run_id}: {state}; archive: [bold]{printable(archive)}[/], report:"
        f" {printable(archive.rstrip('/'))}/{page}"
    )
    if not manifest.complete:
        console.print(f"fix the causes, then run: {printable(repair)} {manifest.run_id}")
