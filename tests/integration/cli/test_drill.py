"""``meibo drill`` restores a run to an empty tenant and reports each difference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from meibo_local.drill import empty_tenant, source_tenant
from meibo_simulators import FIRST_CONNECTION, SimulatedTenant, faults
from meibo_simulators.auth0 import imports
from tests.integration.cli.conftest import CommandResult, invoke
from tests.support.directories import archive_tenant, contents, running

pytestmark = pytest.mark.xdist_group("drill")

# An archive, the id of its run, and the tenant that was archived.
Archived = tuple[Path, str, SimulatedTenant]

NUMBERS = ("expected", "equal", "different", "missing", "impossible", "unexpected")
FIRST, SECOND, SOCIAL = (
    f"users of {name}" for name in ("Username-Password-Authentication", "directory-2", "google-oauth2")
)


def archive_source(folder: Path, *exports: dict[str, Any]) -> Archived:
    """Archive these exports of a tenant, or all datasets."""
    tenant = source_tenant(users=60, organizations=10, members=6, roles=4)
    tenant.switches.polls_until_completed = 0
    with running(tenant):
        run_id = archive_tenant(tenant, folder / "archive", exports=exports)
    return folder / "archive", run_id, tenant


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("meibo_cli.restore.import_jobs.POLL_SECONDS", 0.01)


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Archived:
    return archive_source(tmp_path_factory.mktemp("archived"))


@contextmanager
def serving_empty_tenant() -> Iterator[SimulatedTenant]:
    tenant = empty_tenant()
    tenant.switches.polls_until_completed = 0
    tenant.switches.import_seconds = 0
    with running(tenant):
        yield tenant


@pytest.fixture
def target() -> Iterator[SimulatedTenant]:
    with serving_empty_tenant() as tenant:
        yield tenant


def drill(archived: Archived, target: SimulatedTenant, *more: str) -> CommandResult:
    archive, run_id, _ = archived
    options = ("--archive", str(archive), "--run", run_id, "--location-host", target.file_host)
    domain = () if "--to" in more else ("--to", target.domain)
    confirmation = () if "--no-yes" in more else ("--yes",)
    return invoke("drill", "acme", *options, *domain, *confirmation, *(item for item in more if item != "--no-yes"))


def report() -> Any:
    return json.loads(Path("drill/report.json").read_bytes())


def numbers(name: str) -> tuple[int, ...]:
    return tuple(report()["groups"][name][number] for number in NUMBERS)


def differences() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("drill/differences.ndjson").read_bytes().splitlines()]


def writes(tenant: SimulatedTenant) -> int:
    return sum(request.method != "GET" and "/api/v2/" in request.path for request in tenant.requests)


def test_everything_restorable_comes_back(archived: Archived, target: SimulatedTenant) -> None:
    result = drill(archived, target)

    assert result.status == 0, result.output + result.errors
    source = archived[2]
    assignments = sum(len(source.roles.users(role_id)) for role_id in source.roles.by_id)
    members = sum(len(users) for users in source.memberships.values())
    assert {name: numbers(name) for name in report()["groups"]} == {
        FIRST: (30, 30, 0, 0, 0, 0),
        SECOND: (30, 30, 0, 0, 0, 0),
        SOCIAL: (3, 0, 0, 0, 3, 0),
        "roles": (4, 4, 0, 0, 0, 0),
        "organizations": (10, 10, 0, 0, 0, 0),
        "role_members": (assignments, assignments, 0, 0, 0, 0),
        "members": (members, members - 3, 0, 0, 3, 0),
    }
    assert report()["passed"] is True
    assert report()["impossible"] == [
        {"name": SOCIAL, "reason": "an import accepts only users of database connections", "count": 3},
        {"name": "members", "reason": "the tenant has no user with this id or e-mail address", "count": 3},
    ]
    assert set(report()["fields_not_restorable"]) >= {"created_at", "identities", "last_login", "updated_at"}
    assert differences() == []
    assert re.search(
        rf"^drill passed in \d+ s: every restorable value of run {archived[1]} was restored$", result.output, re.M
    )
    modes = {path.name: path.stat().st_mode & 0o777 for path in Path("drill").iterdir() if path.is_file()}
    assert set(modes.values()) == {0o600}

    restored, original = contents(target), contents(source)
    for organization in original["organizations"].values():
        for user_id in [user_id for user_id in organization["members"] if user_id.startswith("google-oauth2|")]:
            del organization["members"][user_id]
    assert restored["roles"] == original["roles"]
    members_of = {name: body["members"] for name, body in original["organizations"].items()}
    assert {name: body["members"] for name, body in restored["organizations"].items()} == members_of


def test_faults_of_a_restore_are_reported(archived: Archived, target: SimulatedTenant) -> None:
    changed = archived[2].directory.user_id(1)
    lost = archived[2].directory.user_id(31)

    def import_users(directory: Any, job: Any, connection_id: str, rows: list[Any], *, upsert: bool) -> None:
        for row in rows:
            if f"auth0|{row['user_id']}" == changed:
                row["user_metadata"]["country"] = "XX"
                row["blocked"] = not row.get("blocked", False)
        rows = [row for row in rows if f"auth0|{row['user_id']}" != lost]
        imports.import_users(directory, job, connection_id, rows, upsert=upsert)

    target.faults.add("POST /api/v2/roles/*/users", faults.respond(200, "{}"))
    target.faults.add("POST /api/v2/organizations/*/members/*/roles", faults.respond(204))
    with mock.patch("meibo_simulators.auth0.user_routes.import_users", import_users):
        result = drill(archived, target)

    assert result.status == 1, result.output + result.errors
    assert report()["passed"] is False
    assert numbers(FIRST) == (30, 29, 1, 0, 0, 0)
    assert report()["groups"][FIRST]["fields"] == {"blocked": 1, "user_metadata.country": 1}
    assert numbers(SECOND) == (30, 29, 0, 1, 0, 0)
    first_role = next(iter(archived[2].roles.by_id))
    dropped = len(archived[2].roles.users(first_role))
    assert numbers("role_members")[3] == dropped
    assert numbers("members")[2] == 1
    assert report()["groups"]["members"]["fields"] == {"roles": 1}
    assert numbers("roles") == (4, 4, 0, 0, 0, 0)
    assert f"different, 1 {FIRST}: user_metadata.country" in result.output
    assert re.search(r"^drill failed in \d+ s: the differences are in drill/differences\.ndjson$", result.output, re.M)
    by_name = {(row["name"], row["state"]): row for row in differences()}
    assert by_name[FIRST, "different"]["key"] == f"Username-Password-Authentication {changed}"
    assert by_name[SECOND, "missing"]["key"] == f"directory-2 {lost}"


def test_user_who_was_imported_twice_is_unexpected(archived: Archived, target: SimulatedTenant) -> None:
    def import_users(directory: Any, job: Any, connection_id: str, rows: list[Any], *, upsert: bool) -> None:
        imports.import_users(directory, job, connection_id, rows, upsert=upsert)
        if connection_id != next(iter(directory.connections)):
            return
        for user_id, email in (("auth0|other", "other@example.jp"), ("auth0|same", rows[0]["email"])):
            profile = directory.get(f"auth0|{rows[0]['user_id']}")
            identities = [{**profile["identities"][0], "user_id": user_id.partition("|")[2]}]
            directory.put(connection_id, {**profile, "user_id": user_id, "email": email, "identities": identities})

    with mock.patch("meibo_simulators.auth0.user_routes.import_users", import_users):
        result = drill(archived, target)

    assert result.status == 1
    assert numbers(FIRST) == (30, 30, 0, 0, 0, 2)


def test_tenant_of_the_source_is_refused(archived: Archived, target: SimulatedTenant) -> None:
    domain = archived[2].domain

    result = drill(archived, target, "--to", domain.upper(), "--allow-existing")

    assert result.status == 2
    assert result.errors == (
        f"--to: {domain.upper()} is the tenant of the source acme; a drill requires another, empty tenant\n"
    )
    assert not target.requests


def test_custom_domain_of_the_source_is_refused(archived: Archived, target: SimulatedTenant) -> None:
    audience = f"https://{archived[2].domain}/api/v2/"

    result = drill(archived, target, "--to", "login.acme.jp", "--audience", audience)

    assert result.status == 2
    assert "login.acme.jp is the tenant of the source acme" in result.errors


def test_tenant_that_is_not_empty_is_refused_unless_it_is_allowed(archived: Archived, target: SimulatedTenant) -> None:
    target.organizations.create({"name": "other"})
    identity = {"connection": "directory-2", "provider": "auth0", "user_id": "1", "isSocial": False}
    profile = {"user_id": "auth0|1", "email": "other@example.jp", "identities": [identity]}
    target.directory.put("con_0000000000000012", profile)

    refused = drill(archived, target)

    assert refused.status == 2
    assert refused.errors == (
        f"--to: expected an empty tenant, but {target.domain} has 1 user, 1 organization; nothing was sent. Choose"
        " another tenant, or, if the objects may remain, add --allow-existing\n"
    )
    assert writes(target) == 0
    assert not Path("drill").exists()

    allowed = drill(archived, target, "--allow-existing")

    assert allowed.status == 0, allowed.output + allowed.errors
    assert numbers(SECOND) == (30, 30, 0, 0, 0, 1)
    assert numbers("organizations") == (10, 10, 0, 0, 0, 1)


def test_missing_oauth_scopes_are_named_before_anything_is_written(
    archived: Archived, target: SimulatedTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = target.limited_client("read:users", "read:organizations", "read:roles", "create:users")
    for name, value in credentials.items():
        monkeypatch.setenv(f"MEIBO_ACME_{name.upper()}", value)

    result = drill(archived, target)

    assert result.status == 2
    for scope in ("read:connections", "create:roles", "create:organization_members", "create:role_members"):
        assert scope in result.errors
    assert "create:users" not in result.errors
    assert "nothing was sent" in result.errors
    assert writes(target) == 0
    assert not Path("drill").exists()


def test_drill_requires_a_confirmation(archived: Archived, target: SimulatedTenant) -> None:
    result = drill(archived, target, "--no-yes")

    assert result.status == 2
    members = sum(len(users) for users in archived[2].memberships.values())
    assignments = sum(len(archived[2].roles.users(role_id)) for role_id in archived[2].roles.by_id)
    assert (
        f"Restore 63 users, 4 roles, 10 organizations, {assignments} role_members, {members} members of run"
        f" {archived[1]} of acme to the tenant {target.domain}?"
    ) in result.errors
    assert "nothing was sent" in result.errors
    assert writes(target) == 0
    assert not Path("drill").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("other", "--to", "empty.jp.auth0.com"),
            "expected an Auth0 source of run {run}, found 'other'; its Auth0 sources",
        ),
        (("acme",), "expected --to with the domain of an empty tenant"),
        ((), "expected the name of a source, or --resume with the folder of an earlier drill"),
        (("--resume", "."), "--resume: ./ contains no drill of this version of Meibo"),
        (("acme", "--to", "empty.jp.auth0.com", "-o", "-"), "--output: expected a new folder for several files"),
    ],
)
def test_invalid_arguments(
    archived: Archived, target: SimulatedTenant, arguments: tuple[str, ...], message: str
) -> None:
    result = invoke("drill", *arguments, "--archive", str(archived[0]))

    assert result.status == 2
    assert message.format(run=archived[1]) in result.errors


def test_connection_that_the_tenant_does_not_have_is_impossible(archived: Archived, target: SimulatedTenant) -> None:
    del target.directory.connections["con_0000000000000012"]

    result = drill(archived, target)

    assert result.status == 0, result.output + result.errors
    assert numbers(SECOND) == (30, 0, 0, 0, 30, 0)
    reasons = {(item["name"], item["reason"]) for item in report()["impossible"]}
    assert (SECOND, "the tenant has no database connection with this name") in reasons
    assert "enabled connections" in {name for name, _ in reasons}


FIELDS = ["user_id", "email", "identities", "blocked", "user_metadata.country"]


@pytest.mark.parametrize(
    "exports",
    [
        [{"dataset": "users"}],
        [{"dataset": "users", "format": "csv"}],
        [{"dataset": "users", "connection_id": f"con_{n:016d}", "fields": FIELDS} for n in (1, 2)],
        [{"dataset": "users", "connection_id": FIRST_CONNECTION}, {"dataset": "users"}],
    ],
    ids=["all", "csv", "per connection", "several"],
)
def test_users_of_every_kind_of_export_come_back(tmp_path: Path, exports: list[dict[str, Any]]) -> None:
    archived = archive_source(tmp_path, *exports)
    with serving_empty_tenant() as target:
        result = drill(archived, target)

    assert result.status == 0, result.output + result.errors
    assert numbers(FIRST) == numbers(SECOND) == (30, 30, 0, 0, 0, 0)
    assert report()["datasets_not_in_the_run"] == ["roles", "organizations", "role_members", "members"]
    assert f"not in run {archived[1]}: role_members" in result.output
    restored = {profile["user_id"]: profile.get("user_metadata", {}) for profile in target.expected_users()}
    if exports[0].get("format") != "csv":
        countries = {user_id: metadata.get("country") for user_id, metadata in restored.items()}
        original = {profile["user_id"]: profile for profile in archived[2].expected_users()}
        assert countries == {user: original[user].get("user_metadata", {}).get("country") for user in restored}


def test_export_without_connections_is_refused(tmp_path: Path) -> None:
    archived = archive_source(tmp_path, {"dataset": "users", "fields": ["user_id", "email"]})
    with serving_empty_tenant() as target:
        result = drill(archived, target)

    assert result.status == 2
    assert (
        "acme/users/ndjson/all does not contain the connections of its users; add the field identities to the export"
        " and start a new run"
    ) in result.errors
    assert writes(target) == 0


def test_drill_is_continued_after_a_request_with_an_unknown_result(
    archived: Archived, target: SimulatedTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meibo_cli.restore.import_jobs.MAX_JOB_SECONDS", 0.0)
    target.faults.add("POST /api/v2/jobs/users-imports", faults.respond(502))

    interrupted = drill(archived, target)

    assert interrupted.status == 2
    assert "not complete; `meibo drill --resume drill` continues the drill" in interrupted.errors
    assert "UnexpectedError: drill/users-1/users-0001.json was not imported: " in interrupted.errors
    assert not Path("drill/report.json").exists()

    resumed = invoke("drill", "--resume", "drill")

    assert resumed.status == 0, resumed.output + resumed.errors
    assert numbers(FIRST) == (30, 30, 0, 0, 0, 0)


def test_drill_is_continued_after_an_interruption(archived: Archived, target: SimulatedTenant) -> None:
    with mock.patch("meibo_cli.restore.directory_execution.assign_role", side_effect=KeyboardInterrupt):
        interrupted = drill(archived, target)

    assert interrupted.status == 130
    assert "interrupted; `meibo drill --resume drill` continues the drill" in interrupted.errors
    assert invoke("drill", "--resume", "drill").status == 0


def test_users_that_auth0_rejects_are_missing(archived: Archived, target: SimulatedTenant) -> None:
    rejected = archived[2].directory.user_id(2)

    def import_users(directory: Any, job: Any, connection_id: str, rows: list[Any], *, upsert: bool) -> None:
        rows = [{**row, "email": "invalid"} if f"auth0|{row['user_id']}" == rejected else row for row in rows]
        imports.import_users(directory, job, connection_id, rows, upsert=upsert)

    with mock.patch("meibo_simulators.auth0.user_routes.import_users", import_users):
        result = drill(archived, target)

    assert result.status == 1
    assert numbers(FIRST) == (30, 29, 0, 1, 0, 0)
    assert "Auth0 rejected 1 user; the reasons are in drill/users-1/failed-*.ndjson" in result.errors
