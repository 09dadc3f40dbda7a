"""``meibo check``: test the configuration, the credentials and the permissions before a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from botocore.exceptions import BotoCoreError

from meibo.configuration import Configuration
from meibo.errors import ConfigurationError, MeiboError
from meibo.formatting import format_count, format_duration
from meibo.providers import provider
from meibo.providers.base import ProviderContext
from meibo.providers.checks import Check, round_duration
from meibo_cli.commands.run import DEFAULT_JOBS
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_FAILURE, failed_request
from meibo_cli.local_run import countdown
from meibo_cli.sources import ENV_FILE, SOURCES_FILE, configured_secrets, read_sources, secret_reader
from meibo_cli.stack import StackChecks, find_stack
from meibo_cli.terminal import Column, TextConsole, json_text, print_table, printable, show_activity

SOURCE_SECONDS: Final = 60.0
"""Maximum duration of the checks of a source, including retries while the provider is busy."""

Status = Literal["ok", "warning", "failed", "skipped"]
_MARKS: Final[Mapping[Status, str]] = {
    "ok": "[green]✓[/]",
    "warning": "[yellow]![/]",
    "failed": "[red]✗[/]",
    "skipped": "[dim]–[/]",
}
_COLUMNS: Final = (Column(""), Column(""), Column("", wraps=True))


@dataclass(frozen=True)
class Group:
    """The checks of a stack or of a source."""

    subject: str
    title: str
    checks: Iterable[Check]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check. ``detail`` describes the result; for a failed or skipped check, it states the reason."""

    subject: str
    check: str
    status: Status
    detail: str
    error: str | None = None
    requests: int = 0
    seconds: float = 0.0


def check(
    *,
    sources: Annotated[
        Path | None,
        typer.Option("--sources", "-s", help=f"Check this configuration. Default: {SOURCES_FILE}", show_default=False),
    ] = None,
    stack: Annotated[str | None, typer.Option("--stack", help="Check the deployed stack with this name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test everything that a run requires. The command does not start a run or change any data.

    A failed check does not stop the other checks. The message of a failed check states what to change. The exit status
    is 0 if no check failed, 1 if a check failed, and 2 if the configuration cannot be read.
    """
    if sources and stack:
        raise ConfigurationError("--sources and --stack cannot be used together: the stack has its own configuration")
    stack_checks, parallel = None, DEFAULT_JOBS
    if stack:
        deployed = find_stack(stack)
        stack_checks, parallel = StackChecks(deployed), int(deployed.parameter("MaxParallelExports"))
        groups = _stack_groups(stack, stack_checks)
    else:
        path = sources or Path(SOURCES_FILE)
        configuration = read_sources(path)
        read_secret = secret_reader(configured_secrets(configuration), path.parent / ENV_FILE, require_all=False)
        groups = _source_groups(configuration, read_secret)
    outcomes = _run(groups, show=not as_json)
    seconds = round_duration(duration(outcomes, parallel))
    failed = any(outcome.status == "failed" for outcome in outcomes)
    if as_json:
        document = {
            "ok": not failed,
            "checks": [asdict(outcome) for outcome in outcomes],
            "expected_run": {"requests": sum(outcome.requests for outcome in outcomes), "seconds": seconds},
        }
        typer.echo(json_text(document, indent=2))
    else:
        _print_summary(outcomes, seconds)
    if stack_checks is not None and stack_checks.configuration is None:
        raise typer.Exit(EXIT_FAILURE)
    if failed:
        raise typer.Exit(EXIT_DIFFERENT)


def duration(outcomes: Iterable[Outcome], parallel: int) -> float:
    """Return the expected duration of a run in seconds; ``parallel`` is the maximum number of parallel exports.

    The exports of a source share its rate limits, and sources are independent of each other.
    """
    by_source: dict[str, float] = {}
    for outcome in outcomes:
        by_source[outcome.subject] = by_source.get(outcome.subject, 0.0) + outcome.seconds
    return max(max(by_source.values(), default=0.0), sum(by_source.values()) / parallel)


def _stack_groups(name: str, checks: StackChecks) -> Iterator[Group]:
    yield Group(name, "stack", checks.checks())
    if checks.configuration is not None:
        yield from _source_groups(checks.configuration, checks.read_secret)


def _source_groups(configuration: Configuration, read_secret: Callable[[str], Mapping[str, Any]]) -> Iterator[Group]:
    for source in configuration.sources:
        source_provider = provider(source.provider)
        context = ProviderContext(countdown(SOURCE_SECONDS, threading.Event()), read_secret=read_secret)
        yield Group(source.name, source_provider.title, source_provider.checks(source, context))


def _run(groups: Iterable[Group], *, show: bool) -> list[Outcome]:
    """Run the checks, and print a table after each group."""
    outcomes: list[Outcome] = []
    for group in groups:
        results = list(_run_checks(group))
        if show:
            _print_group(group, results)
        outcomes += results
    return outcomes


def _run_checks(group: Group) -> Iterator[Outcome]:
    succeeded: set[str] = set()
    for check_ in group.checks:
        missing = [name for name in check_.requires if name not in succeeded]
        if missing:
            yield Outcome(group.subject, check_.name, "skipped", f"not checked, because it requires: {missing[0]}")
            continue
        try:
            with show_activity(printable(f"checking {group.subject}: {check_.name}")):
                result = check_.run()
        except MeiboError as error:
            yield Outcome(group.subject, check_.name, "failed", str(error), type(error).__name__)
        except BotoCoreError as error:
            name = type(error).__name__
            yield Outcome(group.subject, check_.name, "failed", failed_request(name), name)
        else:
            succeeded.add(check_.name)
            status: Status = "warning" if result.warning else "ok"
            yield Outcome(
                *(group.subject, check_.name, status, result.detail), requests=result.requests, seconds=result.seconds
            )


def _print_group(group: Group, outcomes: Sequence[Outcome]) -> None:
    console = TextConsole()
    rows = [(_MARKS[outcome.status], printable(outcome.check), printable(outcome.detail)) for outcome in outcomes]
    print_table(console, _COLUMNS, rows, title=f"[bold]{printable(group.subject)}[/] ({printable(group.title)})")
    console.print()


def _print_summary(outcomes: list[Outcome], seconds: int) -> None:
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in _MARKS}
    failed = counts["failed"]
    parts = [f"{failed} of {format_count(len(outcomes), 'check')} failed" if failed else "no check failed"]
    if counts["warning"]:
        parts.append(format_count(counts["warning"], "warning"))
    if counts["skipped"]:
        parts.append(f"{counts['skipped']} not checked")
    typer.echo(", ".join(parts))
    if any(outcome.requests for outcome in outcomes):
        requests = format_count(sum(outcome.requests for outcome in outcomes), "request")
        typer.echo(
            f"expected run: {requests}, about {format_duration(seconds)}, plus the time that providers need to create"
            " files"
        )
