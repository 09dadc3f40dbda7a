"""``meibo history``: the changes of one user in all runs, with memberships and roles."""

from __future__ import annotations

from typing import Any

import pytest

from meibo.archive.keys import ExportAddress
from tests.integration.cli.conftest import Meibo
from tests.support.archives import STAFF, STAFF_CSV, USERS, USERS_CSV, ArchiveBuilder, ndjson

RUNS = [f"202611{day}T180000Z" for day in (18, 19, 20, 21)]
MEMBERS = ExportAddress(provider="auth0", source="acme", dataset="members", format="ndjson", scope="all")
ROLE_MEMBERS = ExportAddress(provider="auth0", source="acme", dataset="role_members", format="ndjson", scope="all")
STAFF_GROUPS = ExportAddress(provider="cybozu", source="example", dataset="user_groups", format="csv", scope="all")
OTHERS = [{"user_id": f"auth0|{n}", "email": f"{n}@example.jp"} for n in range(50)]


def taro(**values: Any) -> dict[str, Any]:
    return {"user_id": "auth0|taro", "email": "taro@example.jp", "blocked": False, **values}


def events(result: Any, user: int = 0) -> list[tuple[str, str, str, list[str]]]:
    return [
        (event["run_id"], event["export_id"], event["change"], event["fields"])
        for event in result.json()[user]["events"]
    ]


def test_changes_of_a_user_are_listed_with_the_runs_that_contain_them(builder: ArchiveBuilder, meibo: Meibo) -> None:
    users = [
        OTHERS,
        [*OTHERS, taro(user_metadata={"country": "JP", "team": "a"})],
        [taro(blocked=True, user_metadata={"country": "BR", "team": "a"}), *OTHERS],
        OTHERS,
    ]
    for run, rows in zip(RUNS, users, strict=True):
        builder.run({USERS: ndjson(rows)}, run)

    result = meibo("history", "auth0|taro", "--json", "--values")

    (history,) = result.json()
    assert history["ids"] == ["auth0|taro"]
    assert [(event["run_id"], event["change"]) for event in history["events"]] == [
        (RUNS[1], "added"),
        (RUNS[2], "changed"),
        (RUNS[3], "removed"),
    ]
    assert history["events"][1]["fields"] == {
        "blocked": {"before": False, "after": True},
        "user_metadata.country": {"before": "JP", "after": "BR"},
    }
    text = meibo("history", "auth0|taro").output
    assert "blocked, user_metadata.country" in text
    assert "BR" not in text
    assert "user_metadata.country: JP → BR" in meibo("history", "auth0|taro", "--values").output


def test_user_is_found_by_an_earlier_email_address_in_any_case(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: ndjson([*OTHERS, taro()])}, RUNS[0])
    builder.run({USERS: ndjson([taro(email="yamada@example.jp"), *OTHERS])}, RUNS[1])

    result = meibo("history", "Taro@Example.jp", "--json")

    assert events(result) == [
        (RUNS[0], USERS.export_id, "present", []),
        (RUNS[1], USERS.export_id, "changed", ["email"]),
    ]


def test_memberships_and_roles_belong_to_the_history(builder: ArchiveBuilder, meibo: Meibo) -> None:
    def member(organization: str, *roles: str) -> dict[str, Any]:
        return {"organization_id": organization, "user_id": "auth0|taro", "roles": [{"id": role} for role in roles]}

    builder.run({USERS: ndjson([taro()]), MEMBERS: ndjson([member("org_a"), member("org_b", "rol_1")])}, RUNS[0])
    builder.run(
        {
            USERS: ndjson([taro()]),
            MEMBERS: ndjson([member("org_b", "rol_2")]),
            ROLE_MEMBERS: ndjson([{"role_id": "rol_3", "user_id": "auth0|taro"}]),
        },
        RUNS[1],
    )
    builder.run({USERS: ndjson([taro()]), MEMBERS: ndjson([member("org_b", "rol_2")]), ROLE_MEMBERS: b""}, RUNS[2])

    result = meibo("history", "taro@example.jp", "--json")

    (history,) = result.json()
    rows = [(event["run_id"], event["change"], event["row"], event["fields"]) for event in history["events"]]
    assert rows == [
        (RUNS[0], "present", "organization_id=org_a", []),
        (RUNS[0], "present", "organization_id=org_b", []),
        (RUNS[1], "removed", "organization_id=org_a", []),
        (RUNS[1], "changed", "organization_id=org_b", ["roles"]),
        (RUNS[1], "present", "role_id=rol_3", []),
        (RUNS[2], "removed", "role_id=rol_3", []),
        (RUNS[0], "present", "", []),
    ]
    assert {
        event["export_id"] for event in meibo("history", "auth0|taro", "acme/members", "--json").json()[0]["events"]
    } == {MEMBERS.export_id}


