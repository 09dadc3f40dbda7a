"""``meibo restore``: restore users, roles, organizations and memberships of Auth0, or write CSV files of cybozu.com."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer

from meibo.archive.manifest import ArchivedExport
from meibo.archive.runs import Run, runs
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError
from meibo_cli.files import STDOUT
from meibo_cli.restore.auth0_target import (
    IMPORT_SCOPES,
    READ_SCOPES,
    check_scopes,
    database_connection,
    import_client,
)
from meibo_cli.restore.blocked_users import BlockedRestore, restore_blocked_users
from meibo_cli.restore.console import warn_if_scopes_missing
from meibo_cli.restore.cybozu import CybozuRestore, restore_cybozu
from meibo_cli.restore.directory import (
    DirectoryRestore,
    DirectoryTarget,
    datasets_of,
    restore_directory,
)
from meibo_cli.restore.directory_execution import apply_directory_plan
from meibo_cli.restore.directory_plan import PLAN
from meibo_cli.restore.import_schema import UserSecrets, read_user_secrets
from meibo_cli.restore.memberships import Queueing
from meibo_cli.restore.user_selection import BLOCKED, UserSelection, user_selection
from meibo_cli.restore.users import ImportTarget, UserRestore, restore_users, resume_import
from meibo_cli.selection import (
    DEFAULT_ARCHIVE,
    LATEST,
    PREVIOUS,
    ArchiveOption,
    RunOption,
    matching,
    named_run,
    open_archive,
    single_export,
)
from meibo_cli.stack import DEFAULT_STACK

# The groups of options in --help.
_users_option = partial(typer.Option, rich_help_panel="Choose users")
_files_option = partial(typer.Option, rich_help_panel="Write files")
_import_option = partial(typer.Option, rich_help_panel="Restore into an Auth0 tenant")
_datasets_option = partial(typer.Option, rich_help_panel="Roles, organizations and memberships of Auth0")

# The maximum number of runs that are searched for an export, and the maximum number of run ids in the message.
_MAX_RUNS_SEARCHED: Final = 100
_MAX_RUNS_SHOWN: Final = 5


def restore(
    export: Annotated[
        str,
        typer.Argument(
            help="Auth0: a users export such as acme/users/ndjson/all or, with --datasets, a source such as acme."
            " cybozu.com: a source such as example.",
            show_default=False,
        ),
    ] = "",
    *,
    run: RunOption = LATEST,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
    select: Annotated[
        list[str] | None,
        _users_option(
            "--select",
            help="Restore only this user (Auth0: id, e-mail address or username; cybozu.com: login name). Repeatable.",
        ),
    ] = None,
    select_from: Annotated[
        Path | None,
        _users_option(
            "--select-from",
            help="Auth0: restore only the users that this file of `meibo diff --csv` lists as changed or removed.",
        ),
    ] = None,
    only_fields: Annotated[
        str | None,
        _users_option(
            "--only-fields",
            help="With --select-from and --upsert: restore only these fields (separated by commas) of the users with"
            " a change in one of them.",
        ),
    ] = None,
    expected_run: Annotated[
        str | None,
        _users_option(
            "--expected-run",
            help="With --only-fields, and --apply or --preview: update only users whose fields still have the values of"
            " this run.",
        ),
    ] = None,
    only_connection: Annotated[
        str | None,
        _users_option("--only-connection", help="Auth0: restore only users of the connection with this name."),
    ] = None,
    output: Annotated[Path, _files_option("--output", "-o", help="A new folder for the files.")] = Path("restore"),
    hashes: Annotated[
        Path | None,
        _files_option(
            "--hashes",
            help="Auth0: add the password hashes and MFA factors in this decrypted NDJSON file, which Auth0 Support"
            " exports on request.",
        ),
    ] = None,
    preview: Annotated[
        bool,
        _import_option(
            "--preview",
            help="Compare the users with the tenant, and print how many would be created or changed.",
        ),
    ] = False,
    apply: Annotated[
        bool,
        _import_option("--apply", help="Import the users, or apply the plan of --datasets."),
    ] = False,
    domain: Annotated[
        str | None,
        _import_option("--domain", help="With --apply, --preview or --datasets: the domain of the tenant."),
    ] = None,
    audience: Annotated[
        str | None,
        _import_option(
            "--audience",
            help="If the domain is a custom domain: the identifier of the Management API, which ends with /api/v2/.",
        ),
    ] = None,
    location_host: Annotated[
        list[str] | None,
        _import_option(
            "--location-host",
            help="An additional host from which export files may be downloaded. Repeatable.",
        ),
    ] = None,
    connection_id: Annotated[
        str | None,
        _import_option("--connection-id", help="For users: the id of the database connection to import into."),
    ] = None,
    target_connection: Annotated[
        str | None,
        _import_option(
            "--target-connection",
            help="For users: the name of the connection in --connection-id; required if the users in the export have"
            " a connection with another name, or if the export contains no connections.",
        ),
    ] = None,
    upsert: Annotated[
        bool | None,
        _import_option(
            "--upsert/--no-upsert", help="Update existing users, roles and organizations, or leave them unchanged."
        ),
    ] = None,
    yes: Annotated[bool, _import_option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    resume: Annotated[
        Path | None,
        _import_option("--resume", help="Continue the import, or apply the plan, in the folder of an earlier restore."),
    ] = None,
    datasets: Annotated[
        str | None,
        _datasets_option(
            "--datasets",
            help="The datasets to restore instead of users: roles, organizations, role_members, members (separated by"
            " commas, or all).",
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        _datasets_option("--mapping", help="An edited copy of mapping.csv, which an earlier plan wrote."),
    ] = None,
    queue: Annotated[
        str | None,
        _datasets_option("--queue", help="Send memberships to the queue of the stack as changes of this source."),
    ] = None,
    without_queue: Annotated[
        bool,
        _datasets_option("--without-queue", help="Send memberships directly to the tenant."),
    ] = False,
    stack: Annotated[
        str,
        _datasets_option("--stack", envvar="MEIBO_STACK", help="With --queue: the name of the CloudFormation stack."),
    ] = DEFAULT_STACK,
    configuration: Annotated[
        str,
        _datasets_option("--configuration", help="With --queue: the SSM parameter with the sources of the stack."),
    ] = "/meibo/sources",
) -> None:
    """Restore users of Auth0, or, with --datasets, roles, organizations and memberships.

    Without --apply or --resume, the command writes import files or a plan to a new folder and does not change the
    tenant. For cybozu.com, it writes CSV files, which you import yourself.

    Set the credentials of the tenant in the environment variables MEIBO_<SOURCE>_CLIENT_ID and
    MEIBO_<SOURCE>_CLIENT_SECRET (or MEIBO_<SOURCE>_PRIVATE_KEY).
    """
    if output == STDOUT:
        raise ConfigurationError("--output: expected a new folder for several files, found '-'")
    if (resume is None) == (not export):
        raise ConfigurationError(
            "expected either an export or a source, or --resume with the folder of an earlier restore"
        )
    if preview and (apply or resume is not None):
        raise ConfigurationError(f"--preview and {'--apply' if apply else '--resume'} cannot be used together")
    queueing = Queueing.of_options(queue, stack, configuration, without_queue=without_queue)
    if resume is not None:
        _resume(resume, queueing, yes=yes)
        return
    reader = open_archive(archive)
    named = named_run(reader, run)
    if datasets is not None:
        _require_run_id(run, named, apply=apply)
        tenant = DirectoryTarget.of_options(export, domain, location_host, audience)
        restore_directory(
            DirectoryRestore(
                reader=reader,
                run=named,
                target=tenant,
                output=output,
                datasets=datasets_of(datasets),
                mapping=mapping,
                upsert=bool(upsert),
                apply=apply,
                queueing=queueing,
                yes=yes,
            )
        )
        return
    exports = _restorable(reader, named, export)
    if {archived.folder.address.provider for archived in exports} == {"cybozu"}:
        if apply or preview:
            option = "--apply" if apply else "--preview"
            raise ConfigurationError(f"{option} is for Auth0 only; import the files into cybozu.com yourself")
        restore_cybozu(CybozuRestore(reader, named, exports, output, tuple(select or ())))
        return
    users = single_export(exports, export)
    selection = user_selection(select, select_from, only_fields, upsert=upsert, export_id=users.export_id)
    secrets = _secrets(hashes, selection)
    _require_run_id(run, named, apply=apply)
    expected = None if expected_run is None else named_run(reader, expected_run)
    source = users.folder.address.source
    if BLOCKED in selection.fields:
        if apply and (domain is None or expected is None):
            raise ConfigurationError("--only-fields blocked with --apply requires --domain and --expected-run")
        if preview:
            raise ConfigurationError(
                "--preview and --only-fields blocked cannot be used together; omit --preview to print the number of"
                " users and how many were blocked"
            )
        restore_blocked_users(
            BlockedRestore(
                reader=reader,
                run=named,
                export=users,
                ids=selection.ids or frozenset(),
                output=output,
                client=import_client(source, domain, audience) if apply and domain else None,
                expected_run=expected,
                yes=yes,
            )
        )
        return
    has_target = apply or preview
    _check_expected_run(expected, selection, has_target=has_target)
    target = None
    if has_target:
        if domain is None or connection_id is None or (apply and upsert is None):
            options = (
                "--domain, --connection-id, and --upsert or --no-upsert" if apply else "--domain and --connection-id"
            )
            raise ConfigurationError(f"{'--apply' if apply else '--preview'} requires {options}")
        tenant = DirectoryTarget.of_options(source, domain, location_host, audience)
        client = import_client(source, domain, audience)
        check_scopes(client, IMPORT_SCOPES if apply else READ_SCOPES)
        warn_if_scopes_missing(client, IMPORT_SCOPES)
        target = ImportTarget(client, tenant, database_connection(client, connection_id), target_connection)
    restore_users(
        UserRestore(
            reader=reader,
            export=users,
            output=output,
            selection=selection,
            connection=only_connection,
            secrets=secrets,
            upsert=bool(upsert),
            target=target,
            expected_run=expected,
            preview=preview,
            yes=yes,
        )
    )


def _resume(folder: Path, queueing: Queueing | None, *, yes: bool) -> None:
    if (folder / PLAN).exists():
        apply_directory_plan(folder, queueing, yes=yes)
    else:
        resume_import(folder, yes=yes)


def _secrets(hashes: Path | None, selection: UserSelection) -> dict[str, UserSecrets]:
    if hashes is None:
        return {}
    if selection.fields:
        raise ConfigurationError("--hashes and --only-fields cannot be used together")
    return read_user_secrets(hashes)


def _check_expected_run(expected_run: Run | None, selection: UserSelection, *, has_target: bool) -> None:
    if expected_run is not None and not has_target:
        raise ConfigurationError("--expected-run requires --apply or --preview")
    if expected_run is not None and not selection.fields:
        raise ConfigurationError("--expected-run requires --only-fields")


def _require_run_id(run: str, named: Run, *, apply: bool) -> None:
    if apply and run in (LATEST, PREVIOUS):
        raise ConfigurationError(
            f"--apply requires --run with the id of a run, because {run} can refer to a run with the unwanted changes;"
            f" {run} is now {named.run_id}, and `meibo ls` lists the runs"
        )


def _restorable(reader: ArchiveReader, run: Run, pattern: str) -> list[ArchivedExport]:
    """Return the exports of a run that match the pattern and can be restored.

    Raises ConfigurationError if no export matches. The message lists other runs that contain such exports.
    """

    def of(candidate: Run) -> list[ArchivedExport]:
        return [
            export
            for export in matching(candidate.exports, pattern)
            if export.folder.address.provider == "cybozu" or export.folder.address.dataset == "users"
        ]

    exports = of(run)
    if not exports:
        others = [other.run_id for other in islice(runs(reader), _MAX_RUNS_SEARCHED) if of(other)]
        if others:
            more = ", …" if len(others) > _MAX_RUNS_SHOWN else ""
            raise ConfigurationError(
                f"run {run.run_id} does not contain {pattern!r}; these runs do:"
                f" {', '.join(others[:_MAX_RUNS_SHOWN])}{more}"
            )
        single_export([export for export in run.exports if export.folder.address.dataset == "users"], pattern)
    return exports
