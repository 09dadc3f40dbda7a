"""Convert an exported user to a user of the import's schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meibo.providers.auth0.fields import DEFAULT_FIELDS
from meibo_cli.restore.auth0_imports import MAX_FILE_BYTES
from meibo_cli.restore.import_files import MAX_PROFILE_BYTES, write_files
from meibo_cli.restore.import_schema import Converter, Skipped, primary_connection

NAMES = {field["name"]: field.get("export_as", field["name"]) for field in DEFAULT_FIELDS["ndjson"]}


def convert(
    row: dict[str, Any], *, text_only: bool = False, names: dict[str, str] | None = None
) -> tuple[Any, Skipped]:
    skipped = Skipped()
    converter = Converter(names=names or {name: name for name in row}, text_only=text_only, skipped=skipped)
    return converter.convert(row), skipped


@pytest.mark.parametrize(
    ("exported", "imported"),
    [("auth0|abc", "abc"), ("auth0|auth0|abc", "auth0|abc"), ("auth0|a|b", "a|b"), ("auth0|auth0|", "auth0|")],
)
def test_prefix_of_a_user_id_is_removed_once(exported: str, imported: str) -> None:
    user, _ = convert({"user_id": exported, "email": "a@example.jp"})

    assert user["user_id"] == imported


def test_fields_that_cannot_be_imported_are_skipped_and_counted() -> None:
    row = {
        "user_id": "auth0|1",
        "email": "a@example.jp",
        "name": None,
        "blocked": True,
        "email_verified": "perhaps",
        "created_at": "2026-01-01T00:00:00Z",
        "identities": [{"connection": "c", "provider": "auth0"}],
        "app_metadata": {"plan": "x", "email": "b", "user_id": "c"},
        "user_metadata": {"email": "x", "deep": [{"a": None}]},
    }

    user, skipped = convert(row)

    assert user == {
        "user_id": "1",
        "email": "a@example.jp",
        "blocked": True,
        "app_metadata": {"plan": "x"},
        "user_metadata": {"email": "x", "deep": [{"a": None}]},
    }
    assert dict(skipped.fields) == {
        "email_verified (not a boolean)": 1,
        "created_at": 1,
        "identities": 1,
        "app_metadata.email": 1,
        "app_metadata.user_id": 1,
    }


def test_renamed_and_nested_fields_are_restored() -> None:
    names = {
        "user_id": "Id",
        "email": "Email",
        "user_metadata.country": "country",
        "app_metadata.a.b": "app_metadata.a.b",
        "app_metadata.email": "x",
        "identities[0].connection": "Connection",
    }
    row = {"Id": "auth0|1", "Email": "e@x.jp", "country": "JP", "app_metadata.a.b": "1", "x": "y", "Connection": "c"}

    user, skipped = convert(row, names=names)

    assert user == {
        "user_id": "1",
        "email": "e@x.jp",
        "user_metadata": {"country": "JP"},
        "app_metadata": {"a": {"b": "1"}},
    }
    assert dict(skipped.fields) == {"app_metadata.email": 1, "identities[0].connection": 1}


@pytest.mark.parametrize("reverse", [False, True])
def test_field_and_its_nested_field_are_merged(reverse: bool) -> None:
    row = {
        "user_id": "auth0|1",
        "email": "e@x.jp",
        "user_metadata": {"z": 1},
        "user_metadata.a": {"b": 1, "c": 2},
        "user_metadata.a.b": 1,
        "app_metadata.x.y.z": "in",
        "app_metadata.x": {"y": {"w": "side"}},
    }

    user, skipped = convert(dict(reversed(row.items())) if reverse else row)

    assert user["user_metadata"] == {"z": 1, "a": {"b": 1, "c": 2}}
    assert user["app_metadata"] == {"x": {"y": {"w": "side", "z": "in"}}}
    assert not skipped.fields


@pytest.mark.parametrize("reverse", [False, True])
def test_string_instead_of_an_object_is_skipped(reverse: bool) -> None:
    row = {"user_id": "auth0|1", "email": "e@x.jp", "user_metadata.a": "text", "user_metadata.a.b": "1"}

    user, skipped = convert(dict(reversed(row.items())) if reverse else row, text_only=True)

    assert user["user_metadata"] == {"a": {"b": "1"}}
    assert dict(skipped.fields) == {"user_metadata.a (not an object)": 1}


def test_strings_of_a_csv_are_converted_to_their_types() -> None:
    row = {
        "user_id": "auth0|1",
        "email": "e@x.jp",
        "email_verified": "true",
        "blocked": "false",
        "name": "",
        "nickname": "'",
    }

    user, _ = convert(row, text_only=True)

    assert user == {"user_id": "1", "email": "e@x.jp", "email_verified": True, "blocked": False, "nickname": "'"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"user_id": "auth0|1"}, "no e-mail address"),
        ({"user_id": "auth0|1", "email": None}, "no e-mail address"),
        ({"user_id": "google-oauth2|1", "email": "e@x.jp"}, "another connection"),
        ({"user_id": "auth0|1", "email": "no address"}, "invalid e-mail address"),
        ({"user_id": "auth0|1", "email": "a@b@x.jp"}, "invalid e-mail address"),
        ({"email": "e@x.jp"}, "no user id"),
    ],
)
def test_user_that_cannot_be_imported_is_skipped(row: dict[str, Any], reason: str) -> None:
    assert convert(row)[0] == reason


def test_users_of_a_connection_can_be_selected() -> None:
    converter = Converter(
        names={name: name for name in ("user_id", "email", "identities")},
        text_only=False,
        skipped=Skipped(),
        connection="here",
    )
    row = {"user_id": "auth0|1", "email": "e@x.jp"}

    assert isinstance(converter.convert({**row, "identities": [{"provider": "auth0", "connection": "here"}]}), dict)
    assert converter.convert({**row, "identities": [{"provider": "auth0", "connection": "there"}]}) == (
        "another connection"
    )
    assert converter.convert(row) == "another connection"


@pytest.mark.parametrize("reverse", [False, True])
def test_connection_of_a_linked_account_is_not_the_connection_of_the_user(reverse: bool) -> None:
    identities = [
        {"provider": "auth0", "user_id": "1", "connection": "own"},
        {"provider": "auth0", "user_id": "2", "connection": "linked"},
    ]
    fields = {"identities": identities[::-1] if reverse else identities}

    assert primary_connection("auth0|1", fields) == "own"
    assert primary_connection("auth0|2", fields) == "linked"
    user, skipped = convert({"user_id": "auth0|1", "email": "e@x.jp", **fields})
    assert "identities" not in user
    assert +skipped.losses == {"linked accounts": 1}


def test_second_user_with_an_address_that_differs_only_in_case_is_skipped() -> None:
    names = {name: name for name in ("user_id", "email", "identities[0].connection")}
    converter = Converter(names=names, text_only=False, skipped=Skipped())
    row = {"email": "e@x.jp", "identities[0].connection": "a"}

    assert isinstance(converter.convert({**row, "user_id": "auth0|1"}), dict)
    assert converter.convert({**row, "user_id": "auth0|2", "email": "E@X.jp"}) == "e-mail address of another user"
    assert isinstance(converter.convert({**row, "user_id": "auth0|3", "identities[0].connection": "b"}), dict)


def test_absent_metadata_is_removed_by_an_update() -> None:
    names = {name: name for name in ("user_id", "email", "user_metadata", "app_metadata", "name")}

    user, _ = convert({"user_id": "auth0|1", "email": "e@x.jp", "app_metadata": {"a": 1}}, names=names)
    text, skipped = convert({"user_id": "auth0|1", "email": "e@x.jp", "user_metadata": "x"}, names=names)

    assert user == {"user_id": "1", "email": "e@x.jp", "user_metadata": {}, "app_metadata": {"a": 1}}
    assert text == {"user_id": "1", "email": "e@x.jp", "app_metadata": {}}
    assert dict(skipped.fields) == {"user_metadata (not an object)": 1}


def test_losses_of_users_without_a_database_connection_are_counted() -> None:
    social = {"user_id": "google-oauth2|1", "email": "e@x.jp"}

    for row, losses in (
        ({"blocked": True}, {"blocked state of a user without a database connection": 1}),
        ({"blocked": False, "user_metadata": {}}, {}),
        ({"app_metadata": {"a": 1}}, {"metadata of a user without a database connection": 1}),
        ({"user_metadata.a": "1"}, {"metadata of a user without a database connection": 1}),
    ):
        reason, skipped = convert({**social, **row})
        assert (reason, dict(+skipped.losses)) == ("another connection", losses)


@settings(max_examples=15)
@given(sizes=st.lists(st.integers(min_value=0, max_value=300_000), max_size=12))
def test_files_are_arrays_within_the_limit_and_contain_every_user_once(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("restore") / "out"
    rows = [{"user_id": f"auth0|{n}", "email": f"{n}@x.jp", "name": "名" * (size // 3)} for n, size in enumerate(sizes)]

    written = write_files(iter(rows), folder, names=NAMES, text_only=False)

    users = []
    for path in written.files:
        assert path.stat().st_size <= MAX_FILE_BYTES
        users += json.loads(path.read_bytes())
    assert [user["user_id"] for user in users] == [str(n) for n in range(len(sizes))]


def test_user_too_large_for_a_file_is_skipped(tmp_path: Path) -> None:
    rows = [{"user_id": "auth0|1", "email": "e@x.jp", "name": "x" * MAX_FILE_BYTES}]

    written = write_files(iter(rows), tmp_path / "out", names=NAMES, text_only=False)

    assert dict(written.skipped.users) == {"too large": 1}
    assert (tmp_path / "out" / "skipped-too-large.ndjson").exists()


def test_profiles_larger_than_10_kb_are_written_and_counted(tmp_path: Path) -> None:
    rows = [
        {"user_id": f"auth0|{n}", "email": f"{n}@x.jp", "user_metadata": {"a": "x" * size}}
        for n, size in enumerate((MAX_PROFILE_BYTES - 500, MAX_PROFILE_BYTES))
    ]

    written = write_files(iter(rows), tmp_path / "out", names=NAMES, text_only=False)

    assert (written.users, written.large_profiles) == (2, 1)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["profiles_larger_than_10_kb"] == 1
