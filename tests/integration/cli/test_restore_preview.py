"""``meibo restore --preview``: the users who would be created and changed, compared with the tenant."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from meibo_cli.restore import live_users
from meibo_simulators import FIRST_CONNECTION, SimulatedTenant, Simulators
from tests.integration.cli.conftest import Meibo, invoke
from tests.support.archives import EARLIER, RUN, USERS, ArchiveBuilder, FolderArchive, ndjson

CONNECTION = "Username-Password-Authentication"
SECRET = "only-in-metadata"


def user(number: int, **changes: Any) -> dict[str, Any]:
    identity = {"provider": "auth0", "user_id": f"{number:024}", "connection": CONNECTION}
    profile = {"user_id": f"auth0|{number:024}", "email": f"user{number}@x.jp", "name": f"User {number}"}
    metadata = {"user_metadata": {"number": number, "note": SECRET}} if number % 3 else {}
    return {**profile, **metadata, "identities": [identity], **changes}


ARCHIVED = [
    *(user(number) for number in range(40)),
    user(40, email=None),
    user(41, user_id="google-oauth2|41", identities=[{"provider": "google-oauth2", "user_id": "41"}]),
]
LIVE = [
    *(user(number) for number in range(10, 20)),
    *(user(number, user_metadata={"edited": True}, app_metadata={"edited": True}) for number in range(20, 30)),
    user(30, email="new@x.jp"),
    user(31, blocked=True, nickname="only in the tenant"),
    user(32, name="new", blocked=True),
    user(133, email="user33@x.jp"),
    user(34, user_id="google-oauth2|34", identities=[{"provider": "google-oauth2"}, *user(34)["identities"]]),
    user(150),
]
# The archived users 0 to 9 and 35 to 39 are not in the tenant. The blocked state of users 31 and 32 is not archived.
COUNTS = {"create": 15, "differs": 11, "same": 11, "conflict": 2, "impossible": 2}
ROWS = {
    0: ("create", "", ""),
    10: ("same", "", ""),
    20: ("differs", "user_metadata app_metadata", ""),
    30: ("impossible", "", "an import does not change email"),
    31: ("same", "", ""),
    32: ("differs", "name", ""),
    33: ("conflict", "", "e-mail address of another user"),
    34: ("conflict", "", "account is linked to another user"),
    40: ("impossible", "", "no e-mail address"),
}


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderArchive:
    archive = FolderArchive(tmp_path / "archive")
    ArchiveBuilder(archive).run({USERS: ndjson(ARCHIVED)})
    monkeypatch.setenv("MEIBO_ARCHIVE", str(archive.path))
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return archive


@pytest.fixture
def tenant(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedTenant]:
    tenant = SimulatedTenant("acme", connections={FIRST_CONNECTION: 0})
    tenant.switches.import_seconds = 0.05
    tenant.switches.polls_until_completed = 0
    with ExitStack() as stack:
        simulators = stack.enter_context(Simulators([tenant]))
        for name, value in {**simulators.environment(), **variables(tenant.credentials())}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("meibo_cli.restore.import_jobs.POLL_SECONDS", 0.01)
        for profile in LIVE:
            tenant.directory.put(FIRST_CONNECTION, profile)
        yield tenant


@pytest.fixture(params=["exported", "read one by one"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(live_users, "MAX_USERS_READ", 0 if request.param == "exported" else 100)
    return str(request.param)


@pytest.fixture
def meibo() -> Meibo:
    return invoke


def variables(credentials: dict[str, str]) -> dict[str, str]:
    return {f"MEIBO_ACME_{name.upper()}": value for name, value in credentials.items()}


def restore(tenant: SimulatedTenant, *more: str) -> list[str]:
    target = ["--domain", tenant.domain, "--connection-id", FIRST_CONNECTION]
    return ["restore", "acme", "--run", RUN, *target, "--location-host", tenant.allowed_hosts[0], *more]


def table(output: str) -> dict[str, int]:
    lines = output.splitlines()
    (start,) = (number for number, line in enumerate(lines) if line.startswith("object "))
    return {
        name: int(count) for name, count in zip(lines[start].split()[1:], lines[start + 2].split()[1:], strict=True)
    }


def preview_rows(folder: str) -> dict[str, tuple[str, str, str]]:
    with (Path(folder) / "preview.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["user_id", "action", "fields", "reason"]
    return {user_id: (action, fields, reason) for user_id, action, fields, reason in rows}


def imports(tenant: SimulatedTenant) -> int:
    return sum(request.path.endswith("/users-imports") for request in tenant.requests)


def results(folder: str) -> Counter[str]:
    files = json.loads((Path(folder) / "journal.json").read_bytes())["files"]
    return Counter({name: sum(file[name] for file in files) for name in ("inserted", "updated", "failed")})


@pytest.mark.parametrize("upsert", [True, False])
def test_preview_equals_the_import_of_its_folder(
    tenant: SimulatedTenant, meibo: Meibo, reading: str, upsert: bool
) -> None:
    before = {profile["user_id"]: profile for profile in tenant.directory.users()}

    preview = meibo(*restore(tenant, "--preview", "--upsert" if upsert else "--no-upsert"))

    assert preview.status == 1, preview.output + preview.errors
    assert table(preview.output) == COUNTS
    rows = preview_rows("restore")
    assert {number: rows[user(number)["user_id"]] for number in ROWS} == ROWS
    assert Counter(action for action, _, _ in rows.values()) == COUNTS
    assert not imports(tenant)
    assert {profile["user_id"]: profile for profile in tenant.directory.users()} == before
    assert ("users who differ are not changed without --upsert" in preview.output) == (not upsert)
    assert "`meibo restore --resume restore` imports these users" in preview.errors
    resumed = meibo("restore", "--resume", "restore", "--yes")
    assert resumed.status == 0, resumed.output + resumed.errors
    assert results("restore") == {"inserted": 15, "updated": 11 if upsert else 0, "failed": 0}
    after = {profile["user_id"]: profile for profile in tenant.directory.users()}
    unchanged = [user(number)["user_id"] for number in (10, 30, 31, 133, 150)]
    assert [after[user_id] for user_id in unchanged] == [before[user_id] for user_id in unchanged]
    again = meibo(*restore(tenant, "--preview", "--output", "again"))
    assert table(again.output) == {
        **COUNTS,
        **({"create": 0, "differs": 0, "same": 37} if upsert else {"create": 0, "same": 26}),
    }


@pytest.mark.parametrize("option", ["--upsert", "--no-upsert"])
def test_apply_prints_and_imports_the_numbers_of_its_preview(
    tenant: SimulatedTenant, meibo: Meibo, reading: str, option: str
) -> None:
    preview = meibo(*restore(tenant, "--preview", option))
    applied = meibo(*restore(tenant, "--apply", "--yes", option, "--output", "applied"))

    assert table(applied.output) == table(preview.output) == COUNTS
    assert applied.status == 1
    assert results("applied") == {"inserted": 15, "updated": 11 if option == "--upsert" else 0, "failed": 0}
    assert preview_rows("applied") == preview_rows("restore")
    assert Path("applied/users-0001.json").read_bytes() == Path("restore/users-0001.json").read_bytes()


def test_preview_is_readable_by_its_owner_only_and_contains_no_values(
    tenant: SimulatedTenant, meibo: Meibo, open_umask: None
) -> None:
    result = meibo(*restore(tenant, "--preview"))

    content = Path("restore/preview.csv").read_text(encoding="utf-8")
    assert SECRET in Path("restore/users-0001.json").read_text(encoding="utf-8")
    assert not [text for text in (SECRET, "@x.jp", "User 1") if text in content + result.output + result.errors]
    assert Path("restore/preview.csv").stat().st_mode & 0o777 == 0o600
    assert Path("restore").stat().st_mode & 0o777 == 0o700
    report = json.loads(Path("restore/report.json").read_bytes())
    assert (report["users"], report["files"]) == (15, ["users-0001.json"])


def test_users_of_many_files_are_written_to_few(
    tenant: SimulatedTenant, meibo: Meibo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meibo_cli.restore.import_files.MAX_FILE_BYTES", 500)

    result = meibo(*restore(tenant, "--preview"))

    assert "15 users in 5 files in restore/" in result.output
    written = [row for path in sorted(Path("restore").glob("users-*.json")) for row in json.loads(path.read_bytes())]
    numbers = [*range(10), *range(35, 40)]
    assert [row["user_id"] for row in written] == [f"{number:024}" for number in numbers]


def test_username_of_another_user_is_a_conflict(
    tenant: SimulatedTenant, meibo: Meibo, archive: FolderArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_users, "MAX_USERS_READ", 0)
    tenant.directory.put(FIRST_CONNECTION, user(200, username="taken"))
    other = FolderArchive(archive.path.parent / "other")
    fields = ["user_id", "email", "username", "identities"]
    rows = [user(0, username="Taken"), user(1, username="free")]
    ArchiveBuilder(other).run({USERS: ndjson([{name: row[name] for name in fields} for row in rows])})

    result = meibo(*restore(tenant, "--preview", "--archive", str(other.path)))

    assert table(result.output) == {"create": 1, "differs": 0, "same": 0, "conflict": 1, "impossible": 0}
    assert "conflict, 1 user: username of another user" in result.output


def test_user_who_is_created_after_the_preview_is_reported_as_failed(tenant: SimulatedTenant, meibo: Meibo) -> None:
    meibo(*restore(tenant, "--preview"))
    tenant.directory.put(FIRST_CONNECTION, user(0))

    result = meibo("restore", "--resume", "restore", "--yes")

    assert result.status == 1
    assert "DUPLICATED_USER 1" in result.output
    (failed,) = map(json.loads, Path("restore/failed-users-0001.ndjson").read_text(encoding="utf-8").splitlines())
    assert failed.keys() == {"user_id", "email", "errors"}
    assert failed["user_id"] == f"{0:024}"
    assert failed["errors"][0]["message"] == "The user already exist and upsert parameter is false"
    assert Path("restore/failed-users-0001.ndjson").stat().st_mode & 0o777 == 0o600


def test_undo_is_previewed_against_the_expected_run(
    tenant: SimulatedTenant, meibo: Meibo, archive: FolderArchive
) -> None:
    edited = FolderArchive(archive.path.parent / "edited")
    builder = ArchiveBuilder(edited)
    builder.run({USERS: ndjson([user(number) for number in range(40)])}, EARLIER)
    builder.run({USERS: ndjson([user(number, user_metadata={"edited": True}) for number in range(40)])}, RUN)
    location = ("--archive", str(edited.path))
    assert meibo("diff", EARLIER, RUN, "acme", "--csv", "changed.csv", *location).status == 0
    selection = ("--select-from", "changed.csv", "--only-fields", "user_metadata", "--upsert", "--expected-run", RUN)

    result = meibo(*restore(tenant, "--preview", *selection, *location), "--run", EARLIER)

    # The tenant has ten users of the edit, 13 who are restored, and 17 who were changed later or do not exist.
    assert table(result.output) == {"create": 0, "differs": 10, "same": 13, "conflict": 17, "impossible": 0}
    assert preview_rows("restore")[user(20)["user_id"]] == ("differs", "user_metadata", "")
    assert not imports(tenant)


def test_missing_write_scope_is_a_warning_of_the_preview_and_an_error_of_apply(
    tenant: SimulatedTenant, meibo: Meibo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables(tenant.limited_client("read:users", "read:connections")).items():
        monkeypatch.setenv(name, value)

    preview = meibo(*restore(tenant, "--preview"))
    applied = meibo(*restore(tenant, "--apply", "--yes", "--no-upsert", "--output", "applied"))

    assert table(preview.output) == COUNTS
    assert f"warning: --resume will require the OAuth scopes create:users of Auth0 ({tenant.domain})" in preview.errors
    assert applied.status == 2
    assert f"Auth0 ({tenant.domain}) requires the OAuth scopes create:users; grant them" in applied.errors
    assert not Path("applied").exists()


def test_tenant_that_cannot_be_read_leaves_no_folder(
    tenant: SimulatedTenant, meibo: Meibo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_users, "MAX_USERS_READ", 0)
    arguments = restore(tenant, "--preview")
    arguments[arguments.index("--location-host") + 1] = "files.example.com"

    result = meibo(*arguments)

    assert result.status == 2
    assert "the current state cannot be read: acme/users/ndjson/con_0000000000000001: " in result.errors
    assert not Path("restore").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("acme", "--preview"), "--preview requires --domain and --connection-id"),
        (("acme", "--preview", "--apply"), "--preview and --apply cannot be used together"),
        (("--resume", "folder", "--preview"), "--preview and --resume cannot be used together"),
    ],
)
def test_invalid_options_of_a_preview_are_errors(meibo: Meibo, arguments: tuple[str, ...], message: str) -> None:
    result = meibo("restore", *arguments)

    assert result.status == 2
    assert message in result.errors
