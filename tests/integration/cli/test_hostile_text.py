"""Names and values in an archive cannot control a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from meibo.archive.keys import ExportAddress
from tests.integration.cli.conftest import Meibo
from tests.support.archives import EARLIER, RUN, USERS, ArchiveBuilder, FolderArchive, ndjson

HOSTILE = "[/x][red]:bomb:\x1b[2J\x9b31m\u202e\x07"
SHOWN = "[/x][red]:bomb:\\u001b[2J\\u009b31m\\u202e\\u0007"
# A name in a key cannot contain a slash.
NAME = HOSTILE.replace("/", "\\")
ADDRESS = ExportAddress(provider="auth0", source=NAME, dataset="users", format="ndjson", scope="all")
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def row(**more: Any) -> dict[str, Any]:
    return {"user_id": f"auth0|{HOSTILE}", "email": "a@x.jp", "name": HOSTILE, **more}


@pytest.fixture
def storage(tmp_path: Path) -> FolderArchive:
    return FolderArchive(tmp_path / "archive")


@pytest.fixture(autouse=True)
def _runs(builder: ArchiveBuilder) -> None:
    builder.run({ADDRESS: ndjson([row()]), USERS: ndjson([row()])}, EARLIER)
    builder.run(
        {
            ADDRESS: ndjson([row(email="b@x.jp", user_metadata={HOSTILE: 1})]),
            USERS: ndjson([row(user_id="=HYPERLINK(1)", name="+81", email="-1", nickname="＝1", username="ordinary")]),
        },
        suspect={ADDRESS: HOSTILE},
        missing=[{"export_id": f"{HOSTILE}/users/csv/all", "error": HOSTILE, "reason": HOSTILE}],
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("ls",), 0),
        (("ls", "--json"), 0),
        (("ls", f"{HOSTILE}*"), 2),
        (("get", "[[]*", "--output", NAME), 0),
        (("get", "*"), 2),
        (("verify",), 1),
        (("verify", "--json"), 1),
        (("diff", EARLIER, RUN, "--fields"), 0),
        (("diff", EARLIER, RUN, "--json"), 0),
        (("diff", EARLIER, RUN, "[[]*", "--key", "missing"), 2),
        (("query", "select name from auth0_users"), 0),
        (("query", "select * from auth0_users", "--json"), 0),
        (("query", f'select 1 as "{HOSTILE}"'), 0),
        (("query", f"select {HOSTILE}"), 2),
        (("restore", "[[]*", "--output", NAME), 0),
        (("restore", "*"), 2),
    ],
)
def test_control_characters_and_markup_are_escaped(
    builder: ArchiveBuilder, meibo: Meibo, arguments: tuple[str, ...], status: int
) -> None:
    builder.storage.put(f"archive/{NAME}", b"an unexpected extra")

    result = meibo(*arguments)

    assert result.status == status, result.errors
    text = result.output + result.errors
    assert {unicodedata.category(character) for character in text.replace("\n", "")} & UNSAFE == set()
    # A table wraps long cells; JSON escapes the backslash.
    assert re.search(r"\[(/|\\{1,2})x\]\[red\]:bomb:", text)


def test_json_output_contains_the_original_values(meibo: Meibo) -> None:
    (line, *_) = [line for line in meibo("ls", "--json").json() if line["verdict"] == "missing"]
    output = meibo("query", f"select name from auth0_users where run = '{EARLIER}' limit 1", "--json").output  # noqa: S608

    assert line["reason"] == f"{HOSTILE}: {HOSTILE}"
    assert json.loads(output) == {"name": HOSTILE}


def test_csv_for_spreadsheets_has_no_formulas(meibo: Meibo) -> None:
    sql = """select user_id, name, email, nickname, username, -1 as number, '@a' as "=b" from auth0_users
        where dt = '2026-11-21' and source = 'acme'"""
    rows = list(csv.reader(io.StringIO(meibo("query", sql, "--csv").output)))
    keys = [line.split(",")[2] for line in meibo("diff", EARLIER, RUN, "acme", "--csv", "-").output.splitlines()]

    assert rows == [
        ["user_id", "name", "email", "nickname", "username", "number", "'=b"],
        ["'=HYPERLINK(1)", "'+81", "'-1", "'＝1", "ordinary", "-1", "'@a"],
    ]
    assert "'=HYPERLINK(1)" in keys
