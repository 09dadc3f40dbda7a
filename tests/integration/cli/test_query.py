"""``meibo query``: SQL on archives on disk and in S3, and the documented queries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from meibo.archive.keys import ExportAddress
from meibo_local.template import ROOT
from tests.integration.cli.conftest import Meibo
from tests.support.archives import EARLIER, RUN, STAFF, USERS, ArchiveBuilder, ndjson

MEMBERS = ExportAddress(provider="auth0", source="acme", dataset="members", format="ndjson", scope="all")
QUERIES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "queries.md").read_text(encoding="utf-8"), re.DOTALL)


def user(number: int, **more: Any) -> dict[str, Any]:
    return {
        "user_id": f"auth0|{number}",
        "email": "someone@example.jp" if number < 2 else f"{number}@example.jp",
        "email_verified": number % 2 == 0,
        "identities": [{"connection": f"c{number}", "provider": "auth0"}],
        "user_metadata": {"country": "JP"},
        **more,
    }


@pytest.fixture(autouse=True)
def _runs(builder: ArchiveBuilder) -> None:
    builder.run({USERS: ndjson([user(0)])}, EARLIER)
    member = {"organization_id": "org_0000000000000001", "user_id": "auth0|1", "name": "名", "email": "a@x.jp"}
    users = [user(0, last_login="2026-03-01T00:00:00.000Z", logins_count=7), user(1), user(2)]
    builder.run(
        {USERS: ndjson(users), STAFF: ndjson([{"id": "7532782697181632513", "valid": True}]), MEMBERS: ndjson([member])}
    )


def test_partitions_are_columns(meibo: Meibo) -> None:
    result = meibo("query", "select source, run, dt, count(*) as n from auth0_users group by all order by dt", "--csv")

    assert result.output.splitlines() == [
        "source,run,dt,n",
        f"acme,{EARLIER},2026-11-20,1",
        f"acme,{RUN},2026-11-21,3",
    ]


def test_values_have_types_and_json_fields_can_be_queried(meibo: Meibo) -> None:
    sql = (
        "select email_verified, logins_count, json_extract_scalar(user_metadata, '$.country') as country, blocked"
        " from auth0_users where dt = '2026-11-21' order by user_id limit 1"
    )

    result = meibo("query", sql, "--json")

    assert result.output == '{"email_verified": true, "logins_count": 7, "country": "JP", "blocked": null}\n'
    assert "7532782697181632513" in meibo("query", "select id from cybozu_users").output


@pytest.mark.parametrize(
    ("sql", "rows"),
    list(
        zip(
            QUERIES,
            (
                ["2026-11-20,1", "2026-11-21,3"],
                ["auth0|1,someone@example.jp,", "auth0|2,2@example.jp,"],
                ["someone@example.jp,2"],
                ["auth0|0,2026-11-20,2026-11-21", "auth0|1,2026-11-21,2026-11-21"],
                ["auth0|1,名,a@x.jp"],
            ),
            strict=True,
        )
    ),
)
def test_documented_query_returns_the_expected_rows(meibo: Meibo, sql: str, rows: list[str]) -> None:
    result = meibo("query", sql, "--csv")

    assert result.status == 0, result.errors
    assert sorted(result.output.splitlines()[1:]) == rows


def test_error_of_a_wrong_query_names_the_problem(meibo: Meibo) -> None:
    assert meibo("query", "select nothing from auth0_users").status == 2
    assert (
        "contains no NDJSON export of auth0 organizations" in meibo("query", "select * from auth0_organizations").errors
    )
    assert meibo("query", "select").status == 2
    assert "The tables are auth0_users, auth0_organizations" in meibo("query", "select * from users").errors


def test_describe_explain_and_show_are_accepted(meibo: Meibo) -> None:
    assert "logins_count" in meibo("query", "describe auth0_users").output
    assert "auth0_members" in meibo("query", "show tables").output
    plan = meibo("query", "explain analyze select count(*) from auth0_users").output
    assert len(plan.splitlines()) > 3


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{outside}/written.csv'",
        "explain analyze copy (select 1) to '{outside}/written.csv'",
        "copy (select 1) to 'meibo://archive/written.csv'",
        "explain analyze copy (select 1) to 'meibo://archive/written.csv'",
        "export database '{outside}/written'",
        "attach '{outside}/written.db'",
        "explain analyze attach '{outside}/written.db'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "explain analyze set enable_external_access = true",
        "select 1; select 2",
        "select 1; copy (select 1) to '{outside}/written.csv'",
        "create table x as select 1",
        "explain analyze create table x as select 1",
        "with x as (insert into auth0_users values (1) returning *) select * from x",
        "pragma version",
        "call pragma_version()",
        "",
    ],
)
def test_statement_other_than_a_query_is_rejected(
    meibo: Meibo, tmp_path: Path, builder: ArchiveBuilder, sql: str
) -> None:
    before = [item.key for item in builder.storage.reader().list("")]

    result = meibo("query", sql.format(outside=tmp_path))

    assert (result.status, result.output) == (2, "")
    assert not list(tmp_path.glob("written*"))
    assert [item.key for item in builder.storage.reader().list("")] == before


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{outside}/secret')",
        "select * from read_csv('{outside}/secret')",
        "select * from '{outside}/secret'",
        "select * from read_text('file://{outside}/secret')",
        "select * from read_text('meibo://{outside}/secret')",
        "select * from read_text('meibo://archive/../../secret')",
        "select * from read_text('meibo://../secret')",
        "select * from glob('{outside}/*')",
        "select * from read_text('https://127.0.0.1/secret')",
        "select * from read_text('s3://other/secret')",
        "select * from sniff_csv('{outside}/secret')",
    ],
)
def test_file_outside_the_archive_is_not_read(meibo: Meibo, tmp_path: Path, sql: str) -> None:
    (tmp_path / "secret").write_text("secret content", encoding="utf-8")

    result = meibo("query", sql.format(outside=tmp_path), "--json")

    assert result.output == ""
    assert "secret content" not in result.errors
    assert "Traceback" not in result.errors


def test_files_of_the_archive_can_be_read(meibo: Meibo) -> None:
    result = meibo("query", "select run_id from read_json('meibo://runs/**/_manifest.json') order by run_id", "--csv")

    assert result.output.splitlines() == ["run_id", EARLIER, RUN]


@pytest.mark.parametrize("storage", ["disk"], indirect=True)
def test_query_larger_than_its_memory_limit_uses_disk(meibo: Meibo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meibo_cli.comparison.MEMORY_LIMIT", "150MB")
    sql = (
        "select max(place) as n from (select row_number() over (order by word) as place from"
        " (select repeat('x', 200) || n::varchar as word from range(1500000) as numbers(n)))"
    )

    assert meibo("query", sql, "--csv").output == "n\n1500000\n"


def test_download_error_is_reported_in_one_line(meibo: Meibo, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise OSError(28, "No space left on device", "a temporary file")

    monkeypatch.setattr("meibo_cli.filesystem.ArchiveFileSystem._local", fail)

    result = meibo("query", "select count(*) from auth0_users", "--csv")

    assert (result.status, result.output, result.errors) == (2, "", "a temporary file: No space left on device\n")
