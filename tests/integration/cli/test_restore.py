"""``meibo restore``: restore an archive to an empty Auth0 tenant and to files for cybozu.com."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from meibo.archive.keys import ExportAddress
from meibo_cli.files import locked_folder
from meibo_simulators import FIRST_CONNECTION, SimulatedDomain, SimulatedTenant, Simulators, faults
from meibo_simulators.auth0.directory import Connection
from tests.integration.cli.conftest import Meibo
from tests.support.archives import EARLIER, RUN, STAFF, USERS, USERS_CSV, ArchiveBuilder, FolderArchive, ndjson
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
        monkeypatch.setattr("meibo_cli.restore.import_jobs.POLL_SECONDS", 0.01)
        yield tenant


def target(tenant: SimulatedTenant) -> list[str]:
    hosts = ["--location-host", tenant.allowed_hosts[0]]
    return ["--domain", tenant.domain, "--connection-id", FIRST_CONNECTION, *hosts]


def apply(tenant: SimulatedTenant, *more: str) -> list[str]:
    arguments = ["--apply", "--yes", "--run", RUN, *target(tenant)]
    return [*arguments, *more] if "--upsert" in more else [*arguments, "--no-upsert", *more]


def restorable(user: dict[str, Any]) -> dict[str, Any]:
    # An empty object and absent metadata are equal.
    return {name: user[name] for name in RESTORABLE if user.get(name) not in (None, {})}


def sent_files(tenant: SimulatedTenant) -> list[int]:
    return [request.status for request in tenant.requests if request.path.endswith("/users-imports")]


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


def test_password_hashes_and_mfa_factors_are_imported_and_never_shown(
    archived: tuple[Path, SimulatedTenant], empty: SimulatedTenant, meibo: Meibo
) -> None:
    first, second, third, *_ = (user["user_id"][6:] for user in archived[1].expected_users(FIRST_CONNECTION))
    bcrypt = "$2b$10$" + "aB3./" * 10 + "xyz"
    lines: list[dict[str, Any]] = [
        {"_id": {"$oid": first}, "email": "a@x.jp", "passwordHash": bcrypt, "connection": "c"},
        {"_id": {"$oid": "0" * 24}, "alt_id": second, "passwordHash": bcrypt.replace("$10$", "$12$")},
        {"user_id": f"auth0|{third}", "mfa_factors": [{"totp": {"secret": "JBSWY3DPEHPK3PXP"}}]},
        {"user_id": "auth0|absent", "passwordHash": bcrypt},
    ]
    Path("hashes.ndjson").write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    only = ("--only-connection", "Username-Password-Authentication", "--hashes", "hashes.ndjson")

    result = meibo("restore", "acme/users/ndjson", *apply(empty, *only))

    assert result.status == 0, result.output + result.errors
    assert "password hashes or MFA factors for 3 users" in result.output
    secrets = {user_id: value for user_id, value in empty.directory.secrets.items() if value}
    assert secrets == {
        f"auth0|{first}": {"password_hash": bcrypt},
        f"auth0|{second}": {
            "custom_password_hash": {"algorithm": "bcrypt", "hash": {"value": bcrypt.replace("$10$", "$12$")}}
        },
        f"auth0|{third}": {"mfa_factors": [{"totp": {"secret": "JBSWY3DPEHPK3PXP"}}]},
    }
    shown = (
        result.output
        + result.errors
        + Path("restore/journal.json").read_text()
        + Path("restore/report.json").read_text()
    )
    assert "$2b$" not in shown
    assert "JBSWY3DPEHPK3PXP" not in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"user_id": "auth0|1", "passwordHash": "secret-value"}\n',
            "line 1 of hashes.ndjson: expected a bcrypt hash",
        ),
        (b"\n{}\n", "line 2 of hashes.ndjson: expected the user in user_id, alt_id or _id.$oid, found none"),
        (b"[]\n", "line 1 of hashes.ndjson: expected a JSON object, found another value"),
        (b'{"user_id": "1"}\n', "expected passwordHash, custom_password_hash or mfa_factors, found none"),
        (
            b'{"user_id": "1", "mfa_factors": []}\n' * 2,
            "line 2 of hashes.ndjson: expected one line per user, found a second line of this user",
        ),
        (b"\x85\x01\xff", "expected NDJSON in hashes.ndjson, found binary data; decrypt the file first"),
        (None, "--hashes: the file hashes.ndjson does not exist"),
    ],
)
def test_invalid_file_of_password_hashes_is_an_error_without_values(
    meibo: Meibo, content: bytes | None, message: str
) -> None:
    if content is not None:
        Path("hashes.ndjson").write_bytes(content)

    result = meibo("restore", "acme/users/ndjson", "--hashes", "hashes.ndjson")

    assert result.status == 2
    assert message in result.errors
    assert "secret-value" not in result.errors
    assert not Path("restore").exists()


def test_profile_that_exceeds_the_allowance_of_auth0_is_reported_as_failed(
    builder: ArchiveBuilder, empty: SimulatedTenant, meibo: Meibo, tmp_path: Path
) -> None:
    folder = FolderArchive(tmp_path / "large")
    users = [
        {"user_id": f"auth0|{n}", "email": f"{n}@x.jp", "user_metadata": {"a": "x" * size}}
        for n, size in enumerate((100, 20_000, 200_000))
    ]
    ArchiveBuilder(folder).run({USERS: ndjson(users)})
    more = ("--archive", str(folder.path), "--target-connection", "Username-Password-Authentication")

    result = meibo("restore", "acme/users/ndjson", *apply(empty, *more))

    assert result.status == 1
    assert "2 profiles larger than 10 KB, which Auth0 may reject (PROFILE_SIZE_EXCEEDED)" in result.output
    assert "PROFILE_SIZE_EXCEEDED 1" in result.output
    assert {user["user_id"] for user in empty.directory.users()} == {"auth0|0", "auth0|1"}


def test_users_who_are_the_same_in_the_tenant_are_not_sent(empty: SimulatedTenant, meibo: Meibo) -> None:
    only = ("--only-connection", "Username-Password-Authentication")
    meibo("restore", "acme/users/ndjson", *apply(empty, *only), "-o", "a")

    result = meibo("restore", "acme/users/ndjson", *apply(empty, *only), "-o", "b")

    assert result.status == 0, result.output
    assert "0 users in 0 files in b/" in result.output
    assert "no users to import" in result.errors
    assert sent_files(empty) == [202]


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
    assert "not complete; `meibo restore --resume restore` continues the import" in result.errors
    assert len(empty.jobs.all) == 1
    resumed = meibo("restore", "--resume", "restore", "--yes")
    assert resumed.status == 0, resumed.output + resumed.errors
    assert "90 users found in the tenant" in resumed.output
    assert sent_files(empty) == [0]


def test_custom_domain_is_imported_into_and_resumed_with_its_audience(empty: SimulatedTenant, meibo: Meibo) -> None:
    empty.tokens.api_host = "acme.jp.auth0.com"
    empty.faults.add("POST */users-imports", faults.reset(after_processing=True))
    arguments = apply(empty, "--only-connection", "Username-Password-Authentication")

    refused = meibo("restore", "acme/users/ndjson", *arguments)
    result = meibo("restore", "acme/users/ndjson", *arguments, "--audience", "https://acme.jp.auth0.com/api/v2/")
    resumed = meibo("restore", "--resume", "restore", "--yes")

    assert refused.errors == (
        f"Auth0 ({empty.domain}) has no API with the audience https://{empty.domain}/api/v2/; if the domain is a custom"
        " domain, set the audience to the Management API of the tenant, such as https://acme.jp.auth0.com/api/v2/\n"
    )
    assert (refused.status, result.status, resumed.status) == (2, 1, 0)
    assert "90 users found in the tenant" in resumed.output


def test_unconfirmed_import_sends_nothing(empty: SimulatedTenant, meibo: Meibo) -> None:
    arguments = [argument for argument in apply(empty) if argument != "--yes"]

    connection = ("--only-connection", "Username-Password-Authentication")
    result = meibo("restore", "acme/users/ndjson", *connection, *arguments)

    assert result.status == 2
    assert f"Import 90 users of run {RUN} into the connection Username-Password-Authentication" in result.errors
    assert "nothing was sent; `meibo restore --resume restore` imports the files" in result.errors
    assert not sent_files(empty)
    assert meibo("restore", "--resume", "restore", "--yes").status == 0
    assert len(list(empty.directory.users())) == 90
    assert sent_files(empty) == [202]


def test_apply_requires_all_its_options(meibo: Meibo) -> None:
    result = meibo("restore", "acme/users/ndjson", "--apply", "--run", RUN, "--domain", "acme.example")

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
    assert set(sent_files(empty)) == {202}
    journal = json.loads(Path("restore/journal.json").read_bytes())
    assert {file["state"] for file in journal["files"]} == {"done"}
    assert sum(file["inserted"] for file in journal["files"]) == 90
    assert Path("restore/journal.json").stat().st_mode & 0o777 == 0o600


def test_apply_requires_the_id_of_a_run(empty: SimulatedTenant, meibo: Meibo) -> None:
    arguments = [argument for argument in apply(empty) if argument not in ("--run", RUN)]

    result = meibo("restore", "acme/users/ndjson", *arguments)

    assert result.status == 2
    assert (
        "--apply requires --run with the id of a run, because latest can refer to a run with the unwanted changes;"
        f" latest is now {RUN}, and `meibo ls` lists the runs"
    ) in result.errors
    assert not Path("restore").exists()


def test_users_are_not_imported_into_another_connection(empty: SimulatedTenant, meibo: Meibo) -> None:
    empty.directory.connections[FIRST_CONNECTION].name = "staff"
    only = ("--only-connection", "Username-Password-Authentication")

    result = meibo("restore", "acme/users/ndjson", *apply(empty, *only))

    assert result.status == 2
    assert "is the connection 'staff', expected 'Username-Password-Authentication'" in result.errors
    assert not Path("restore").exists()
    assert meibo("restore", "acme/users/ndjson", *apply(empty, *only, "--target-connection", "staff")).status == 0
    assert {user["identities"][0]["connection"] for user in empty.directory.users()} == {"staff"}


def test_connection_of_an_export_without_connections_must_be_named(
    tmp_path: Path, empty: SimulatedTenant, meibo: Meibo
) -> None:
    users = ndjson([{"user_id": "auth0|1", "email": "a@x.jp"}])
    ArchiveBuilder(FolderArchive(tmp_path / "other")).run({USERS: users}, RUN)
    arguments = ("acme", *apply(empty), "--archive", str(tmp_path / "other"))

    result = meibo("restore", *arguments)

    name = "Username-Password-Authentication"
    assert result.status == 2
    assert (
        "the export does not contain the connection of its users; if all users belong to the connection"
        f" '{name}', add --target-connection '{name}'"
    ) in result.errors
    assert not sent_files(empty)
    assert meibo("restore", *arguments, "--target-connection", name, "-o", "b").status == 0
    assert sent_files(empty) == [202]


def test_restore_without_users_sends_nothing(tmp_path: Path, empty: SimulatedTenant, meibo: Meibo) -> None:
    ArchiveBuilder(FolderArchive(tmp_path / "other")).run({USERS: ndjson([{"user_id": "sms|1", "email": "a@x.jp"}])})

    result = meibo("restore", "acme", *apply(empty), "--archive", str(tmp_path / "other"))

    assert result.status == 0, result.errors
    assert "no users to import" in result.errors
    assert not sent_files(empty)


@pytest.mark.parametrize(
    ("connection_id", "message"),
    [
        ("con_9999999999999999", "has no connection con_9999999999999999; correct the id"),
        (SECOND, "expected a database connection, but con_0000000000000002 has the strategy samlp; correct the id"),
    ],
)
def test_unsuitable_connection_is_an_error(
    empty: SimulatedTenant, meibo: Meibo, connection_id: str, message: str
) -> None:
    empty.directory.connections[SECOND] = Connection(SECOND, "saml", "samlp")

    result = meibo("restore", "acme/users/ndjson", *apply(empty, "--connection-id", connection_id))

    assert result.status == 2
    assert message in result.errors
    assert not Path("restore").exists()


def test_mistyped_connection_is_an_error(meibo: Meibo) -> None:
    result = meibo("restore", "acme/users/ndjson", "--only-connection", "Username-Pasword-Authentication")

    assert result.status == 2
    assert "one of: Username-Password-Authentication, directory-2; found no user of" in result.errors
    assert not Path("restore").exists()


def test_selected_user_who_is_not_found_is_not_sent(empty: SimulatedTenant, meibo: Meibo) -> None:
    result = meibo("restore", "acme/users/ndjson", *apply(empty, "--select", "unknown@example.com"))

    assert result.status == 1
    assert "1 of the selected users is not in this export; nothing was sent" in result.errors
    assert not sent_files(empty)


def test_mass_edit_of_metadata_is_undone(
    archived: tuple[Path, SimulatedTenant], empty: SimulatedTenant, meibo: Meibo
) -> None:
    only = ("--only-connection", "Username-Password-Authentication")
    assert meibo("restore", "acme/users/ndjson", *apply(empty, *only), "-o", "a").status == 0
    before = {user["user_id"]: restorable(user) for user in archived[1].expected_users(FIRST_CONNECTION)}
    for user in list(empty.directory.users()):
        changes = {"user_metadata": {"edited": True}, "app_metadata": {"edited": True}, "nickname": "edited"}
        empty.directory.put(FIRST_CONNECTION, {**user, **changes})

    result = meibo("restore", "acme/users/ndjson", *apply(empty, *only, "--upsert"), "-o", "b")

    assert result.status == 0, result.output + result.errors
    assert {user["user_id"]: restorable(user) for user in empty.directory.users()} == before
    assert sum("user_metadata" not in user for user in before.values())


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """An archive of two runs of 300 users; between them, the metadata of 200 users and other fields were edited."""

    def user(number: int, **changes: Any) -> dict[str, Any]:
        identity = {"provider": "auth0", "user_id": f"{number:024}", "connection": "Username-Password-Authentication"}
        user = {"user_id": f"auth0|{number:024}", "email": f"user{number}@x.jp", "name": f"={number}", "blocked": False}
        metadata = {"user_metadata": {"number": number}} if number % 3 else {}
        return {**user, **metadata, "identities": [identity], **changes}

    before = [user(number) for number in range(300)]
    after = [
        user(number, user_metadata={"edited": True}, app_metadata={"edited": True}) if number < 200 else user(number)
        for number in range(299)
    ]
    after[0]["name"] = after[250]["name"] = after[251]["name"] = "new"
    after.append({**user(500), "user_id": "auth0|added"})
    builder = ArchiveBuilder(FolderArchive(tmp_path / "edited"))
    builder.run({USERS: ndjson(before)}, EARLIER)
    builder.run({USERS: ndjson(after)}, RUN)
    return tmp_path / "edited"


def rows_of(archive: Path, run: str) -> list[dict[str, Any]]:
    (path,) = archive.glob(f"archive/**/run={run}/users.ndjson*")
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_only_the_edited_fields_of_the_edited_users_are_undone(
    edited: Path, empty: SimulatedTenant, meibo: Meibo
) -> None:
    for row in rows_of(edited, RUN):
        empty.directory.put(FIRST_CONNECTION, row)
    archive = ("--archive", str(edited))
    assert meibo("diff", EARLIER, RUN, "acme", "--csv", "changed.csv", *archive).status == 0
    arguments = ("--select-from", "changed.csv", "--only-fields", "user_metadata,app_metadata")

    result = meibo("restore", "acme", *apply(empty, "--upsert"), "--run", EARLIER, *arguments, *archive)

    assert result.status == 0, result.output + result.errors
    assert "200 users in 1 file in restore/" in result.output
    written = json.loads(Path("restore/users-0001.json").read_bytes())
    assert len(written) == 200
    assert {name for user in written for name in user} == {"user_id", "email", "user_metadata", "app_metadata"}
    before, after = ({row["user_id"]: row for row in rows_of(edited, run)} for run in (EARLIER, RUN))
    live = {user["user_id"]: user for user in empty.directory.users()}
    assert live.keys() == after.keys()
    for user_id, user in live.items():
        for name in ("user_metadata", "app_metadata"):
            assert user.get(name, {}) == before.get(user_id, after[user_id]).get(name, {})
        assert user["name"] == after[user_id]["name"]


def test_undo_does_not_replace_later_changes(edited: Path, empty: SimulatedTenant, meibo: Meibo) -> None:
    before, after = ({row["user_id"]: row for row in rows_of(edited, run)} for run in (EARLIER, RUN))
    for row in after.values():
        empty.directory.put(FIRST_CONNECTION, row)
    later, restored, deleted, *_ = after
    empty.directory.put(FIRST_CONNECTION, {**after[later], "user_metadata": {"later": True}})
    empty.directory.put(FIRST_CONNECTION, before[restored])
    empty.directory.remove(deleted)
    archive = ("--archive", str(edited))
    meibo("diff", EARLIER, RUN, "acme", "--csv", "changed.csv", *archive)
    arguments = ("--select-from", "changed.csv", "--only-fields", "user_metadata,app_metadata", "--expected-run", RUN)

    result = meibo("restore", "acme", *apply(empty, "--upsert"), "--run", EARLIER, *arguments, *archive)

    assert result.status == 0, result.output + result.errors
    assert result.output.splitlines()[:3] == [
        "197 users in 1 file in restore/",
        "  2 users skipped: changed since the expected run",
        "  1 user skipped: already restored",
    ]
    skipped = Path("restore/skipped-changed-since-the-expected-run.ndjson").read_bytes().splitlines()
    assert [json.loads(line)["user_id"] for line in skipped] == [later, deleted]
    live = {user["user_id"]: user for user in empty.directory.users()}
    assert live[later]["user_metadata"] == {"later": True}
    assert deleted not in live
    assert all(
        user.get("user_metadata", {}) == before[user_id].get("user_metadata", {})
        for user_id, user in live.items()
        if user_id in before and user_id != later
    )


@pytest.fixture
def blocked(tmp_path: Path, empty: SimulatedTenant) -> Path:
    """An archive of two runs of 60 users, and a tenant with these users. Between the runs, 50 users were blocked."""

    def user(number: int, *, blocked: bool) -> dict[str, Any]:
        connection = {"provider": "auth0", "user_id": str(number), "connection": "Username-Password-Authentication"}
        prefix = "auth0" if number % 2 else "google-oauth2"
        state = {"blocked": blocked} if blocked or number % 3 else {}
        return {"user_id": f"{prefix}|{number}", "email": f"{number}@x.jp", "identities": [connection], **state}

    builder = ArchiveBuilder(FolderArchive(tmp_path / "blocked"))
    builder.run({USERS: ndjson([user(number, blocked=number == 55) for number in range(60)])}, EARLIER)
    after = [user(number, blocked=number < 50) for number in range(60)]
    builder.run({USERS: ndjson(after)}, RUN)
    for profile in after:
        empty.directory.put(FIRST_CONNECTION, profile)
    return tmp_path / "blocked"


def undo_blocked(tenant: SimulatedTenant, archive: Path, *more: str) -> list[str]:
    selection = ["--select-from", "changed.csv", "--only-fields", "blocked", "--upsert", "--run", EARLIER]
    target = ["--apply", "--yes", "--domain", tenant.domain, "--expected-run", RUN]
    return ["restore", "acme", *selection, *target, "--archive", str(archive), *more]


def test_blocked_state_of_all_connections_is_undone_unless_it_changed_later(
    blocked: Path, empty: SimulatedTenant, meibo: Meibo
) -> None:
    empty.directory.put(FIRST_CONNECTION, {**(empty.directory.get("auth0|1") or {}), "blocked": False})
    empty.directory.put(FIRST_CONNECTION, {**(empty.directory.get("auth0|55") or {}), "blocked": True})
    empty.directory.remove("auth0|3")
    assert meibo("diff", EARLIER, RUN, "acme", "--csv", "changed.csv", "--archive", str(blocked)).status == 0

    result = meibo(*undo_blocked(empty, blocked))

    assert result.status == 1
    assert result.output.splitlines() == [
        f"51 users, 1 of them blocked in run {EARLIER}",
        "  48 users: restored",
        "  2 users: already restored",
        "  1 user: not in the tenant",
    ]
    states = {user["user_id"]: bool(user.get("blocked")) for user in empty.directory.users()}
    assert [user_id for user_id, state in states.items() if state] == ["auth0|55"]
    assert len(Path("restore/results.ndjson").read_bytes().splitlines()) == 51
    assert Path("restore/results.ndjson").stat().st_mode & 0o777 == 0o600


def test_failed_undo_of_the_blocked_state_continues_when_it_is_repeated(
    blocked: Path, empty: SimulatedTenant, meibo: Meibo
) -> None:
    meibo("diff", EARLIER, RUN, "acme", "--csv", "changed.csv", "--archive", str(blocked))
    error = json.dumps({"statusCode": 400, "error": "Bad Request", "message": "no", "errorCode": "invalid_body"})
    empty.faults.add("PATCH */users/*", faults.respond(400, error, {"Content-Type": "application/json"}), after=20)

    failed = meibo(*undo_blocked(empty, blocked))
    repeated = meibo(*undo_blocked(empty, blocked, "--output", "again"))

    assert failed.status == 2
    assert "invalid_body" in failed.errors.splitlines()[-1]
    assert repeated.status == 0, repeated.errors
    assert repeated.output.splitlines()[1:] == ["  31 users: restored", "  20 users: already restored"]
    patched = [request.path for request in empty.requests if request.method == "PATCH" and request.status == 200]
    assert len(patched) == len(set(patched)) == 51


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("--domain", "--only-fields blocked with --apply requires --domain and --expected-run"),
        ("--expected-run", "--only-fields blocked with --apply requires --domain and --expected-run"),
    ],
)
def test_undo_of_the_blocked_state_has_requirements(
    blocked: Path, empty: SimulatedTenant, meibo: Meibo, without: str, message: str
) -> None:
    meibo("diff", EARLIER, RUN, "acme", "--csv", "changed.csv", "--archive", str(blocked))
    arguments = undo_blocked(empty, blocked)
    index = arguments.index(without)

    result = meibo(*arguments[:index], *arguments[index + 2 :])

    assert result.status == 2
    assert message in result.errors
    assert not [request for request in empty.requests if request.method == "PATCH"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--expected-run", RUN), "--expected-run requires --apply or --preview"),
        (("--expected-run", "20261101T180000Z"), "no run 20261101T180000Z"),
    ],
)
def test_expected_run_has_requirements(
    edited: Path, empty: SimulatedTenant, meibo: Meibo, arguments: tuple[str, ...], message: str
) -> None:
    target = () if arguments[1] == RUN else apply(empty, "--upsert")

    result = meibo("restore", "acme", *target, "--run", EARLIER, *arguments, "--archive", str(edited))

    assert result.status == 2
    assert message in result.errors


def test_changed_and_removed_users_are_selected_from_a_file(edited: Path, meibo: Meibo) -> None:
    archive = ("--archive", str(edited))
    meibo("diff", EARLIER, RUN, "acme", "--csv", "changed.csv", *archive)

    result = meibo("restore", "acme", "--run", EARLIER, "--select-from", "changed.csv", *archive)

    assert result.status == 0, result.errors
    users = json.loads(Path("restore/users-0001.json").read_bytes())
    assert [int(user["user_id"]) for user in users] == [*range(200), 250, 251, 299]
    missing = meibo("restore", "acme", "--run", RUN, "--select-from", "changed.csv", *archive, "-o", "b")
    assert missing.status == 1
    assert "1 of the selected users is not in this export" in missing.errors


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, (), "the file changed.csv does not exist"),
        ("a,b\n", (), "expected a file of `meibo diff --csv` with the columns export, change, key, fields"),
        ("export,change,key,fields\nx,y\n", (), "changed.csv is damaged"),
        (
            "export,change,key,fields\nother,changed,a,b\n",
            (),
            "contains no user of acme/users/ndjson/all; its exports",
        ),
        ("", ("--only-fields", "email", "--upsert"), "found email"),
        ("", ("--only-fields", "blocked,name", "--upsert"), "restore blocked and the other fields with two commands"),
        ("", ("--only-fields", ",", "--upsert"), "found none"),
        ("", ("--only-fields", "name"), "--only-fields requires --select-from and --upsert"),
        ("", ("--select", "a"), "--select and --select-from cannot be used together"),
        (
            "export,change,key,fields\nacme/users/ndjson/all,changed,auth0|1,name\n",
            ("--only-fields", "user_metadata", "--upsert"),
            "no user of acme/users/ndjson/all in which user_metadata changed",
        ),
    ],
)
def test_invalid_selection_from_a_file_is_an_error(
    edited: Path, meibo: Meibo, content: str | None, arguments: tuple[str, ...], message: str
) -> None:
    if content is not None:
        Path("changed.csv").write_text(content, encoding="utf-8")
    options = ("--run", EARLIER, "--select-from", "changed.csv", "--archive", str(edited))

    result = meibo("restore", "acme", *options, *arguments)

    assert result.status == 2
    assert message in result.errors
    assert not Path("restore").exists()


def test_update_with_parts_of_metadata_is_an_error(empty: SimulatedTenant, meibo: Meibo) -> None:
    result = meibo("restore", "acme/users/csv", *apply(empty, "--upsert"))

    assert result.status == 2
    message = (
        "--upsert replaces all metadata of a user, but the export contains only user_metadata.country; use an export"
        " with complete metadata, or --no-upsert"
    )
    assert message in result.errors
    assert not sent_files(empty)


def test_changed_file_is_not_sent(empty: SimulatedTenant, meibo: Meibo) -> None:
    arguments = [argument for argument in apply(empty) if argument != "--yes"]
    meibo("restore", "acme/users/ndjson", "--only-connection", "Username-Password-Authentication", *arguments)
    path = Path("restore/users-0001.json")
    path.write_bytes(path.read_bytes() + b" ")

    result = meibo("restore", "--resume", "restore", "--yes")

    assert result.status == 2
    assert result.errors == (
        "restore/users-0001.json: expected the SHA-256 in journal.json, found a different SHA-256; repeat the restore"
        " with a new folder\n"
    )
    assert not sent_files(empty)


@pytest.mark.parametrize(
    ("journal", "message"),
    [
        (None, "restore/journal.json does not exist"),
        ("{", "expected JSON"),
        ('{"version": 2}', "version: expected 1"),
        ('{"version": 1, "files": [{"name": "../x"}]}', "files[0].name"),
    ],
)
def test_invalid_journal_is_an_error(meibo: Meibo, journal: str | None, message: str) -> None:
    if journal is not None:
        Path("restore").mkdir()
        Path("restore/journal.json").write_text(journal, encoding="utf-8")

    result = meibo("restore", "--resume", "restore")

    assert result.status == 2
    assert message in result.errors


def test_folder_is_sent_by_one_process_only(meibo: Meibo) -> None:
    Path("restore").mkdir()

    with locked_folder(Path("restore")):
        result = meibo("restore", "--resume", "restore")

    assert result.status == 2
    assert (
        f"another process ({os.getpid()}) is writing to restore/; wait until it has ended, or choose another folder"
        in result.errors
    )


def test_export_and_resumed_folder_exclude_each_other(meibo: Meibo) -> None:
    for arguments in ((), ("acme", "--resume", "restore")):
        result = meibo("restore", *arguments)
        assert result.status == 2
        assert (
            "expected either an export or a source, or --resume with the folder of an earlier restore" in result.errors
        )


def test_run_without_the_export_names_the_runs_that_have_it(tmp_path: Path, meibo: Meibo) -> None:
    builder = ArchiveBuilder(FolderArchive(tmp_path / "other"))
    users = ndjson([{"user_id": "auth0|1", "email": "a@x.jp"}])
    builder.run({USERS: users}, EARLIER)
    builder.run({STAFF: ndjson([{"code": "a"}])}, RUN)

    result = meibo("restore", "acme/users/ndjson", "--archive", str(tmp_path / "other"))

    assert result.status == 2
    assert f"run {RUN} does not contain 'acme/users/ndjson'; these runs do: {EARLIER}" in result.errors


def test_suspect_export_is_restored_with_a_warning(tmp_path: Path, meibo: Meibo) -> None:
    users = ndjson([{"user_id": "auth0|1", "email": "a@x.jp"}])
    ArchiveBuilder(FolderArchive(tmp_path / "other")).run({USERS: users}, RUN, suspect={USERS: "1 row, 90 before"})

    result = meibo("restore", "acme", "--archive", str(tmp_path / "other"))

    assert result.status == 0
    assert "warning: acme/users/ndjson/all of this run is suspect: 1 row, 90 before" in result.errors


def test_losses_and_users_who_cannot_be_imported_are_counted(tmp_path: Path, meibo: Meibo) -> None:
    own = {"provider": "auth0", "user_id": "1", "connection": "own"}
    linked = {"provider": "google-oauth2", "user_id": "2", "connection": "google-oauth2"}
    rows: list[dict[str, Any]] = [
        {"user_id": "auth0|1", "email": "a@x.jp", "identities": [own, linked]},
        {"user_id": "auth0|2", "email": "A@x.jp", "identities": [{**own, "user_id": "2"}]},
        {"user_id": "auth0|3", "email": "no address", "identities": [{**own, "user_id": "3"}]},
        {
            "user_id": "google-oauth2|4",
            "email": "g@x.jp",
            "identities": [linked],
            "blocked": True,
            "app_metadata": {"a": 1},
        },
    ]
    ArchiveBuilder(FolderArchive(tmp_path / "other")).run({USERS: ndjson(rows)}, RUN)

    result = meibo("restore", "acme", "--archive", str(tmp_path / "other"))

    assert result.status == 0
    assert result.output.splitlines()[:7] == [
        "1 user in 1 file in restore/",
        "  1 user skipped: e-mail address of another user",
        "  1 user skipped: invalid e-mail address",
        "  1 user skipped: another connection",
        "  not restored for 1 user: linked accounts",
        "  not restored for 1 user: metadata of a user without a database connection",
        "  not restored for 1 user: blocked state of a user without a database connection",
    ]
    report = json.loads(Path("restore/report.json").read_bytes())
    assert report["connections"] == {"own": 3}
    assert report["losses"] == {
        "linked accounts": 1,
        "metadata of a user without a database connection": 1,
        "blocked state of a user without a database connection": 1,
    }


def test_cybozu_files_are_written_as_delivered_in_the_order_of_an_import(storage: FolderArchive, meibo: Meibo) -> None:
    result = meibo("restore", "example")

    assert result.status == 0, result.errors
    names = [Path(line).name for line in result.output.splitlines() if line]
    assert names == [
        *("1-title.csv", "2-organization.csv", "3-user.csv", "4-userOrganizations.csv"),
        *("5-group.csv", "6-userGroups.csv", "7-userServices.csv"),
    ]
    assert "DANGER: the organization file replaces all organizations." in result.errors
    (archived_file,) = storage.path.glob("archive/provider=cybozu/**/dataset=organizations/**/organizations.csv*")
    assert Path("restore/2-organization.csv").read_bytes() == archived_file.read_bytes()
    instructions = Path("restore/READ-ME-FIRST.txt").read_text(encoding="utf-8")
    for text in (
        "DELETES every organization",
        "no header row",
        "A blank cell removes the value",
        "Do not save the files with Excel",
        "3-user.csv has 2 custom items; the domain must have the same items in the same order",
        (
            "the organizations that the import deletes are unknown, because no later run contains organizations;"
            " archive the domain with `meibo run`, then repeat this command"
        ),
    ):
        assert text in instructions
    assert "in the files but not in" not in instructions


def test_selected_cybozu_users_are_written_without_the_full_replace_files(storage: FolderArchive, meibo: Meibo) -> None:
    (archived_file,) = storage.path.glob("archive/provider=cybozu/**/dataset=users/format=csv/**/users.csv*")
    login = archived_file.read_bytes().decode("utf-8-sig").split('"')[1]

    result = meibo("restore", "example", "--select", login)

    assert result.status == 0, result.errors
    assert sorted(path.name for path in Path("restore").glob("*.csv")) == [
        *("3-user.csv", "4-userOrganizations.csv", "6-userGroups.csv", "7-userServices.csv")
    ]
    assert Path("restore/3-user.csv").read_bytes().count(b"\r\n") == 1
    assert "DANGER: the organization file replaces all organizations." not in result.errors


def cybozu(dataset: str, format: str = "csv") -> ExportAddress:  # the term of the configuration
    return ExportAddress(provider="cybozu", source="example", dataset=dataset, format=format, scope="all")


def csv_file(*rows: str) -> bytes:
    return "".join(f"{row}\r\n" for row in rows).encode()


def test_deleted_organizations_and_missing_codes_of_cybozu_files_are_listed(tmp_path: Path, meibo: Meibo) -> None:
    builder = ArchiveBuilder(FolderArchive(tmp_path / "other"))
    user = '"u1","name","*","*"' + ',""' * 21
    files = {
        cybozu("organizations"): csv_file('"o1","a","","","","",""', '"o2","b","","","","gone",""'),
        cybozu("users"): csv_file(user + ',"x","y"'),
        cybozu("users", "ndjson"): ndjson([{"code": "u1", "customItemValues": [{"code": "ext"}, {"code": "seat"}]}]),
        cybozu("user_organizations"): csv_file('"u1","o1","t9"', '"u2","o9",""'),
        cybozu("titles"): csv_file('"t1","c","","",""'),
        cybozu("user_groups"): csv_file('"u1","g1"'),
    }
    builder.run(files, EARLIER)
    builder.run({cybozu("organizations"): csv_file('"o1","a"', '"new1","n"', '"new2","n"')}, RUN)
    archive = ("--archive", str(tmp_path / "other"))

    result = meibo("restore", "example", "--run", EARLIER, *archive)

    assert result.status == 0, result.errors
    notes = [line.removeprefix("note: ") for line in result.errors.splitlines() if line.startswith("note: ")]
    assert notes == [
        "3-user.csv has 2 custom items; the domain must have the same items in the same order: ext, seat",
        f"2-organization.csv DELETES 2 organizations of run {RUN}, listed in deleted-organizations.txt: new1, new2",
        "2 organizations in the files but not in 2-organization.csv: gone, o9",
        "1 title in the files but not in 1-title.csv: t9",
        "the domain must already contain 1 group: g1",
        "1 user in the files but not in 3-user.csv: u2",
    ]
    assert Path("restore/deleted-organizations.txt").read_text(encoding="utf-8") == "new1\nnew2\n"
    assert all(note in Path("restore/READ-ME-FIRST.txt").read_text(encoding="utf-8") for note in notes)
    selected = meibo("restore", "example", "--run", EARLIER, *archive, "--select", "u1", "-o", "u1")
    notes = [line.removeprefix("note: ") for line in selected.errors.splitlines() if line.startswith("note: ")]
    assert notes[1:] == [
        "the domain must already contain 1 organization: o1",
        "the domain must already contain 1 title: t9",
        "the domain must already contain 1 group: g1",
    ]


def test_domain_without_csv_names_the_other_way(tmp_path: Path, meibo: Meibo) -> None:
    ArchiveBuilder(FolderArchive(tmp_path / "other")).run({STAFF: ndjson([{"code": "a"}])}, RUN)

    result = meibo("restore", "example", "--archive", str(tmp_path / "other"))

    assert result.status == 2
    assert "Domains of kintone.com have no CSV API" in result.errors


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