def test_runs_without_the_export_are_not_removals_and_are_counted(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: ndjson([taro()])}, RUNS[0])
    builder.run({STAFF: ndjson([{"id": "1", "code": "hanako"}])}, RUNS[1])
    builder.run({USERS: ndjson([]), STAFF: ndjson([])}, RUNS[2], suspect={USERS: "no rows"})
    builder.run({USERS: ndjson([taro()])}, RUNS[3])

    result = meibo("history", "auth0|taro", "--json")

    (history,) = result.json()
    assert [(event["run_id"], event["change"], event["suspect"]) for event in history["events"]] == [
        (RUNS[0], "present", False),
        (RUNS[2], "removed", True),
        (RUNS[3], "added", False),
    ]
    assert history["runs_without_export"] == {USERS.export_id: 1}
    text = meibo("history", "auth0|taro").output
    assert "removed (suspect export)" in text
    assert f"1 run without {USERS.export_id}" in text


def test_users_of_several_connections_with_the_same_email_address_are_listed_separately(
    builder: ArchiveBuilder, meibo: Meibo
) -> None:
    builder.run({USERS: ndjson([taro(), taro(user_id="samlp|taro")])}, RUNS[0])
    builder.run({USERS: ndjson([taro()])}, RUNS[1])

    result = meibo("history", "taro@example.jp", "--json")

    assert [history["ids"] for history in result.json()] == [["auth0|taro"], ["samlp|taro"]]
    assert [change for _, _, change, _ in events(result, 1)] == ["present", "removed"]


def test_users_of_csv_files_are_found_with_quotes_and_line_breaks(builder: ArchiveBuilder, meibo: Meibo) -> None:
    header = b'"user_id","email","name"\r\n'
    row = '"\'auth0|taro","\'taro@example.jp","\'山田\n""Taro"""\r\n'.encode()
    builder.run({USERS_CSV: header + row}, RUNS[0], header=True)
    builder.run({USERS_CSV: header + row.replace(b"Taro", b"Jiro")}, RUNS[1], header=True)

    result = meibo("history", "auth0|taro", "--json", "--values")

    (history,) = result.json()
    assert history["events"][1]["fields"] == {"name": {"before": '山田\n"Taro"', "after": '山田\n"Jiro"'}}


def test_users_of_exports_without_ids_are_identified_by_email_address(builder: ArchiveBuilder, meibo: Meibo) -> None:
    for run, name in zip(RUNS[:2], ("Taro", "Jiro"), strict=True):
        builder.run({USERS: ndjson([{"email": "taro@example.jp", "name": name}])}, run)

    result = meibo("history", "TARO@example.jp", "--json")

    assert result.json()[0]["ids"] == ["taro@example.jp"]
    assert [fields for *_, fields in events(result)] == [[], ["name"]]


def test_user_of_cybozu_is_found_by_id_login_and_email_address_in_all_datasets(
    builder: ArchiveBuilder, meibo: Meibo
) -> None:
    groups = [b'"hanako","g1"\r\n"jiro","g1"\r\n', b'"jiro","g1"\r\n"hanako","g1","g2"\r\n']
    for run, valid, csv in zip(RUNS[:2], (True, False), groups, strict=True):
        staff = [{"id": "17", "code": "hanako", "email": "hanako@example.co.jp", "valid": valid}]
        builder.run({STAFF: ndjson(staff), STAFF_CSV: b'"hanako","Hanako"\r\n', STAFF_GROUPS: csv}, run)

    for name in ("17", "hanako", "HANAKO@example.co.jp"):
        result = meibo("history", name, "--json")
        (history,) = result.json()
        assert history["ids"] == ["17", "hanako"]
        changed = [(export, fields) for _, export, change, fields in events(result) if change == "changed"]
        assert changed == [(STAFF_GROUPS.export_id, ["column_3"]), (STAFF.export_id, ["valid"])]


@pytest.mark.parametrize("user_id", ["auth0|山田/太郎", 'auth0|"a\\b"', "auth0|É"])
def test_ids_with_escaped_characters_are_found(builder: ArchiveBuilder, meibo: Meibo, user_id: str) -> None:
    builder.run({USERS: ndjson([*OTHERS, taro(user_id=user_id)])}, RUNS[0])

    assert meibo("history", user_id, "--json").json()[0]["ids"] == [user_id]


def test_only_named_fields_are_listed(builder: ArchiveBuilder, meibo: Meibo) -> None:
    for number, run in enumerate(RUNS):
        builder.run({USERS: ndjson([taro(logins_count=number, blocked=number == 2)])}, run)

    result = meibo("history", "auth0|taro", "--fields", "blocked", "--json")

    assert events(result) == [
        (RUNS[0], USERS.export_id, "present", []),
        (RUNS[2], USERS.export_id, "changed", ["blocked"]),
        (RUNS[3], USERS.export_id, "changed", ["blocked"]),
    ]


def test_unknown_user_is_an_error_without_the_name(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: ndjson([*OTHERS])}, RUNS[0])
    builder.run({USERS: ndjson([{"user_id": "auth0|x", "name": "absent@example.jp"}])}, RUNS[1])

    result = meibo("history", "absent@example.jp")

    assert result.status == 2
    assert result.errors.startswith(
        "no user with this id, login name, e-mail address or phone number was found in 2 runs of "
    )
    assert result.errors.endswith("; check the spelling, or choose another archive with --archive\n")
    assert "absent" not in result.errors
