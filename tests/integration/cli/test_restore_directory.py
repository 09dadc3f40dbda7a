"""``meibo restore --datasets``: restore roles, organizations and memberships to another tenant."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meibo_local.aws import LocalAws, local_aws
from meibo_simulators import SimulatedTenant, faults
from tests.integration.cli.conftest import CommandResult, invoke
from tests.support.directories import archive_tenant, contents, empty_tenant, running, source_tenant

pytestmark = pytest.mark.xdist_group("restore_directory")


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, SimulatedTenant]:
    """An archive, the id of its run, and the tenant that was archived."""
    archive = tmp_path_factory.mktemp("archived") / "archive"
    tenant = source_tenant()
    with running(tenant):
        run_id = archive_tenant(tenant, archive)
    return archive, run_id, tenant


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedTenant]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    tenant = empty_tenant()
    with running(tenant):
        yield tenant


def restore(archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant, *more: str) -> CommandResult:
    archive, run_id, _ = archived
    options = ("--archive", str(archive), "--run", run_id, "--domain", target.domain)
    hosts = ("--location-host", target.allowed_hosts[0])
    datasets = () if "--datasets" in more else ("--datasets", "all")
    return invoke("restore", "acme", *options, *hosts, *datasets, *more)


APPLY = ("--apply", "--yes", "--without-queue")


def rows(folder: str = "restore") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "plan.ndjson").read_bytes().splitlines()]


def states(folder: str = "restore") -> Counter[tuple[str, str]]:
    return Counter((row["kind"], row["state"]) for row in rows(folder))


def writes(tenant: SimulatedTenant) -> Counter[str]:
    return Counter(
        request.path.removeprefix("/api/v2/").split("/")[-1]
        for request in tenant.requests
        if request.method in ("POST", "PATCH") and "/api/v2/" in request.path and "jobs" not in request.path
    )


def test_everything_is_restored_to_an_empty_tenant(
    archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant
) -> None:
    preview = restore(archived, target, "-o", "preview")

    assert preview.status == 0, preview.output + preview.errors
    assert not writes(target)
    assert set(Counter(row["state"] for row in rows("preview"))) == {"create"}
    assert Path("preview/plan.ndjson").stat().st_mode & 0o777 == 0o600
    assert Path("preview/plan.json").stat().st_mode & 0o777 == 0o600

    result = restore(archived, target, *APPLY)

    assert result.status == 0, result.output + result.errors
    assert contents(target) == contents(archived[2])
    assert rows("preview") == rows()
    progress = [json.loads(line) for line in Path("restore/progress.ndjson").read_bytes().splitlines()]
    done = {entry["line"] for entry in progress if entry["state"] == "done"}
    assert len(done) == sum(states("preview").values())

    again = restore(archived, target, "-o", "again", *APPLY)

    assert again.status == 0, again.output + again.errors
    assert {state for _, state in states("again")} == {"same"}
    assert sum(states("again").values()) == len(done)


def test_plan_is_applied_later_and_only_if_it_is_unchanged(
    archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant
) -> None:
    assert restore(archived, target).status == 0
    plan = Path("restore/plan.ndjson")
    content = plan.read_bytes()

    plan.write_bytes(content.replace(b'"admin"', b'"owner"', 1))
    changed = invoke("restore", "--resume", "restore", "--yes", "--without-queue")
    plan.write_bytes(content)
    without_way = invoke("restore", "--resume", "restore", "--yes")
    unconfirmed = invoke("restore", "--resume", "restore", "--without-queue", text="n\n")

    assert (changed.status, without_way.status, unconfirmed.status) == (2, 2, 2)
    assert (
        "expected the SHA-256 in plan.json, found a different SHA-256; write a new plan into a new folder"
        in changed.errors
    )
    assert (
        "a restore of memberships requires --queue with a source of the stack, or --without-queue" in without_way.errors
    )
    assert "nothing was sent; `meibo restore --resume restore` applies the plan" in unconfirmed.errors
    assert not writes(target)

    assert invoke("restore", "--resume", "restore", "--yes", "--without-queue").status == 0
    assert contents(target) == contents(archived[2])


def test_existing_objects_that_differ_are_changed_with_upsert_only(
    archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant
) -> None:
    restore(archived, target, "-o", "first", *APPLY)
    role = next(iter(target.roles.by_id.values()))
    role["description"] = "other"
    organization = target.organizations.ids()[0]
    target.organizations.update(organization, {"display_name": "other"})
    connection = target.organizations.connections(organization)[0]
    target.organizations.set_connection_options(organization, connection, {"show_as_button": False})
    before = writes(target)

    kept = restore(archived, target, "-o", "kept", *APPLY)

    assert "objects that differ are not changed without --upsert" in kept.output
    assert writes(target) == before
    differing = [(row["kind"], row["fields"]) for row in rows("kept") if row["state"] == "differs"]
    assert differing == [
        ("role", ["description"]),
        ("organization", ["display_name"]),
        ("connection", ["show_as_button"]),
    ]

    assert restore(archived, target, "-o", "updated", "--upsert", *APPLY).status == 0
    assert contents(target) == contents(archived[2])


def test_role_with_the_same_name_and_other_permissions_is_a_conflict_until_it_is_chosen(
    archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant
) -> None:
    role_id = target.new_id("rol", 5000)
    target.roles.by_id[role_id] = {"id": role_id, "name": "admin", "description": "Role admin"}
    permission = {"resource_server_identifier": "https://other.example.invalid", "permission_name": "delete:all"}
    target.roles.add_permissions(role_id, [permission])

    result = restore(archived, target, *APPLY)

    assert result.status == 1
    conflicts = Counter(row["kind"] for row in rows() if row["state"] == "conflict")
    assert conflicts["role"] == 1
    assert conflicts["assignment"]
    assert conflicts["member_role"]
    assert "the role with this name in the tenant has 1 additional permission" in result.output
    assert not target.roles.users(role_id)

    mapping = Path("restore/mapping.csv").read_text(encoding="utf-8").splitlines()
    mapping = [line + role_id if line.startswith("role,") and line.endswith(",admin,") else line for line in mapping]
    Path("edited.csv").write_text("\n".join(mapping) + "\n", encoding="utf-8")
    chosen = restore(archived, target, "-o", "chosen", "--upsert", "--mapping", "edited.csv", *APPLY)

    assert chosen.status == 0, chosen.output + chosen.errors
    assert target.roles.users(role_id)
    assert len(target.roles.by_id) == len(archived[2].roles.by_id)


def test_name_of_several_roles_is_a_conflict(
    archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant
) -> None:
    for number in (5000, 5001):
        role_id = target.new_id("rol", number)
        target.roles.by_id[role_id] = {"id": role_id, "name": "admin", "description": ""}

    result = restore(archived, target)

    assert result.status == 1
    assert "conflict, 1 roles: the tenant has 2 roles with this name" in result.output


def test_missing_dataset_is_skipped_and_reported(
    archived: tuple[Path, str, SimulatedTenant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = source_tenant()
    with running(source):
        run_id = archive_tenant(source, tmp_path / "part", datasets=("organizations", "members"))
    target = empty_tenant()
    with running(target):
        result = restore((tmp_path / "part", run_id, source), target)
        nothing = restore((tmp_path / "part", run_id, source), target, "-o", "b", "--datasets", "roles")

    assert result.status == 1
    assert f"skipped: roles: run {run_id} does not contain it" in result.errors
    assert f"skipped: role_members: run {run_id} does not contain it" in result.errors
    assert {row["state"] for row in rows() if row["kind"] == "membership"} == {"create"}
    assert states()["member_role", "impossible"]
    assert nothing.status == 2
    assert "contains none of the datasets roles" in nothing.errors
    assert not Path("b").exists()


def test_missing_scopes_are_reported_before_anything_is_sent(
    archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = {scope for scope in target.client.scopes if scope.startswith("read:")}
    for name, value in target.limited_client(*read, "create:roles").items():
        monkeypatch.setenv(f"MEIBO_ACME_{name.upper()}", value)

    preview = restore(archived, target, "-o", "preview")
    result = restore(archived, target, *APPLY)

    assert preview.status == 0, preview.errors
    assert result.status == 2
    missing = (
        "update:roles, create:organizations, create:organization_connections, create:role_members,"
        " create:organization_members, create:organization_member_roles"
    )
    assert f"requires the OAuth scopes {missing}; grant them" in result.errors
    assert f"warning: --resume will require the OAuth scopes {missing} of Auth0 ({target.domain})" in preview.errors
    assert not writes(target)
    assert not Path("restore").exists()

    for name, value in target.limited_client("read:roles", client_id="reader").items():
        monkeypatch.setenv(f"MEIBO_ACME_{name.upper()}", value)
    unread = restore(archived, target, "-o", "unread", "--datasets", "organizations")

    assert unread.status == 2
    assert "read:organizations, read:organization_connections, read:connections" in unread.errors


def test_busy_tenant_expired_token_and_unknown_results_do_not_matter(
    archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant
) -> None:
    busy = faults.too_many_requests(retry_after=0.01)
    for match in ("POST */roles", "POST */enabled_connections", "POST */members", "POST */users"):
        target.faults.add(match, busy, after=1)
    for match in ("POST */roles", "POST */organizations"):
        target.faults.add(match, faults.reset(after_processing=True), after=2)
    expired = {"statusCode": 401, "error": "Unauthorized", "message": "Expired token"}
    target.faults.add("POST */members/*/roles", faults.respond(401, json.dumps(expired)), after=3)

    result = restore(archived, target, *APPLY)

    assert result.status == 0, result.output + result.errors
    assert contents(target) == contents(archived[2])
    assert len(target.roles.by_id) == len(archived[2].roles.by_id)
    assert target.organizations.count() == archived[2].organizations.count()


def test_rejected_objects_are_reported_and_sent_again(
    archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant
) -> None:
    target.switches.permission_servers = frozenset()

    result = restore(archived, target, *APPLY)

    assert result.status == 1
    failed = [json.loads(line) for line in Path("restore/failed.ndjson").read_bytes().splitlines()]
    assert Counter(row["kind"] for row in failed) == {"role": 4}
    assert all("rejected the request for the permissions of role" in row["reason"] for row in failed)

    target.switches.permission_servers = frozenset({"https://api.example.invalid"})
    resumed = invoke("restore", "--resume", "restore", "--yes", "--without-queue")

    assert resumed.status == 0, resumed.output + resumed.errors
    assert not Path("restore/failed.ndjson").exists()
    assert contents(target) == contents(archived[2])
    assert len(target.roles.by_id) == len(archived[2].roles.by_id)


def test_users_of_another_tenant_are_found_by_connection_and_address(
    archived: tuple[Path, str, SimulatedTenant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = empty_tenant(users=0)
    ids = {}
    directory = archived[2].directory
    users = [(home, profile) for home in directory.connections for profile in directory.users(home)]
    for number, (connection, profile) in enumerate(users):
        own_id = f"{number:024x}"
        ids[profile["user_id"]] = f"auth0|{own_id}"
        identity = {**profile["identities"][0], "user_id": own_id, "provider": "auth0"}
        target.directory.put(
            connection,
            {**profile, "email": profile["email"].upper(), "user_id": f"auth0|{own_id}", "identities": [identity]},
        )
    unknown = next(iter(ids))
    target.directory.remove(ids[unknown])
    with running(target):
        result = restore(archived, target, *APPLY)

    assert result.status == 1
    assert "the tenant has no user with this id or e-mail address" in result.output
    impossible = {row["user"] for row in rows() if row["state"] == "impossible"}
    assert impossible == {unknown}
    expected = contents(archived[2])["organizations"]
    for name, organization in contents(target)["organizations"].items():
        members = {ids[user]: roles for user, roles in expected[name]["members"].items() if user != unknown}
        assert organization["members"] == members


def test_limits_of_auth0_are_impossible(
    archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meibo_cli.restore.directory_planner.MAX_TENANT_ROLES", 3)
    monkeypatch.setattr("meibo_cli.restore.directory_planner.MAX_CONNECTIONS", 1)
    monkeypatch.setattr("meibo_cli.restore.directory_planner.MAX_ROLES", 1)

    result = restore(archived, target)

    assert result.status == 1
    reasons = {(row["kind"], row["reason"]) for row in rows() if row["state"] == "impossible"}
    assert ("role", "a tenant can have at most 3 roles") in reasons
    assert ("assignment", "a tenant can have at most 3 roles") in reasons
    assert ("connection", "an organization can have at most 1 connection") in reasons
    assert ("assignment", "a user can have at most 1 role") in reasons
    assert ("member_role", "a member can have at most 1 role") in reasons


@pytest.fixture
def stack(target: SimulatedTenant) -> Iterator[LocalAws]:
    """A stack with the source ``copy``, which is the target."""
    with local_aws() as aws:
        aws.configure({"sources": [target.source({"dataset": "users"})]}, {"meibo/copy": target.credentials()})
        yield aws


QUEUE = ("--apply", "--yes", "--queue", "copy")


def outcomes(stack: LocalAws) -> list[dict[str, Any]]:
    return [json.loads(line) for key in stack.keys("changes/") for line in stack.read(key).splitlines()]


def planned_members(tenant: SimulatedTenant, folder: str = "restore") -> Counter[tuple[str, str]]:
    """Return the organization in the tenant and the user of each planned membership."""
    ids = {body["name"]: body["id"] for body in tenant.expected_organizations()}
    names = {row["organization"]: row["name"] for row in rows(folder) if row["kind"] == "organization"}
    return Counter(
        (ids[names[row["organization"]]], row["target"]) for row in rows(folder) if row["kind"] == "membership"
    )


def test_queued_memberships_are_applied_once_by_the_function(
    archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant, stack: LocalAws
) -> None:
    source = target.source({"dataset": "users"})
    stack.configure({"sources": [{**source, "domain": "a.example"}]}, {})
    other = restore(archived, target, "-o", "other", *QUEUE)
    assert other.status == 2
    assert f"with the domain {target.domain}, found 'copy' with the domain a.example" in other.errors
    assert not writes(target)

    stack.configure({"sources": [source]}, {})
    result = restore(archived, target, *QUEUE)
    queue = stack.changes.source.queue
    count = queue.size()

    # then: the queue contains the memberships, and only their outcomes are missing
    assert result.status == 0, result.output + result.errors
    assert count
    assert not any(target.memberships.values())
    change_id = f"restore-{archived[1]}-{json.loads(Path('restore/plan.json').read_bytes())['sha256'][:12]}"
    assert f"`meibo changes outcome {change_id}` shows the outcomes" in result.errors
    archive = ("--archive", f"s3://{stack.bucket}")
    assert "may still be on the queue" in invoke("changes", "outcome", change_id, *archive).errors

    # when: the restore is interrupted before it records a message that it has sent
    progress = Path("restore/progress.ndjson")
    lines = progress.read_bytes().splitlines(keepends=True)
    progress.write_bytes(b"".join(line for line in lines if b'"queued"' not in line))
    assert invoke("restore", "--resume", "restore", "--yes", "--queue", "copy").status == 0
    assert queue.size() == count

    assert stack.changes.source.drain(60)

    assert contents(target) == contents(archived[2])
    assert Counter((line["organization_id"], line["member"]) for line in outcomes(stack)) == planned_members(target)
    assert {(line["change_id"], line["outcome"]) for line in outcomes(stack)} == {(change_id, "applied")}
    assert stack.changes.dead_letter_count() == 0
    shown = invoke("changes", "outcome", change_id, *archive)
    assert (shown.status, f"{len(outcomes(stack))} applied" in shown.output) == (0, True)

    # when: the restore is resumed, and planned again
    before, applied = writes(target), outcomes(stack)
    assert invoke("restore", "--resume", "restore", "--yes", "--queue", "copy").status == 0
    assert restore(archived, target, "-o", "again", *QUEUE).status == 0

    assert {state for _, state in states("again")} == {"same"}
    assert queue.size() == 0
    assert (writes(target), outcomes(stack)) == (before, applied)


def test_queued_membership_that_auth0_rejects_is_redriven_after_its_repair(
    archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant, stack: LocalAws
) -> None:
    assert restore(archived, target, *QUEUE).status == 0
    user = next(row["target"] for row in rows() if row["kind"] == "membership")
    profile = target.directory.get(user)
    assert profile is not None
    target.directory.remove(user)

    assert stack.changes.source.drain(60)

    memberships = planned_members(target)
    rejected = {pair for pair in memberships if pair[1] == user}
    by_outcome = {
        outcome: {(line["organization_id"], line["member"]) for line in outcomes(stack) if line["outcome"] == outcome}
        for outcome in ("applied", "rejected")
    }
    assert by_outcome == {"applied": set(memberships) - rejected, "rejected": rejected}
    assert {line["code"] for line in outcomes(stack) if line["outcome"] == "rejected"} == {"refused"}
    assert stack.changes.dead_letter_count() == len(rejected)
    (change_id,) = {line["change_id"] for line in outcomes(stack)}
    archive = ("--archive", f"s3://{stack.bucket}")
    shown = invoke("changes", "outcome", change_id, "--rejected", "--json", *archive)
    assert shown.status == 1
    assert {json.loads(line)["member"] for line in shown.output.splitlines()} == {user}

    target.directory.put(next(iter(target.directory.connections)), profile)
    assert invoke("changes", "redrive", "--yes").status == 0
    assert stack.changes.source.drain(60)

    assert contents(target) == contents(archived[2])
    assert stack.changes.dead_letter_count() == 0
    assert invoke("changes", "outcome", change_id, *archive).status == 0


def test_options_are_checked(archived: tuple[Path, str, SimulatedTenant], target: SimulatedTenant) -> None:
    archive, run_id, _ = archived
    location = ("--archive", str(archive), "--run", run_id)
    messages = [
        (("--datasets", "all"), "--datasets requires --domain"),
        (("--datasets", "users", "--domain", target.domain), "--datasets: expected roles, organizations"),
        (
            ("--datasets", "all", "--domain", target.domain, "--apply"),
            "a restore of memberships requires --queue with a source of the stack, or --without-queue",
        ),
        (
            ("--datasets", "all", "--queue", "a", "--without-queue"),
            "--queue and --without-queue cannot be used together",
        ),
    ]
    for options, message in messages:
        result = invoke("restore", "acme", *location, *options)
        assert result.status == 2
        assert message in result.errors
    latest = invoke(
        "restore", "acme", "--archive", str(archive), "--domain", target.domain, "--datasets", "all", *APPLY
    )
    assert "--apply requires --run with the id of a run" in latest.errors
