"""What can be told of Athena without Athena: the tables find what the pipeline writes, and the queries are its SQL.

The documented queries are parsed as Trino's SQL (which Athena's is), their names are looked up in the Glue tables, and
they run on a real archive, as they are written and as translated from Trino's SQL. Both answer what the provider holds.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import sqlglot
from sqlglot import ErrorLevel, exp
from sqlglot.optimizer.qualify import qualify

from meibo_cli.tables import Table, tables
from meibo_local.template import ROOT
from meibo_simulators import FIRST_CONNECTION, SimulatedDomain, SimulatedTenant
from tests.integration.cli.conftest import Meibo
from tests.integration.pipeline.conftest import RUN, running_system
from tests.support.archives import FolderArchive
from tests.template.conftest import Template

ADDRESS = "someone@example.jp"
ORGANIZATION = "org_0000000000000001"
DAY = date(2026, 11, 21)
SECOND = "con_0000000000000002"
SOURCES = {"auth0": "acme", "cybozu": "example"}
QUERIES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "queries.md").read_text(encoding="utf-8"), re.DOTALL)
DIALECTS = ("athena", "trino")

# What is archived once serves all of them.
pytestmark = pytest.mark.xdist_group("athena")


@dataclass
class Archived:
    folder: Path
    tenant: SimulatedTenant

    @property
    def users(self) -> list[dict[str, Any]]:
        return list(self.tenant.expected_users())


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Archived:
    """Archive what the tables hold, as the pipeline does."""
    folder = tmp_path_factory.mktemp("archived")
    tenant = SimulatedTenant("acme", connections={FIRST_CONNECTION: 40, SECOND: 20}, organizations=3, members=5)
    tenant.switches.polls_until_completed = 0
    with running_system(tenant, SimulatedDomain("example", users=10)) as system:
        datasets = ("users", "organizations", "members")
        system.configure(
            system.auth0_source(*({"dataset": dataset} for dataset in datasets)),
            system.cybozu_source({"dataset": "users", "format": "ndjson"}),
        )
        assert system.run()["complete"]
        system.aws.download(folder)
    return Archived(folder, tenant)


@pytest.fixture
def storage(archived: Archived, account: None) -> FolderArchive:
    return FolderArchive(archived.folder)


@pytest.fixture(scope="module")
def glue() -> Mapping[str, dict[str, Any]]:
    template = Template.deployed({}, region="us-east-1", stack="meibo")
    tables = (one["TableInput"] for one in template.of_type("AWS::Glue::Table").values())
    return {table["Name"]: table for table in tables}


def projected(table: Mapping[str, Any], values: Mapping[str, str]) -> str:
    """Return the folder that Athena derives from the values of the partitions, as it does: text for text."""
    location: str = table["Parameters"]["storage.location.template"]
    for name, value in values.items():
        location = location.replace(f"${{{name}}}", value)
    assert location.startswith("s3://ArchiveBucket/")
    assert "${" not in location
    return location.removeprefix("s3://ArchiveBucket/")


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_the_projected_location_holds_the_object_and_nothing_else_that_athena_reads(
    archived: Archived, glue: Mapping[str, Any], table: Table
) -> None:
    values = {"source": SOURCES[table.provider], "scope": "all", "dt": DAY.isoformat()}

    location = projected(glue[table.name], values)

    found = [path for path in (archived.folder / location).rglob("*") if path.is_file()]
    # Athena passes over what begins with _ or a dot, and tells the compression by the name.
    (read,) = [path for path in found if not path.name.startswith(("_", "."))]
    assert read.relative_to(archived.folder / location).parts == (f"run={RUN}", f"{table.dataset}.ndjson.gz")
    assert read.read_bytes()[:2] == b"\x1f\x8b"
    assert fnmatchcase(read.relative_to(archived.folder).as_posix(), table.pattern)
    assert PurePosixPath(location).is_relative_to(
        glue[table.name]["StorageDescriptor"]["Location"].removeprefix("s3://ArchiveBucket/")
    )


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_each_partition_is_projected_and_holds_the_day_of_the_run(glue: Mapping[str, Any], table: Table) -> None:
    parameters = glue[table.name]["Parameters"]
    partitions = [one["Name"] for one in glue[table.name]["PartitionKeys"]]

    kinds = {name: parameters[f"projection.{name}.type"] for name in partitions}

    assert kinds == {"source": "injected", "scope": "injected", "dt": "date"}
    assert parameters["projection.enabled"] == "true"
    assert set(re.findall(r"\$\{(\w+)\}", parameters["storage.location.template"])) == set(partitions)
    first, last = parameters["projection.dt.range"].split(",")
    assert parameters["projection.dt.format"] == "yyyy-MM-dd"  # as date.isoformat writes it, and so the keys
    assert (date.fromisoformat(first) <= DAY, last) == (True, "NOW")


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_the_columns_fit_the_rows_that_are_archived(archived: Archived, glue: Mapping[str, Any], table: Table) -> None:
    storage = glue[table.name]["StorageDescriptor"]
    columns = {column["Name"]: column["Type"] for column in storage["Columns"]}
    fits = {"boolean": bool, "bigint": int}

    rows = list(archived_rows(archived.folder, table))

    # One JSON object a line; this SerDe finds keys whatever their case, and gives lists and objects as JSON text.
    assert storage["SerdeInfo"]["SerializationLibrary"] == "org.openx.data.jsonserde.JsonSerDe"
    assert storage["InputFormat"] == "org.apache.hadoop.mapred.TextInputFormat"
    assert rows
    held = Counter(name.lower() for row in rows for name, value in row.items() if value is not None)
    assert held.keys() & columns.keys()
    for row in rows:
        for name, value in row.items():
            kind = columns.get(name.lower())
            if kind in fits and value is not None:
                assert type(value) is fits[kind], name


def archived_rows(folder: Path, table: Table) -> Iterator[dict[str, Any]]:
    for path in folder.glob(table.pattern):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            yield json.loads(line)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("sql", QUERIES)
def test_a_query_is_trinos_sql_and_names_what_the_glue_tables_have(
    glue: Mapping[str, Any], sql: str, dialect: str
) -> None:
    schema: dict[str, object] = {
        name: {
            column["Name"]: column["Type"] for column in (*one["StorageDescriptor"]["Columns"], *one["PartitionKeys"])
        }
        for name, one in glue.items()
    }

    parsed = sqlglot.parse_one(sql, read=dialect, error_level=ErrorLevel.RAISE)
    qualified = qualify(parsed, schema=schema, dialect=dialect)  # raises where a column or table is not there

    assert not list(qualified.find_all(exp.Anonymous))  # a function that Trino is not known to have
    equal = {
        (one.this.name, one.expression.name)
        for one in qualified.find_all(exp.EQ)
        if isinstance(one.this, exp.Column) and isinstance(one.expression, exp.Literal)
    }
    assert {("source", "acme"), ("scope", "all")} <= equal  # without these Athena refuses a projected table


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_a_query_answers_alike_as_duckdbs_and_as_trinos_sql(archived: Archived, meibo: Meibo, number: int) -> None:
    users = archived.users
    address = next(user["email"] for user in users if user.get("email"))
    organization = next(archived.tenant.expected_organizations())["id"]
    sql = QUERIES[number].replace(ADDRESS, address).replace(ORGANIZATION, organization)
    (translated,) = sqlglot.transpile(sql, read="trino", write="duckdb", error_level=ErrorLevel.RAISE)

    answers = []
    for text in (sql, translated):
        done = meibo("query", text, "--json")
        assert done.status == 0, done.errors
        answers.append(sorted((tuple(json.loads(line).values()) for line in done.output.splitlines()), key=str))

    assert answers[0] == answers[1]
    assert answers[0] == sorted(expected(archived, address, organization)[number], key=str)


def expected(archived: Archived, address: str, organization: str) -> list[list[tuple[Any, ...]]]:
    """Return what each query has to answer, from what the provider holds."""
    users, day = archived.users, DAY.isoformat()
    connections: dict[str, set[str]] = {}
    for user in users:
        if user.get("email"):
            connections.setdefault(user["email"], set()).add(user["identities"][0]["connection"])
    members = archived.tenant.expected_members(organization)
    return [
        [(day, len(users))],
        [
            (user["user_id"], user.get("email"), user.get("last_login"))
            for user in users
            if (user.get("last_login") or "") < "2026-01-01"
        ],
        [(email, len(found)) for email, found in connections.items() if len(found) > 1],
        [(user["user_id"], day, day) for user in users if user.get("email") == address],
        [(member["user_id"], member.get("name"), member.get("email")) for member in members],
    ]


def test_a_day_with_two_runs_counts_nobody_twice(archived: Archived, meibo: Meibo, tmp_path: Path) -> None:
    held = tmp_path / "twice"
    later = RUN.replace("T18", "T19")
    for path in archived.folder.glob("archive/provider=auth0/**/*.gz"):
        for run_id in (RUN, later):
            target = held / path.relative_to(archived.folder).as_posix().replace(RUN, run_id)
            target.parent.mkdir(parents=True)
            target.write_bytes(path.read_bytes())

    for sql in QUERIES:
        once = meibo("query", sql, "--csv").output
        assert meibo("query", sql, "--csv", "--archive", str(held)).output == once
