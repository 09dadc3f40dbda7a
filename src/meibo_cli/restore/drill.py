"""A restore drill: restore a run to an empty tenant, archive the tenant, and compare it with the run.

The drill can be interrupted and continued: each import has its journal, and the plan its progress.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import ValidationError

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError, UnexpectedError, WrongFormatError
from meibo.exports.plan import Plan
from meibo.formatting import format_count
from meibo.providers.auth0.client import Auth0Client
from meibo.providers.auth0.jobs import USERS_SCOPE
from meibo.providers.auth0.organizations import ORGANIZATIONS_SCOPE
from meibo.providers.auth0.roles import TENANT_ROLES_SCOPE
from meibo.validation import StrictModel
from meibo_cli.files import locked_folder, new_folder, replace_file
from meibo_cli.live_archive import live_archive
from meibo_cli.restore.archived_rows import DatasetRows, archived_users
from meibo_cli.restore.auth0_imports import SCOPE
from meibo_cli.restore.auth0_target import (
    CONNECTIONS_SCOPE,
    DATABASE,
    TargetConnection,
    check_scopes,
    target_client,
    target_credentials,
)
from meibo_cli.restore.console import warn_if_suspect
from meibo_cli.restore.directory import DirectoryRestore, DirectoryTarget
from meibo_cli.restore.directory_execution import open_plan
from meibo_cli.restore.directory_plan import PLAN, planned_objects
from meibo_cli.restore.directory_planner import DATASETS
from meibo_cli.restore.directory_requests import connections, live_datasets, required_scopes
from meibo_cli.restore.drill_report import DIFFERENCES, REPORT, DrillComparison, DrillReport
from meibo_cli.restore.import_files import write_files
from meibo_cli.restore.import_jobs import send
from meibo_cli.restore.journal import NAME as JOURNAL
from meibo_cli.restore.journal import Journal, locked_journal
from meibo_cli.restore.memberships import WITHOUT_QUEUE
from meibo_cli.restore.restorable_rows import USER_FIELDS, USERS, Reference, user_connections, users_exports
from meibo_cli.restore.users import new_journal
from meibo_cli.selection import named_run, open_archive
from meibo_cli.terminal import progress_bar

SETTINGS: Final = "drill.json"
DIRECTORY: Final = "directory"
# The lists that contain no objects in an empty tenant, with the OAuth scope and the rate limit of their requests.
_LISTS: Final = {
    "users": (USERS_SCOPE, "users"),
    "organizations": (ORGANIZATIONS_SCOPE, "organizations"),
    "roles": (TENANT_ROLES_SCOPE, "roles"),
}


class DrillSettings(StrictModel):
    """The document ``drill.json``. With ``allow_existing``, the tenant need not be empty."""

    version: Literal[1] = 1
    archive: str
    run_id: str
    source: str
    domain: str
    audience: str | None = None
    location_hosts: tuple[str, ...] = ()
    allow_existing: bool
    started_at: datetime

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the settings in a folder. Raises ConfigurationError if there are none, or if they are invalid."""
        try:
            return cls.model_validate_json((folder / SETTINGS).read_bytes())
        except (FileNotFoundError, ValidationError):
            raise ConfigurationError(f"--resume: {folder}/ contains no drill of this version of Meibo") from None


def check_source(reader: ArchiveReader, run: Run, target: DirectoryTarget) -> None:
    """Raise ConfigurationError if the run does not have the Auth0 source, or if the target is the source's tenant."""
    _, plan = Plan.newest(reader, run.run_id, run.manifest.attempt)
    exports = [export for export in plan.exports if export.source == target.source]
    if not exports or exports[0].provider != "auth0":
        names = ", ".join(sorted({export.source for export in plan.exports if export.provider == "auth0"})) or "none"
        raise ConfigurationError(
            f"expected an Auth0 source of run {run.run_id}, found {target.source!r}; its Auth0 sources are: {names}"
        )
    hosts = {export.endpoint.lower() for export in exports} | {_host(export.options) for export in exports}
    if {target.domain.lower(), _host({"audience": target.audience})} & (hosts - {None}):
        raise ConfigurationError(
            f"--to: {target.domain} is the tenant of the source {target.source}; a drill requires another, empty tenant"
        )


