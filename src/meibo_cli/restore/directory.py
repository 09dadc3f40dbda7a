"""Restore roles, organizations and memberships of Auth0: plan them against the tenant, print the plan, and apply it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import typer
from rich.progress import Progress

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run, suspect_reason
from meibo.archive.storage import ArchiveReader
from meibo.configuration import parse_documents
from meibo.errors import ConfigurationError, MeiboError
from meibo.exports.plan import PlannedExport
from meibo.formatting import format_count, format_number
from meibo.providers.auth0.checks import OPTIONAL_SCOPES, REQUIRED_SCOPES
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.configuration import Auth0Source
from meibo.providers.auth0.datasets import USERS
from meibo.providers.auth0.location import check_location_hosts
from meibo.secrets import read_configuration
from meibo_cli.exit_codes import EXIT_DIFFERENT, EXIT_FAILURE, EXIT_INTERRUPTED
from meibo_cli.files import new_folder
from meibo_cli.live_archive import live_archive
from meibo_cli.restore.auth0_target import CONNECTIONS_SCOPE, check_scopes, target_client, target_credentials
from meibo_cli.restore.dataset_rows import DatasetRows
from meibo_cli.restore.directory_execution import PlanExecution, failed_lines
from meibo_cli.restore.directory_plan import (
    KINDS,
    OBJECTS,
    PLURALS,
    STATES,
    DirectoryPlan,
    plan_writer,
    planned_objects,
    write_plan,
)
from meibo_cli.restore.directory_planner import (
    DATASETS,
    LIVE_DATASETS,
    MEMBERS,
    ORGANIZATIONS,
    ROLE_MEMBERS,
    ROLES,
    DirectoryPlanner,
)
from meibo_cli.restore.directory_progress import ProgressFile, open_progress
from meibo_cli.restore.directory_requests import connections
from meibo_cli.restore.journal import locked, replace_file
from meibo_cli.restore.memberships import DirectSender, MembershipSender, QueueSender
from meibo_cli.restore.natural_keys import MAPPING, IdMapping
from meibo_cli.stack import queues_of
from meibo_cli.terminal import (
    Column,
    TextConsole,
    escape_control_characters,
    print_table,
    printable,
    show_activity,
)

ALL: Final = "all"
QUEUEING_MISSING: Final = (
    "memberships require --queue with the source of the stack, or --without-queue to send them directly"
)
FAILED: Final = "failed.ndjson"
DIRECTORY_NOT_RESTORABLE: Final = """\
Meibo cannot restore the following in Auth0:
  - users, connections and applications: import the users of a database connection first, without --datasets
  - roles that users have through a group, invitations, and other properties of organizations and connections
Nothing is removed: members, roles and permissions that only the tenant has remain.
"""
_MAX_REASONS_SHOWN: Final = 10
_WRITE_SCOPES: Final = {
    ROLES: ("create:roles", "update:roles"),
    ORGANIZATIONS: ("create:organizations", "create:organization_connections"),
    ROLE_MEMBERS: ("update:roles", "create:role_members"),
    MEMBERS: ("create:organization_members", "create:organization_member_roles"),
}
_UPDATE_SCOPES: Final = ("update:organizations", "update:organization_connections")
_USER_FIELDS: Final = ("user_id", "email", "identities")


@dataclass(frozen=True)
class Queueing:
    """The way of memberships: through the queue of a stack as changes of ``source``, or directly if it is None.

    ``configuration`` is the SSM parameter with the sources of the stack.
    """

    source: str | None
    stack: str
    configuration: str

    @classmethod
    def of_options(cls, queue: str | None, stack: str, configuration: str, *, without_queue: bool) -> Queueing | None:
        """Return the options, or None if neither way was chosen."""
        if queue is not None and without_queue:
            raise ConfigurationError("--queue and --without-queue exclude each other")
        return cls(queue, stack, configuration) if queue is not None or without_queue else None

    def sender(self, client: Auth0Client) -> MembershipSender:
        """Return the sender. Raises ConfigurationError if the stack's source is another tenant."""
        if self.source is None:
            return DirectSender(client)
        source = parse_documents(read_configuration(self.configuration)).source(self.source)
        domain = source.domain if isinstance(source, Auth0Source) else None
        if domain != client.domain:
            raise ConfigurationError(
                f"--queue: expected an Auth0 source of the stack with the domain {client.domain}, got {self.source!r}"
                f" {'with the domain ' + domain if domain else 'which the configuration does not contain'}"
            )
        return QueueSender(queues_of(self.stack))


