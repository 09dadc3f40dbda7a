"""Unusual but valid text and numbers of a user do not break a command for other users."""

from __future__ import annotations

import csv
import gzip
import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.conftest import Meibo
from tests.support.archives import EARLIER, RUN, STAFF_CSV, USERS, USERS_CSV, ArchiveBuilder, FolderArchive

# The archive parses only the first thousand rows and the last row.
ORDINARY = [b'{"user_id":"auth0|o%d","email":"%d@x.jp","logins_count":1}' % (n, n) for n in range(1001)]
SURROGATE = rb'{"user_id":"auth0|s","email":"s@x.jp","name":"\ud83d \ud83d\ude00 \\ud83d"}'
BYTES = b'{"user_id":"auth0|b","email":"b@x.jp","name":"a\xffb"}'
NUMBER = b"12345678901234567890"
LARGE = b'{"user_id":"auth0|l","email":"l@x.jp","logins_count":%b,"user_metadata":{"n":%b}}' % (NUMBER, NUMBER)
INFINITE = rb'{"user_id":"auth0|i","email":"i@x.jp","logins_count":1e999,"user_metadata":{"n":1e999}}'
DIGITS = b'{"user_id":"auth0|d","email":"d@x.jp","user_metadata":{"n":' + b"9" * 5000 + b"}}"
UNUSUAL = (SURROGATE, BYTES, LARGE, INFINITE, DIGITS)


def file(rows: Sequence[bytes]) -> bytes:
    return gzip.compress(b"".join(row + b"\n" for row in (*ORDINARY[:-1], *rows, ORDINARY[-1])), mtime=0)


def assert_utf_8_and_json(path: Path) -> list[Any]:
    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    text = path.read_bytes().decode()
    lines = [text] if path.suffix == ".json" else text.splitlines()
    return [json.loads(line, parse_constant=refuse, parse_int=str) for line in lines]


def test_diff_counts_every_user_and_names_the_fields(builder: ArchiveBuilder, meibo: Meibo) -> None:
    changed = [
        SURROGATE.replace(rb"\ud83d ", rb"\ud83c "),
        BYTES.replace(b"\xff", b"\xfe"),
        LARGE.replace(b"67890,", b"67891,"),
        INFINITE.replace(b"1e999,", b"2e999,"),
        DIGITS.replace(b"9}}", b"8}}"),
    ]
    builder.run({USERS: file(UNUSUAL)}, EARLIER)
    builder.run({USERS: file(changed)})

    (export,) = meibo("diff", EARLIER, RUN, "--json").json()["exports"]

    assert (export["added"], export["removed"], export["changed"], export["unchanged"]) == (0, 0, 5, 1001)
    assert export["fields"] == {"name": 2, "logins_count": 2, "user_metadata.n": 1}


def test_diff_of_files_with_and_without_unusual_text(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: file([])}, EARLIER)
    builder.run({USERS: file([rb'{"user_id":"auth0|\udc00"}', *UNUSUAL])})

    result = meibo("diff", EARLIER, RUN, "--csv", "-")

    assert sorted(line.split(",")[2] for line in result.output.splitlines()[1:]) == [
        *(f"auth0|{name}" for name in (r"\udc00", "b", "d", "i", "l", "s")),
    ]


def test_diff_of_a_csv_with_invalid_bytes(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS_CSV: b"user_id,name\n'auth0|1,'a\n'auth0|2,'\xff\n"}, EARLIER, header=True)
    builder.run({USERS_CSV: b"user_id,name\n'auth0|1,'a\n'auth0|2,'\xfe\n"}, header=True)

    (export,) = meibo("diff", EARLIER, RUN, "--json").json()["exports"]

    assert (export["changed"], export["unchanged"], export["fields"]) == (1, 1, {"name": 1})


def test_query_finds_every_user(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: file(UNUSUAL)})

    sql = "select user_id, name, logins_count as n from auth0_users where user_id not like 'auth0|o%' order by user_id"
    rows = [json.loads(line) for line in meibo("query", sql, "--json").output.splitlines()]
    counted = meibo("query", "select count(*) as n, count(distinct user_id) as d from auth0_users", "--csv")

    assert rows == [
        {"user_id": "auth0|b", "name": r"a\xffb", "n": None},
        {"user_id": "auth0|d", "name": None, "n": None},
        {"user_id": "auth0|i", "name": None, "n": None},
        {"user_id": "auth0|l", "name": None, "n": None},
        {"user_id": "auth0|s", "name": r"\ud83d 😀 \ud83d", "n": None},
    ]
    assert counted.output == "n,d\n1006,1006\n"