def _host(options: Mapping[str, object]) -> str | None:
    """Return the host of the audience, which is the tenant's own domain if ``domain`` is a custom domain."""
    return urlsplit(str(options.get("audience") or "")).netloc.lower() or None


def object_counts(client: Auth0Client) -> dict[str, int]:
    """Return the numbers of users, organizations and roles of a tenant. Numbers that are 0 are omitted."""
    counts = {}
    for name, (scope, bucket) in _LISTS.items():
        params = (("per_page", "1"), ("page", "0"), ("include_totals", "true"))
        document = client.request("GET", name, params=params, subject=f"the {name}", scope=scope, bucket=bucket)
        total = document.get("total") if isinstance(document, dict) else None
        if not isinstance(total, int):
            raise WrongFormatError(f"{client.name}: expected the number of {name}, found none; check the domain")
        if total:
            counts[name] = total
    return counts


@dataclass(frozen=True)
class Drill:
    """A drill in a folder. ``show`` is called with the name of each step."""

    settings: DrillSettings
    folder: Path
    reader: ArchiveReader
    run: Run
    show: Callable[[str], None]

    @classmethod
    def resume(cls, folder: Path, show: Callable[[str], None]) -> Self:
        """Return the drill in a folder."""
        settings = DrillSettings.read(folder)
        reader = open_archive(settings.archive)
        return cls(settings, folder, reader, named_run(reader, settings.run_id), show)

    @cached_property
    def client(self) -> Auth0Client:
        """The client of the tenant. Raises ScopeMissingError with all OAuth scopes that are missing for the drill."""
        read, write = required_scopes(self.datasets, upsert=False)
        lists = (scope for scope, _ in _LISTS.values())
        scopes = tuple(dict.fromkeys((SCOPE, CONNECTIONS_SCOPE, *lists, *read, *write)))
        secret = target_credentials(self.settings.source, scopes)
        client = target_client(self.settings.domain, secret, self.settings.audience)
        check_scopes(client, scopes)
        return client

    @cached_property
    def archive(self) -> DatasetRows:
        """The datasets of the source in the run."""
        return DatasetRows(self.reader, self.run, self.settings.source)

    @property
    def datasets(self) -> list[str]:
        """The datasets of the run that a plan restores."""
        return [name for name in DATASETS if self.archive.exports(name)]

    @property
    def _target(self) -> DirectoryTarget:
        settings = self.settings
        return DirectoryTarget(settings.source, settings.domain, settings.location_hosts, settings.audience)

    def counts(self) -> dict[str, int]:
        """Return the numbers of archived rows by dataset."""
        exports = [
            *users_exports(self.archive),
            *(export for name in self.datasets for export in self.archive.exports(name)),
        ]
        counts: Counter[str] = Counter()
        for export in exports:
            counts[export.folder.address.dataset] += export.rows or 0
        return counts

    def create(self) -> None:
        """Create the folder with the settings."""
        new_folder(self.folder)
        replace_file(self.folder / SETTINGS, self.settings.model_dump_json(indent=1).encode() + b"\n")

    def execute(self) -> DrillReport:
        """Restore the run, compare it with the tenant, and write the report. An interrupted drill is continued.

        Raises UnexpectedError if a file of users was not imported.
        """
        for export in users_exports(self.archive):
            warn_if_suspect(self.reader, export)
        with locked_folder(self.folder):
            databases = {
                str(row["name"]): TargetConnection(str(row["id"]), str(row["name"]))
                for row in connections(self.client)
                if row.get("strategy") == DATABASE
            }
            self._import_users(databases)
            if self.datasets:
                self._restore_directory()
            report = self._compare(databases)
            report.finished_at = datetime.now(UTC)
            content = json.dumps(report.to_json(), ensure_ascii=False, indent=1)
            replace_file(self.folder / REPORT, content.encode() + b"\n")
        return report

    def _import_users(self, databases: Mapping[str, TargetConnection]) -> None:
        imports = [
            (export, databases[name])
            for export in users_exports(self.archive)
            for name in user_connections(self.archive, export)
            if name in databases
        ]
        for number, (export, connection) in enumerate(imports, 1):
            folder = self.folder / f"{USERS}-{number}"
            if not (folder / JOURNAL).exists():
                self._write_files(export, connection, folder)
            with locked_journal(folder) as journal:
                self._import_files(journal)

    def _import_files(self, journal: Journal) -> None:
        users = format_count(sum(file.users for file in journal.files), "user")
        self.show(f"importing {users} of {journal.export_id} into {journal.connection}")
        with progress_bar("import", sum(file.state != "done" for file in journal.files)) as advance:
            send(self.client, journal, advance=lambda _: advance(1), notify=self.show)
        for file in journal.files:
            if file.state != "done":
                raise UnexpectedError(f"{journal.folder / file.name} was not imported: {file.reason}")
        if failed := sum(file.failed for file in journal.files):
            rejected = format_count(failed, "user")
            self.show(f"Auth0 rejected {rejected}; the reasons are in {journal.folder / 'failed-*.ndjson'}")

    def _write_files(self, export: ArchivedExport, connection: TargetConnection, folder: Path) -> None:
        # The folder exists only if an earlier execution was interrupted before it sent a request.
        shutil.rmtree(folder, ignore_errors=True)
        with archived_users(self.reader, export) as archived:
            written = write_files(
                archived.rows,
                folder,
                names=archived.names,
                text_only=archived.text_only,
                connection=connection.name,
            )
        new_journal(
            written,
            export,
            client=self.client,
            audience=self.settings.audience,
            connection=connection,
            upsert=False,
        )

    def _restore_directory(self) -> None:
        folder = self.folder / DIRECTORY
        if not (folder / PLAN).exists():
            self.show(f"planning {', '.join(self.datasets)}")
            shutil.rmtree(folder, ignore_errors=True)
            DirectoryRestore(
                reader=self.reader,
                run=self.run,
                target=self._target,
                output=folder,
                datasets=tuple(self.datasets),
                apply=True,
            ).write_plan()
        self.show(f"restoring {', '.join(self.datasets)}")
        with locked_folder(folder):
            open_plan(folder, WITHOUT_QUEUE).run()

    def _compare(self, databases: Mapping[str, TargetConnection]) -> DrillReport:
        self.show("archiving the tenant and comparing it with the run")
        settings = self.settings
        report = DrillReport(settings.run_id, settings.domain, settings.allow_existing, settings.started_at)
        secret = target_credentials(self.settings.source, ())
        exports = self._target.exports(dict.fromkeys((USERS, *live_datasets(self.datasets))), USER_FIELDS)
        path = self.folder / DIFFERENCES
        path.unlink(missing_ok=True)
        with (
            live_archive(exports, lambda _: secret) as live,
            os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as differences,
        ):
            DrillComparison(
                archive=self.archive,
                live=DatasetRows(live.reader, live.run, self.settings.source),
                connections=databases.keys(),
                impossible=self._impossible(),
                differences=differences,
                report=report,
            ).run()
        return report

    def _impossible(self) -> dict[Reference, str]:
        """Return the reasons for the objects that the plan cannot restore."""
        return {
            (planned.kind, planned.organization, planned.role, planned.connection, planned.user): planned.reason
            for _, planned in (planned_objects(self.folder / DIRECTORY) if self.datasets else ())
            if planned.state in ("conflict", "impossible")
        }