WITHOUT_QUEUE: Final = Queueing(None, stack="", configuration="")
"""Memberships are sent directly."""


def datasets_of(text: str) -> tuple[str, ...]:
    """Return the datasets of the option ``--datasets`` in the order of the restore."""
    names = DATASETS if text.strip() == ALL else [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in DATASETS]:
        raise ConfigurationError(f"--datasets: expected {', '.join(DATASETS)} or {ALL}, got {unknown[0]!r}")
    return tuple(name for name in DATASETS if name in names)


def warn_if_suspect(reader: ArchiveReader, export: ArchivedExport) -> None:
    """Print a warning with the reason if an export is suspect."""
    if export.verdict == "suspect":
        warning = f"warning: {export.export_id} of this run is suspect: {suspect_reason(reader, export)}"
        typer.echo(escape_control_characters(warning), err=True)


def confirm(question: str) -> bool:
    """Return the answer to a question, which is no if stdin has ended."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        return False


# -- plan


@dataclass(frozen=True)
class DirectoryOptions:
    """The options of a plan: the datasets, the file with chosen ids, and whether objects that differ are changed.

    With ``apply``, the plan is applied.
    """

    datasets: tuple[str, ...]
    mapping: Path | None
    upsert: bool = field(kw_only=True)
    apply: bool = field(kw_only=True)


@dataclass(frozen=True)
class DirectoryTarget:
    """The tenant that is restored to. ``source`` names the variables with the credentials."""

    source: str
    domain: str
    location_hosts: tuple[str, ...] = ()
    audience: str | None = None

    @classmethod
    def of_options(
        cls, source: str, domain: str | None, location_hosts: Sequence[str] | None, audience: str | None
    ) -> DirectoryTarget:
        """Return the target of the options."""
        if domain is None:
            raise ConfigurationError("--datasets requires --domain, because the plan is made against the tenant")
        hosts = tuple(location_hosts or ())
        check_location_hosts(hosts)
        return cls(source, domain, hosts, audience)

    def exports(self, datasets: Iterable[str], user_fields: Iterable[str] = _USER_FIELDS) -> list[PlannedExport]:
        """Return exports of the current state: each dataset as one export, users with these fields."""
        options: dict[str, Any] = {"location_hosts": list(self.location_hosts)} if self.location_hosts else {}
        if self.audience is not None:
            options["audience"] = self.audience
        return [
            PlannedExport(
                provider="auth0",
                source=self.source,
                dataset=name,
                format="ndjson",
                scope="all",
                endpoint=self.domain,
                secret=self.source,
                request={"fields": [{"name": field} for field in user_fields]} if name == USERS.name else {},
                options=options,
                has_job=name == USERS.name,
            )
            for name in datasets
        ]


@dataclass(frozen=True)
class DirectoryRestore:
    """A restore of a run into a tenant. The plan is written into ``output``, a new folder."""

    reader: ArchiveReader
    run: Run
    target: DirectoryTarget
    output: Path
    options: DirectoryOptions

    def write_plan(self) -> DirectoryPlan:
        """Plan the datasets against the tenant, write the plan, and return it.

        Raises ScopeMissingError with all OAuth scopes that are missing for the reading of the tenant, and, if the plan
        is applied, for the requests that it may contain.
        """
        target, options = self.target, self.options
        archive = DatasetRows(self.reader, self.run, target.source)
        skipped, datasets = self._datasets(archive)
        ids = IdMapping() if options.mapping is None else IdMapping.read(options.mapping)
        read_scopes, write_scopes = required_scopes(datasets, upsert=options.upsert)
        secret = target_credentials(target.source, [*read_scopes, *write_scopes])
        client = target_client(target.domain, secret, target.audience)
        check_scopes(client, [*read_scopes, *(write_scopes if options.apply else ())])
        folder = new_folder(self.output)
        try:
            with (
                show_activity("reading the tenant") as status,
                live_archive(
                    target.exports(live_datasets(datasets)),
                    lambda _: secret,
                    show=lambda text: status.update(printable(text)),
                ) as live,
                plan_writer(folder) as writer,
            ):
                planner = DirectoryPlanner(
                    archive=archive,
                    live=DatasetRows(live.reader, live.run, target.source),
                    connections=connections(client) if ORGANIZATIONS in datasets else [],
                    mapping=ids,
                    datasets=datasets,
                    add=writer.add,
                )
                planner.plan()
            plan = DirectoryPlan(
                run_id=self.run.run_id,
                source=target.source,
                domain=client.domain,
                audience=target.audience,
                upsert=options.upsert,
                sha256=writer.sha256,
                counts={kind: dict(counts) for kind, counts in writer.counts.items() if counts},
                skipped=skipped,
                targets=planner.targets,
            )
            ids.write(folder / MAPPING)
            write_plan(folder, plan)
        except BaseException:
            shutil.rmtree(folder)
            raise
        return plan

    def _datasets(self, archive: DatasetRows) -> tuple[dict[str, str], list[str]]:
        """Return the datasets that the run does not contain, with the reason, and the other datasets."""
        names = self.options.datasets
        reason = f"run {self.run.run_id} does not contain it"
        skipped = {name: reason for name in names if not archive.exports(name)}
        datasets = [name for name in names if name not in skipped]
        if not datasets:
            raise ConfigurationError(
                f"run {self.run.run_id} contains none of the datasets {', '.join(names)} of {self.target.source!r};"
                " `meibo ls` lists the exports"
            )
        for name in datasets:
            for export in archive.exports(name):
                warn_if_suspect(self.reader, export)
        return skipped, datasets


def restore_directory(restore: DirectoryRestore, queueing: Queueing | None, *, yes: bool) -> None:
    """Plan a restore and print the plan; with the option ``apply``, apply it after a confirmation."""
    if restore.options.apply and MEMBERS in restore.options.datasets and queueing is None:
        raise ConfigurationError(QUEUEING_MISSING)
    typer.echo(DIRECTORY_NOT_RESTORABLE, err=True)
    plan = restore.write_plan()
    print_plan(restore.output, plan)
    if restore.options.apply:
        apply_directory_plan(restore.output, queueing, yes=yes)
    elif plan.has_findings:
        raise typer.Exit(EXIT_DIFFERENT)


def live_datasets(datasets: Iterable[str]) -> list[str]:
    """Return the datasets of the tenant that a plan of the datasets needs."""
    return list(dict.fromkeys(name for dataset in datasets for name in LIVE_DATASETS[dataset]))


def required_scopes(datasets: Collection[str], *, upsert: bool) -> tuple[list[str], list[str]]:
    """Return the OAuth scopes for the reading of the tenant, and for the requests of a plan."""
    read: dict[str, None] = {}
    write: dict[str, None] = {}
    for name in live_datasets(datasets):
        read |= dict.fromkeys((*REQUIRED_SCOPES[name], *filter(None, [OPTIONAL_SCOPES.get(name)])))
    for dataset in datasets:
        write |= dict.fromkeys(_WRITE_SCOPES[dataset])
        if dataset == ORGANIZATIONS:
            read[CONNECTIONS_SCOPE] = None
            write |= dict.fromkeys(_UPDATE_SCOPES if upsert else ())
    return list(read), list(write)


def print_plan(folder: Path, plan: DirectoryPlan) -> None:
    """Print the numbers of objects of a plan, and the reasons for those that cannot be restored."""
    columns = (Column("object"), *(Column(state, number=True) for state in STATES))
    rows = [
        [PLURALS[kind], *(format_number(plan.counts[kind].get(state, 0)) for state in STATES)]
        for kind in KINDS
        if kind in plan.counts
    ]
    print_table(TextConsole(), columns, rows)
    for dataset, reason in plan.skipped.items():
        typer.echo(f"skipped: {dataset}: {reason}", err=True)
    reasons = Counter(
        (planned.state, PLURALS[planned.kind], planned.reason)
        for _, planned in (planned_objects(folder) if plan.count("conflict", "impossible") else ())
        if planned.state in ("conflict", "impossible")
    )
    for (state, noun, reason), count in reasons.most_common(_MAX_REASONS_SHOWN):
        typer.echo(escape_control_characters(f"  {state}, {format_number(count)} {noun}: {reason}"))
    if len(reasons) > _MAX_REASONS_SHOWN:
        typer.echo(f"  {len(reasons) - _MAX_REASONS_SHOWN} more reasons are in {OBJECTS}")
    if plan.count("differs") and not plan.upsert:
        typer.echo("objects that differ are not changed without --upsert")
    typer.echo(escape_control_characters(f"plan {plan.sha256[:12]} of run {plan.run_id} in {folder}/"))


# -- apply


def apply_directory_plan(folder: Path, queueing: Queueing | None, *, yes: bool) -> None:
    """Apply the plan in a folder after a confirmation, or continue to apply it."""
    with locked(folder):
        execution = open_plan(folder, queueing)
        plan = execution.plan
        total = sum(plan.applied(kind) for kind in KINDS)
        shown = escape_control_characters(str(folder))
        question = (
            f"Create or change {format_count(total, 'object')} of {plan.domain} as in plan {plan.sha256[:12]} of run"
            f" {plan.run_id}?"
        )
        if total and not yes and not confirm(question):
            typer.echo(f"nothing was sent; `meibo restore --resume {shown}` applies the plan", err=True)
            raise typer.Exit(EXIT_FAILURE)
        try:
            failed = execution.run()
        except KeyboardInterrupt:
            typer.echo(f"interrupted; `meibo restore --resume {shown}` continues", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except MeiboError:
            typer.echo(f"not complete; `meibo restore --resume {shown}` continues", err=True)
            raise
    if failed or plan.has_findings:
        raise typer.Exit(EXIT_DIFFERENT)


@dataclass(frozen=True)
class OpenPlan:
    """The plan in a locked folder, with a client of its tenant. ``source`` is the source of its changes."""

    folder: Path
    plan: DirectoryPlan
    client: Auth0Client
    sender: MembershipSender
    source: str

    def run(self) -> int:
        """Execute the plan, or continue it. Print the results, and return the number of objects that Auth0 rejected."""
        console = TextConsole(stderr=True)
        with open_progress(self.folder) as progress:
            with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
                task = bar.add_task("restore", total=sum(self.plan.applied(kind) for kind in KINDS))
                PlanExecution(
                    self.client,
                    self.folder,
                    self.plan,
                    progress,
                    self.sender,
                    source=self.source,
                    advance=lambda count: bar.advance(task, count),
                ).run()
            return _print_results(self.folder, self.plan, progress)


def open_plan(folder: Path, queueing: Queueing | None) -> OpenPlan:
    """Return the plan in a folder.

    Raises ConfigurationError if the plan has memberships and ``queueing`` is None, or ScopeMissingError with all OAuth
    scopes that are missing for the requests of the plan.
    """
    plan = DirectoryPlan.read(folder)
    if queueing is None and plan.applied("membership") + plan.applied("member_role"):
        raise ConfigurationError(QUEUEING_MISSING)
    _, scopes = required_scopes(_applied_datasets(plan), upsert=plan.upsert)
    client = target_client(plan.domain, target_credentials(plan.source, scopes), plan.audience)
    check_scopes(client, scopes)
    sender = queueing.sender(client) if queueing else DirectSender(client)
    return OpenPlan(folder, plan, client, sender, source=(queueing.source if queueing else None) or plan.source)


def _applied_datasets(plan: DirectoryPlan) -> list[str]:
    kinds = {
        ROLES: ("role",),
        ORGANIZATIONS: ("organization", "connection"),
        ROLE_MEMBERS: ("assignment",),
        MEMBERS: ("membership", "member_role"),
    }
    return [dataset for dataset, names in kinds.items() if any(plan.applied(kind) for kind in names)]


def _print_results(folder: Path, plan: DirectoryPlan, progress: ProgressFile) -> int:
    """Print the results by kind, write the failed objects to a file, and return their number."""
    counts: Counter[tuple[str, str]] = Counter()
    for line, planned in planned_objects(folder):
        result = progress.get(line)
        if result is not None and planned.is_applied(upsert=plan.upsert):
            counts[planned.kind, result.state] += 1
    states = ("done", "queued", "failed")
    columns = (Column("object"), Column("planned", number=True), *(Column(state, number=True) for state in states))
    rows = [
        [PLURALS[kind], format_number(plan.applied(kind)), *(format_number(counts[kind, state]) for state in states)]
        for kind in KINDS
        if kind in plan.counts
    ]
    print_table(TextConsole(), columns, rows)
    failed = list(failed_lines(folder, progress))
    (folder / FAILED).unlink(missing_ok=True)
    if failed:
        replace_file(folder / FAILED, b"".join(failed))
        shown = escape_control_characters(str(folder / FAILED))
        typer.echo(f"Auth0 rejected {format_count(len(failed), 'object')}; the reasons are in {shown}", err=True)
    if sum(counts[kind, "queued"] for kind in KINDS):
        change_id = f"restore-{plan.run_id}-{plan.sha256[:12]}"
        typer.echo(f"`meibo changes outcome {change_id}` shows the outcomes of the queued changes", err=True)
    return len(failed)
