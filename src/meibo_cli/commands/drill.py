"""``meibo drill``: restore a run to an empty tenant, and compare the tenant with the run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from meibo.errors import ConfigurationError
from meibo.formatting import format_count, format_duration, format_number
from meibo_cli.exit_codes import EXIT_DIFFERENT
from meibo_cli.files import STDOUT
from meibo_cli.restore.console import require_confirmation, resumable
from meibo_cli.restore.directory import DirectoryTarget
from meibo_cli.restore.drill import Drill, DrillSettings, check_source, object_counts
from meibo_cli.restore.drill_report import DIFFERENCES, print_report
from meibo_cli.selection import (
    DEFAULT_ARCHIVE,
    LATEST,
    ArchiveOption,
    RunOption,
    bucket_name,
    named_run,
    open_archive,
)
from meibo_cli.terminal import escape_control_characters


def drill(
    source: Annotated[
        str, typer.Argument(help="The name of an Auth0 source in the run, such as acme.", show_default=False)
    ] = "",
    *,
    run: RunOption = LATEST,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", help="The domain of an empty tenant, which is not the tenant of the source.", show_default=False
        ),
    ] = None,
    audience: Annotated[
        str | None,
        typer.Option(
            "--audience",
            help="If the domain is a custom domain: the identifier of the Management API, which ends with /api/v2/.",
            show_default=False,
        ),
    ] = None,
    location_host: Annotated[
        list[str] | None,
        typer.Option(
            "--location-host",
            help="An additional host from which export files may be downloaded. Repeatable.",
            show_default=False,
        ),
    ] = None,
    allow_existing: Annotated[
        bool, typer.Option("--allow-existing", help="Restore even if the tenant is not empty.")
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A new folder for the files, the progress and the report.")
    ] = Path("drill"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Restore without confirmation.")] = False,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue the drill in this folder.", show_default=False)
    ] = None,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Restore users, roles, organizations and memberships to an empty Auth0 tenant, and compare them with the run.

    The credentials of the empty tenant are MEIBO_<SOURCE>_CLIENT_ID and MEIBO_<SOURCE>_CLIENT_SECRET (or _PRIVATE_KEY).
    """
    if (resume is None) == (not source):
        raise ConfigurationError("expected the name of a source, or --resume with the folder of an earlier drill")
    if resume is not None:
        _execute(Drill.resume(resume, _show))
        return
    if to is None:
        raise ConfigurationError("expected --to with the domain of an empty tenant")
    if output == STDOUT:
        raise ConfigurationError("--output: expected a new folder for several files, found '-'")
    reader = open_archive(archive)
    named = named_run(reader, run)
    target = DirectoryTarget.of_options(source, to, location_host, audience)
    check_source(reader, named, target)
    settings = DrillSettings(
        archive=archive if bucket_name(archive) else str(Path(archive).resolve()),
        run_id=named.run_id,
        source=source,
        domain=target.domain,
        audience=audience,
        location_hosts=target.location_hosts,
        allow_existing=allow_existing,
        started_at=datetime.now(UTC),
    )
    new_drill = Drill(settings, output, reader, named, _show)
    _check_tenant(new_drill)
    if not yes:
        counts = ", ".join(f"{format_number(count)} {name}" for name, count in new_drill.counts().items())
        question = f"Restore {counts} of run {named.run_id} of {source} to the tenant {target.domain}?"
        require_confirmation(question, "nothing was sent")
    new_drill.create()
    _execute(new_drill)


def _check_tenant(new_drill: Drill) -> None:
    """Raise ConfigurationError if the tenant is not empty, unless ``--allow-existing`` was specified."""
    counts = object_counts(new_drill.client)
    if counts and not new_drill.settings.allow_existing:
        contents = ", ".join(format_count(count, name.removesuffix("s")) for name, count in counts.items())
        raise ConfigurationError(
            f"--to: expected an empty tenant, but {new_drill.client.domain} has {contents}; nothing was sent. Choose"
            " another tenant, or, if the objects may remain, add --allow-existing"
        )


def _execute(executed: Drill) -> None:
    """Execute a drill, or continue it, and print the report."""
    with resumable(f"`meibo drill --resume {executed.folder}` continues the drill"):
        report = executed.execute()
    print_report(report)
    duration = format_duration(report.seconds)
    if report.passed:
        typer.echo(f"drill passed in {duration}: every restorable value of run {report.run_id} was restored")
        return
    differences = escape_control_characters(str(executed.folder / DIFFERENCES))
    typer.echo(f"drill failed in {duration}: the differences are in {differences}")
    raise typer.Exit(EXIT_DIFFERENT)


def _show(text: str) -> None:
    typer.echo(escape_control_characters(text), err=True)
