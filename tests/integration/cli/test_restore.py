"""``meibo restore``: from an archive into an empty Auth0 tenant, and into files for cybozu.com."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from meibo_simulators import FIRST_CONNECTION, SimulatedDomain, SimulatedTenant, Simulators, faults
from tests.integration.cli.conftest import Meibo
from tests.support.archives import RUN, USERS, USERS_CSV, ArchiveBuilder, FolderArchive
from tests.support.stack import running_system

RESTORABLE = (
    *("user_id", "email", "email_verified", "username", "phone_number", "phone_verified", "name", "given_name"),
    *("family_name", "nickname", "picture", "blocked", "user_metadata", "app_metadata"),
)
SECOND = "con_0000000000000002"

# The tests share an archive, which is written once.
pytestmark = pytest.mark.xdist_group("restore")


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulatedTenant]:
    """An archive of the pipeline: a tenant with two connections, and a domain."""
    folder = tmp_path_factory.mktemp("archived")
    tenant = SimulatedTenant("acme", connections={FIRST_CONNECTION: 90, SECOND: 10})
    tenant.switches.polls_until_completed = 0
    with running_system(tenant, SimulatedDomain("example", users=30)) as system:
        fields = ["user_id", "email", "name", "email_verified", "user_metadata.country", "identities[0].connection"]
        system.configure(
            system.auth0_source({"dataset": "users"}, {"dataset": "users", "format": "csv", "fields": fields}),
            system.cybozu_source({"dataset": "directory", "format": "csv"}),
        )
        assert system.run()["complete"]
        system.aws.download(folder)
    return folder, tenant


@pytest.fixture
def storage(archived: tuple[Path, SimulatedTenant]) -> FolderArchive:
    return FolderArchive(archived[0])


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedTenant]:
    tenant = SimulatedTenant("empty", connections={FIRST_CONNECTION: 0})
    tenant.switches.import_seconds = 0.05
    with ExitStack() as stack:
        simulators = stack.enter_context(Simulators([tenant]))
        for name, value in simulators.environment().items():
            monkeypatch.setenv(name, value)
        for name, value in tenant.credentials().items():
            monkeypatch.setenv(f"MEIBO_ACME_{name.upper()}", value)
        monkeypatch.setattr("meibo_cli.restore.import_jobs._POLL_SECONDS", 0.01)
        yield tenant


def apply(tenant: SimulatedTenant, *more: str) -> list[str]:
    arguments = ["--apply", "--yes", "--domain", tenant.domain, "--connection-id", FIRST_CONNECTION, "--no-upsert"]
    return [*arguments, *more]


def restorable(user: dict[str, Any]) -> dict[str, Any]:
    return {name: user[name] for name in RESTORABLE if user.get(name) is not None}


def test_every_restorable_field_of_a_tenant_is_restored(
    archived: tuple[Path, SimulatedTenant], empty: SimulatedTenant, meibo: Meibo
) -> None:
    result = meibo(
        "restore", "acme/users/ndjson", *apply(empty, "--only-connection", "Username-Password-Authentication")
    )

    assert result.status == 0, result.output + result.errors
    before = [restorable(user) for user in archived[1].expected_users(FIRST_CONNECTION)]
    after = {user["user_id"]: restorable(user) for user in empty.directory.users()}
    assert len(before) == len(after) == 90
    assert [after[user["user_id"]] for user in before] == before
    assert empty.jobs.completion_emails == 0
    assert "10 users skipped: another connection" in result.output
    assert "removed from" in result.output
    assert "passwords and MFA factors" in result.errors


def test_csv_is_restored_without_apostrophes(
    archived: tuple[Path, SimulatedTenant], empty: SimulatedTenant, meibo: Meibo
) -> None:
    result = meibo("restore", "acme/users/csv", *apply(empty, "--only-connection", "Username-Password-Authentication"))

    assert result.status == 0, result.output + result.errors
    fields = ("user_id", "email", "name", "email_verified")
    before = [{name: user[name] for name in fields} for user in archived[1].expected_users(FIRST_CONNECTION)]
    after = {user["user_id"]: {name: user[name] for name in fields} for user in empty.directory.users()}
    assert [after[user["user_id"]] for user in before] == before


def test_single_users_can_be_selected(archived: tuple[Path, SimulatedTenant], meibo: Meibo) -> None:
    first, second = list(archived[1].expected_users(FIRST_CONNECTION))[:2]

    result = meibo("restore", "acme/users/ndjson", "--select", first["user_id"], "--select", second["email"].upper())

    assert result.status == 0, result.output
    users = json.loads(Path("restore/users-0001.json").read_bytes())
    assert [user["email"] for user in users] == [first["email"], second["email"]]
    assert meibo("restore", "acme/users/ndjson", "-o", "b", "--select", "unknown").status == 1
    assert meibo("restore", "acme/users/ndjson").status == 2


def test_existing_users_are_reported(empty: SimulatedTenant, meibo: Meibo) -> None:
    only = ("--only-connection", "Username-Password-Authentication")
    meibo("restore", "acme/users/ndjson", *apply(empty, *only), "-o", "a")

    result = meibo("restore", "acme/users/ndjson", *apply(empty, *only), "-o", "b")

    assert result.status == 1
    assert "DUPLICATED_USER 90" in result.output


def test_users_of_two_connections_are_not_mixed(empty: SimulatedTenant, meibo: Meibo) -> None:
    result = meibo("restore", "acme/users/ndjson", *apply(empty))

    assert result.status == 2
    assert "--only-connection" in result.errors
    assert not list(empty.directory.users())


def test_import_with_an_unknown_result_is_not_repeated(empty: SimulatedTenant, meibo: Meibo) -> None:
    empty.faults.add("POST */users-imports", faults.reset(after_processing=True))

    result = meibo(
        "restore", "acme/users/ndjson", *apply(empty, "--only-connection", "Username-Password-Authentication")
    )

    assert result.status == 1
    assert "uncertain" in result.output
    assert len(empty.jobs.all) == 1


def test_unconfirmed_import_sends_nothing(empty: SimulatedTenant, meibo: Meibo) -> None:
    arguments = [argument for argument in apply(empty) if argument != "--yes"]

    connection = ("--only-connection", "Username-Password-Authentication")
    result = meibo("restore", "acme/users/ndjson", *connection, *arguments)

    assert result.status == 2
    assert "Import" in result.errors
    assert not [request for request in empty.requests if "users-imports" in request.path]


def test_apply_requires_all_its_options(meibo: Meibo) -> None:
    result = meibo("restore", "acme/users/ndjson", "--apply", "--domain", "acme.example")

    assert result.status == 2
    assert "--upsert or --no-upsert" in result.errors
    assert not Path("restore").exists()


def test_import_jobs_stay_within_the_limit_of_two(
    empty: SimulatedTenant, meibo: Meibo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meibo_cli.restore.import_files.MAX_FILE_BYTES", 12_000)

    result = meibo(
        "restore", "acme/users/ndjson", *apply(empty, "--only-connection", "Username-Password-Authentication")
    )

    assert result.status == 0, result.output
    assert len(empty.jobs.all) >= 3
    statuses = [request.status for request in empty.requests if request.path.endswith("/users-imports")]
    assert set(statuses) == {202}


def test_cybozu_files_are_written_as_delivered_in_the_order_of_an_import(storage: FolderArchive, meibo: Meibo) -> None:
    result = meibo("restore", "example")

    assert result.status == 0, result.errors
    names = [Path(line).name for line in result.output.splitlines() if line]
    assert names == [
        *("1-title.csv", "2-organization.csv", "3-user.csv", "4-userOrganizations.csv"),
        *("5-group.csv", "6-userGroups.csv", "7-userServices.csv"),
    ]
    assert "full replace" in result.errors
    (archived_file,) = storage.path.glob("archive/provider=cybozu/**/dataset=organizations/**/organizations.csv*")
    assert Path("restore/2-organization.csv").read_bytes() == archived_file.read_bytes()
    assert "DELETES" in Path("restore/READ-ME-FIRST.txt").read_text(encoding="utf-8")


def test_selected_cybozu_users_are_written_without_the_full_replace_files(storage: FolderArchive, meibo: Meibo) -> None:
    (archived_file,) = storage.path.glob("archive/provider=cybozu/**/dataset=users/format=csv/**/users.csv*")
    login = archived_file.read_bytes().decode("utf-8-sig").split('"')[1]

    result = meibo("restore", "example", "--select", login)

    assert result.status == 0, result.errors
    assert sorted(path.name for path in Path("restore").glob("*.csv")) == [
        *("3-user.csv", "4-userOrganizations.csv", "6-userGroups.csv", "7-userServices.csv")
    ]
    assert Path("restore/3-user.csv").read_bytes().count(b"\r\n") == 1
    assert "full replace" not in result.errors


def test_nothing_is_sent_to_cybozu(meibo: Meibo) -> None:
    result = meibo("restore", "example", "--apply")

    assert result.status == 2
    assert "--apply is for Auth0 only; import the files into cybozu.com yourself" in result.errors


def test_csv_without_an_email_column_cannot_be_imported(tmp_path: Path, meibo: Meibo) -> None:
    body = gzip.compress(b"user_id\r\n'auth0|1\r\n")
    folder = tmp_path / "other"
    ArchiveBuilder(FolderArchive(folder)).run(
        {USERS_CSV: body}, RUN, header=True, request={"fields": [{"name": "user_id"}]}
    )

    result = meibo("restore", "acme", "--archive", str(folder))

    assert result.status == 2
    assert "user_id and email" in result.errors


def test_user_nested_too_deeply_is_skipped(tmp_path: Path, meibo: Meibo) -> None:
    deep = b'{"user_id":"auth0|2","email":"b@x.jp","user_metadata":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001
    body = gzip.compress(b'{"user_id":"auth0|1","email":"a@x.jp"}\n' + deep + b"\n")
    folder = tmp_path / "other"
    ArchiveBuilder(FolderArchive(folder)).run({USERS: body}, RUN)

    result = meibo("restore", "acme", "--archive", str(folder))

    assert result.status == 0, result.errors
    assert "1 user in 1 file in restore/\n  1 user skipped: nested too deeply" in result.output
    assert Path("restore/skipped-nested-too-deeply.ndjson").read_bytes() == deep + b"\n"
    selected = meibo("restore", "acme", "--archive", str(folder), "-o", "one", "--select", "a@x.jp")
    assert "skipped" not in selected.output


def test_line_that_is_not_json_is_written_unchanged_to_a_separate_file(tmp_path: Path, meibo: Meibo) -> None:
    # The archive parses only the first thousand rows and the last row.
    *good, last = [b'{"user_id":"auth0|%d","email":"%d@x.jp"}\n' % (n, n) for n in range(1001)]
    spoiled = b'{"user_id":"auth0|x","email":secret\xff}\n'
    folder = tmp_path / "other"
    ArchiveBuilder(FolderArchive(folder)).run({USERS: gzip.compress(b"".join((*good, spoiled, last)))}, RUN)

    result = meibo("restore", "acme", "--archive", str(folder))

    assert result.status == 0, result.errors
    assert "1,001 users in 1 file in restore/\n  1 user skipped: not JSON" in result.output
    assert "secret" not in result.output + result.errors
    assert Path("restore/skipped-not-JSON.ndjson").read_bytes() == spoiled
