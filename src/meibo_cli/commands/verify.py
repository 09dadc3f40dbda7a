"""``meibo verify``: compare archived objects with their manifests."""

from __future__ import annotations

import os
import threading
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TransferSpeedColumn

from meibo.archive.keys import ARCHIVE, ExportFolder, partition, run_folder, source_prefix
from meibo.archive.storage import ArchiveReader
from meibo.archive.verification import Finding, VerificationPlan, Verifier, plan_everything, plan_runs
from meibo.errors import ConfigurationError, MeiboError
from meibo.formatting import format_count
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_FAILURE
from meibo_cli.selection import (
    DEFAULT_ARCHIVE,
    ArchiveOption,
    ExportsArgument,
    checked_id,
    matches,
    named_run,
    open_archive,
    reading_pool,
)
from meibo_cli.terminal import TextConsole, json_text, printable, show_activity


@dataclass
class Result:
    """The result of a verification."""

    plan: VerificationPlan
    quick: bool
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """The exit code. Damage takes precedence over exports that could not be checked."""
        if self.findings:
            return EXIT_DIFFERENT
        return EXIT_FAILURE if self.unchecked or not self.plan.tasks else 0

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "runs": self.plan.runs,
            "exports": len(self.plan.tasks),
            "quick": self.quick,
            "damage": [vars(finding) for finding in self.findings],
            "could_not_check": [{"key": key, "reason": reason} for key, reason in self.unchecked],
            "under_way": list(self.plan.running),
        }


def verify(
    export: ExportsArgument = "",
    *,
    run: Annotated[
        str | None,
        typer.Option("--run", "-r", help="Verify only this run: its id, `latest` or `previous`.", show_default=False),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Compare the size, version and checksum that S3 reports, without downloading objects."
        ),
    ] = False,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=32, help="The number of objects to read in parallel.")
    ] = max(os.cpu_count() or 1, 2),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare all archived objects with their manifests, or only the objects of some exports or of a run.

    The exit status is 0 if there is no damage, and 1 if there is damage. It is 2 if there is no damage, but an object
    could not be checked, or if there was nothing to check.
    """
    console = TextConsole(stderr=True)
    reader = open_archive(archive)
    with show_activity("listing the archive"):
        plan = _plan(reader, export, run)
    if not (plan.tasks or plan.findings or plan.running):
        # An empty selection has no damage, but a misspelled name must not be reported as success.
        matching = f" that matches {export!r}" if export else ""
        subject = f"run {run} of {reader.name}" if run else reader.name
        raise ConfigurationError(f"{subject} contains no export{matching}; `meibo ls` lists the exports")
    result = _verify(reader, plan, console, quick=quick, jobs=jobs)
    if as_json:
        typer.echo(json_text(result.to_json(), indent=2))
    else:
        _print(result)
    raise typer.Exit(result.status)


def _plan(reader: ArchiveReader, pattern: str, run: str | None) -> VerificationPlan:
    def is_selected(folder: ExportFolder) -> bool:
        return matches(folder.address.export_id, pattern)

    if run is not None:
        # A run that is specified by its id is verified even if its run manifest is missing.
        run_id = named_run(reader, run).run_id if not run[:1].isdigit() else checked_id(run)
        if next(reader.list(run_folder(run_id)), None) is None and not _has_exports(reader, run_id):
            raise ConfigurationError(f"{reader.name} contains no run {run_id}; `meibo ls` lists the runs")
        return plan_runs(reader, [run_id], selects=is_selected)
    prefixes = [ARCHIVE]
    source = pattern.strip("/").partition("/")[0]
    if source and not set(source) & set("*?["):
        prefixes = [source_prefix(provider, source) for provider in reader.folders(ARCHIVE)]
    return plan_everything(reader, prefixes=prefixes, selects=is_selected)


def _has_exports(reader: ArchiveReader, run_id: str) -> bool:
    """Return whether a run without a folder below ``runs/`` has archived exports."""
    return any(partition(listed.key, "run") == run_id for listed in reader.list(ARCHIVE))


def _verify(reader: ArchiveReader, plan: VerificationPlan, console: Console, *, quick: bool, jobs: int) -> Result:
    result = Result(plan, quick, list(plan.findings))
    columns = (TextColumn("verify"), BarColumn(), MofNCompleteColumn())
    if not quick:
        columns = (TextColumn("verify"), BarColumn(), DownloadColumn(), TransferSpeedColumn())  # type: ignore[assignment]  # the columns of the other rows differ
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        reading_pool(jobs) as pool,
    ):
        total = len(plan.tasks) if quick else sum(task.bytes for task in plan.tasks)
        bar = progress.add_task("verify", total=total)
        interrupted = threading.Event()

        def advance(count: int) -> None:
            if interrupted.is_set():
                raise KeyboardInterrupt
            progress.advance(bar, count)

        verifier = Verifier(reader, reads=lambda _: not quick, advance=advance)
        # The largest objects are verified first, so that the threads finish at about the same time.
        largest_first = sorted(plan.tasks, key=lambda task: -task.bytes)
        tasks = {pool.submit(verifier.verify, task): task for task in largest_first}
        try:
            for future in as_completed(tasks):
                try:
                    result.findings += future.result()
                except ClientError as error:
                    reason = f"S3 returned {error.response['Error']['Code']}"
                    result.unchecked.append((tasks[future].folder.key, reason))
                except (MeiboError, BotoCoreError, OSError) as error:
                    result.unchecked.append((tasks[future].folder.key, type(error).__name__))
                if quick:
                    progress.advance(bar)
        except KeyboardInterrupt:
            interrupted.set()
            raise
    result.findings.sort(key=lambda finding: (finding.key, finding.damage))
    result.unchecked.sort()
    return result


def _print(result: Result) -> None:
    console = TextConsole()
    for finding in result.findings:
        console.print(f"[red]{finding.damage}[/] {printable(finding.key)}: {printable(finding.detail)}")
    for key, reason in result.unchecked:
        console.print(f"[yellow]not checked[/] {printable(key)}: {printable(reason)}")
    for run_id in result.plan.running:
        console.print(f"[dim]run {run_id} is in progress and was skipped[/]")
    if result.status == EXIT_FAILURE and not result.plan.tasks:
        console.print("[yellow]nothing to check[/]")
        return
    exports = format_count(len(result.plan.tasks), "export")
    runs = format_count(result.plan.runs - len(result.plan.running), "run")
    method = "quick verification" if result.quick else "read completely"
    damaged = len({finding.key for finding in result.findings})
    verdict = {
        EXIT_FAILURE: f"[yellow]{format_count(len(result.unchecked), 'export')} not checked[/]",
        0: "[green]no damage[/]",
        EXIT_DIFFERENT: f"[red]{format_count(damaged, 'damaged object')}[/]",
    }
    console.print(f"{exports} of {runs}, {method}: {verdict[result.status]}")