def test_query_prints_no_row_twice(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: file(UNUSUAL)})

    result = meibo("query", "select user_id from auth0_users", "--csv")

    assert len(result.output.splitlines()) == len(set(result.output.splitlines())) == 1007


def test_query_prints_json_for_numbers_that_are_not_finite(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: file(UNUSUAL)})

    sql = "select try_cast(user_metadata->>'n' as double) as n from auth0_users where user_id = 'auth0|i'"

    assert meibo("query", sql, "--json").output == '{"n": "inf"}\n'


def test_restore_writes_valid_files_and_skips_rows_that_cannot_be_imported(
    builder: ArchiveBuilder, meibo: Meibo
) -> None:
    not_json = b'{"user_id":"auth0|n","email":"n@x.jp","name":NaN}'
    builder.run({USERS: file([*UNUSUAL, not_json])})

    result = meibo("restore", "acme")

    assert result.status == 0, result.errors
    assert Path("restore/skipped-not-JSON.ndjson").read_bytes() == not_json + b"\n"
    Path("restore/skipped-not-JSON.ndjson").unlink()
    written = {path.name: assert_utf_8_and_json(path) for path in Path("restore").iterdir()}
    users = {user["user_id"]: user for user in written["users-0001.json"][0]}
    assert len(users) == 1001 + 2
    assert users["s"]["name"] == "\ud83d 😀 \\ud83d"
    assert users["l"]["user_metadata"] == {"n": NUMBER.decode()}
    assert [row["name"] for row in written["skipped-not-UTF-8.ndjson"]] == [r"a\xffb"]
    apart = Path("restore/skipped-number-out-of-range.ndjson").read_bytes().splitlines()
    assert apart == [INFINITE, DIGITS]


def test_restore_of_a_csv_skips_rows_with_invalid_bytes(builder: ArchiveBuilder, meibo: Meibo) -> None:
    body = b"user_id,email,name\n'auth0|1,'a@x.jp,'a\n'auth0|2,'b@x.jp,'\xff\n"
    builder.run(
        {USERS_CSV: body}, header=True, request={"fields": [{"name": name} for name in ("user_id", "email", "name")]}
    )

    result = meibo("restore", "acme")

    assert result.status == 0, result.errors
    assert [user["user_id"] for user in assert_utf_8_and_json(Path("restore/users-0001.json"))[0]] == ["1"]
    assert assert_utf_8_and_json(Path("restore/skipped-not-UTF-8.ndjson"))[0]["name"] == r"\xff"


def test_connection_with_a_lone_surrogate_is_reported(builder: ArchiveBuilder, meibo: Meibo) -> None:
    row = rb'{"user_id":"auth0|1","email":"a@x.jp","identities":[{"provider":"auth0","connection":"\ud83d"}]}'
    builder.run({USERS: file([row])})

    assert meibo("restore", "acme").status == 0
    assert assert_utf_8_and_json(Path("restore/report.json"))[0]["connections"] == {"\ud83d": "1"}


def test_long_values_do_not_stop_the_selection_of_cybozu_users(builder: ArchiveBuilder, meibo: Meibo) -> None:
    csv.field_size_limit(131_072)  # Python's default; another test may have changed it
    note = "長" * 131_073
    rows = [f'"u1","{note}"\r\n', '"u2","b"\r\n']
    builder.run({STAFF_CSV: "".join(rows).encode()})

    result = meibo("restore", "example", "--select", "u1")

    assert result.status == 0, result.errors
    assert Path("restore/3-user.csv").read_bytes() == rows[0].encode()


@pytest.mark.parametrize("storage", ["disk"], indirect=True)
def test_written_files_are_readable_only_by_their_owner(
    builder: ArchiveBuilder, meibo: Meibo, storage: FolderArchive, open_umask: None
) -> None:
    builder.run({USERS: file([SURROGATE])}, EARLIER)
    builder.run({USERS: file(UNUSUAL), STAFF_CSV: b'"u1","a"\r\n'})

    for arguments in (
        ("get", "acme"),
        ("diff", EARLIER, RUN, "--csv", "diff.csv"),
        ("restore", "acme"),
        ("restore", "example", "--select", "u1", "--output", "staff"),
    ):
        assert meibo(*arguments).status == 0

    created = list(Path().rglob("*"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in created if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in created if path.is_dir()} == {0o700}


def test_query_returns_the_last_of_several_values_with_the_same_name(builder: ArchiveBuilder, meibo: Meibo) -> None:
    builder.run({USERS: file([b'{"user_id":"auth0|twice","email":"first","n":1e999,"email":"last"}'])})

    result = meibo("query", "select email from auth0_users where user_id = 'auth0|twice'", "--json")

    assert (result.status, result.errors) == (0, "")
    assert result.json() == {"email": "last"}
