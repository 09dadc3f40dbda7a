"""``meibo query``: SQL over disk and S3, and the queries of the documentation."""

from __future__ import annotations

import re
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
def _runs(maker: ArchiveBuilder) -> None:
    maker.run({USERS: ndjson([user(0)])}, EARLIER)
    member = {"organization_id": "org_0000000000000001", "user_id": "auth0|1", "name": "名", "email": "a@x.jp"}
    users = [user(0, last_login="2026-03-01T00:00:00.000Z", logins_count=7), user(1), user(2)]
    maker.run(
        {USERS: ndjson(users), STAFF: ndjson([{"id": "7532782697181632513", "valid": True}]), MEMBERS: ndjson([member])}
    )


def test_partitions_are_columns(meibo: Meibo) -> None:
    done = meibo("query", "select source, run, dt, count(*) as n from auth0_users group by all order by dt", "--csv")

    assert done.output.splitlines() == [
        "source,run,dt,n",
        f"acme,{EARLIER},2026-11-20,1",
        f"acme,{RUN},2026-11-21,3",
    ]


def test_values_have_their_types_and_json_is_reached_into(meibo: Meibo) -> None:
    sql = (
        "select email_verified, logins_count, json_extract_scalar(user_metadata, '$.country') as country, blocked"
        " from auth0_users where dt = '2026-11-21' order by user_id limit 1"
    )

    done = meibo("query", sql, "--json")

    assert done.output == '{"email_verified": true, "logins_count": 7, "country": "JP", "blocked": null}\n'
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
def test_documented_queries_answer_their_question(meibo: Meibo, sql: str, rows: list[str]) -> None:
    done = meibo("query", sql, "--csv")

    assert done.status == 0, done.errors
    assert sorted(done.output.splitlines()[1:]) == rows


def test_mistakes_are_told_plainly(meibo: Meibo) -> None:
    assert meibo("query", "select nothing from auth0_users").status == 2
    assert "no organizations of auth0" in meibo("query", "select * from auth0_organizations").errors
    assert meibo("query", "select").status == 2
    assert "The tables are auth0_users, auth0_organizations" in meibo("query", "select * from users").errors
