"""Restore roles, organizations and memberships of Auth0: compare them with the tenant, and write and apply a plan."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from meibo.archive.runs import Run
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError
from meibo.exports.plan import PlannedExport
from meibo.formatting import format_number
from meibo.providers.auth0.datasets import USERS
from meibo.providers.auth0.location import check_location_hosts
from meibo_cli.exit_codes import EXIT_DIFFERENT
from meibo_cli.files import new_folder
from meibo_cli.live_archive import live_archive
from meibo_cli.restore.archived_rows import DatasetRows
from meibo_cli.restore.auth0_target import check_scopes, target_client, target_credentials
from meibo_cli.restore.console import warn_if_scopes_missing, warn_if_suspect
from meibo_cli.restore.directory_execution import apply_directory_plan
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
    MEMBERS,
    ORGANIZATIONS,
    DirectoryPlanner,
)
from meibo_cli.restore.directory_requests import connections, live_datasets, required_scopes
from meibo_cli.restore.memberships import QUEUEING_MISSING, Queueing
from meibo_cli.restore.natural_keys import MAPPING, IdMapping
from meibo_cli.terminal import (
    Column,
    TextConsole,
    escape_control_characters,
    print_table,
    printable,
    show_activity,
)

ALL: Final = "all"
DIRECTORY_NOT_RESTORABLE: Final = """\
The option --datasets does not restore:
  - users, connections and applications: import the users of a database connection first, without --datasets
  - roles that users have through groups, invitations, and other properties of organizations and connections
Nothing is removed: members, roles and permissions that only the tenant contains remain.
"""
_MAX_REASONS_SHOWN: Final = 10
_USER_FIELDS: Final = ("user_id", "email", "identities")


def datasets_of(text: str) -> tuple[str, ...]:
    """Return the datasets of the option ``--datasets`` in the order of the restore.

    Raises ConfigurationError if one of the names is not the name of a dataset that can be restored.
    """
    names = DATASETS if text.strip() == ALL else [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in DATASETS]:
        raise ConfigurationError(f"--datasets: expected {', '.join(DATASETS)} or {ALL}, found {unknown[0]!r}")
    return tuple(name for name in DATASETS if name in names)


# -- plan


@dataclass(frozen=True)
class DirectoryTarget:
    """The tenant that is restored. The names of the environment variables with its credentials contain ``source``."""

    source: str
    domain: str
    location_hosts: tuple[str, ...] = ()
    audience: str | None = None

    @classmethod
    def of_options(
        cls, source: str, domain: str | None, location_hosts: Sequence[str] | None, audience: str | None
    ) -> DirectoryTarget:
        """Return the tenant that the options specify.

        Raises ConfigurationError if ``domain`` is None or a location host is invalid.
        """
        if domain is None:
            raise ConfigurationError("--datasets requires --domain, because the restore is compared with the tenant")
        hosts = tuple(location_hosts or ())
        check_location_hosts(hosts)
        return cls(source, domain, hosts, audience)

    def exports(
        self, datasets: Iterable[str], user_fields: Iterable[str] = _USER_FIELDS, connection_id: str | None = None
    ) -> list[PlannedExport]:
        """Return one export of the current state per dataset. Users are exported with these fields.

        With ``connection_id``, only users of this connection are exported.
        """
        users: dict[str, Any] = {"fields": [{"name": field} for field in user_fields]}
        if connection_id is not None:
            users["connection_id"] = connection_id
        options: dict[str, Any] = {"location_hosts": list(self.location_hosts)} if self.location_hosts else {}
        if self.audience is not None:
            options["audience"] = self.audience
        return [
            PlannedExport(
                provider="auth0",
                source=self.source,
                dataset=name,
                format="ndjson",
                scope=connection_id or "all",
                endpoint=self.domain,
                secret=self.source,
                request=users if name == USERS.name else {},
                options=options,
                has_job=name == USERS.name,
            )
            for name in datasets
        ]


@dataclass(frozen=True, kw_only=True)
class DirectoryRestore:
    """A restore of datasets of a run. The plan is written into ``output``, a new folder.

    ``mapping`` is a file of ids that an operator chose. With ``upsert``, objects that differ are changed. With
    ``apply``, the plan is applied. ``queueing`` is None if no option for memberships was used.
    """

    reader: ArchiveReader
    run: Run
    target: DirectoryTarget
    output: Path
    datasets: tuple[str, ...]
    mapping: Path | None = None
    upsert: bool = False
    apply: bool = False
    queueing: Queueing | None = None
    yes: bool = False

    def write_plan(self) -> DirectoryPlan:
        """Compare the datasets with the tenant, write a plan, and return the plan.

        Raises ScopeMissingError if the access token does not contain all OAuth scopes for reading the tenant and, with
        ``apply``, for applying the plan. Without ``apply``, prints a warning if OAuth scopes for applying
        the plan are missing.
        """
        target = self.target
        archive = DatasetRows(self.reader, self.run, target.source)
        skipped, datasets = self._datasets(archive)
        ids = IdMapping() if self.mapping is None else IdMapping.read(self.mapping)
        read_scopes, write_scopes = required_scopes(datasets, upsert=self.upsert)
        secret = target_credentials(target.source, [*read_scopes, *write_scopes])
        client = target_client(target.domain, secret, target.audience)
        check_scopes(client, [*read_scopes, *(write_scopes if self.apply else ())])
        warn_if_scopes_missing(client, write_scopes)
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
                upsert=self.upsert,
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
        """Return the reasons for skipped datasets, and the datasets that the run contains."""
        names = self.datasets
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


def restore_directory(restore: DirectoryRestore) -> None:
    """Write a plan and print it. With ``apply``, apply the plan after a confirmation."""
    if restore.apply and MEMBERS in restore.datasets and restore.queueing is None:
        raise ConfigurationError(QUEUEING_MISSING)
    typer.echo(DIRECTORY_NOT_RESTORABLE, err=True)
    plan = restore.write_plan()
    print_plan(restore.output, plan)
    if restore.apply:
        apply_directory_plan(restore.output, restore.queueing, yes=restore.yes)
    elif plan.has_findings:
        raise typer.Exit(EXIT_DIFFERENT)


def print_plan(folder: Path, plan: DirectoryPlan) -> None:
    """Print the numbers of objects in a plan, and the reasons why objects cannot be restored."""
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
