"""Check the tables and queries for Athena without using Athena.

The Glue tables must match the keys and rows of the pipeline. The documented queries are parsed as the SQL of Trino, on
which Athena is based, and their names are looked up in the Glue tables. They run on a real archive as written and as
translated from Trino. Both results must match the data of the provider.
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

from meibo_cli.commands.query import Table, tables
from meibo_local.template import ROOT
from meibo_simulators import FIRST_CONNECTION, SimulatedDomain, SimulatedTenant
from tests.integration.cli.conftest import Meibo
from tests.support.archives import FolderArchive
from tests.support.stack import RUN, running_system
from tests.support.template import Template

ADDRESS = "someone@example.jp"
ORGANIZATION = "org_0000000000000001"
DAY = date(2026, 11, 21)
SECOND = "con_0000000000000002"
SOURCES = {"auth0": "acme", "cybozu": "example"}
QUERIES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "queries.md").read_text(encoding="utf-8"), re.DOTALL)
DIALECTS = ("athena", "trino")

# The tests share an archive, which is written once.
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
    """An archive of the pipeline with all tables."""
    folder = tmp_path_factory.mktemp("archived")
    tenant = SimulatedTenant("acme", connections={FIRST_CONNECTION: 40, SECOND: 20}, organizations=3, members=5)
    tenant.switches.polls_until_completed = 0
    with running_system(tenant, SimulatedDomain("example", users=10)) as system:
        datasets = ("users", "organizations", "members", "roles", "role_members")
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
    tables = (table["TableInput"] for table in template.of_type("AWS::Glue::Table").values())
    return {table["Name"]: table for table in tables}


def projected(table: Mapping[str, Any], values: Mapping[str, str]) -> str:
    """Return the folder that Athena derives from the partition values by replacing them in the template."""
    location: str = table["Parameters"]["storage.location.template"]
    for name, value in values.items():
        location = location.replace(f"${{{name}}}", value)
    assert location.startswith("s3://ArchiveBucket/")
    assert "${" not in location
    return location.removeprefix("s3://ArchiveBucket/")


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_projected_location_contains_only_the_object_for_athena(
    archived: Archived, glue: Mapping[str, Any], table: Table
) -> None:
    values = {"source": SOURCES[table.provider], "scope": "all", "dt": DAY.isoformat()}

    location = projected(glue[table.name], values)

    files = [path for path in (archived.folder / location).rglob("*") if path.is_file()]
    # Athena ignores names that begin with _ or a dot, and detects the compression by the name.
    (path,) = [path for path in files if not path.name.startswith(("_", "."))]
    assert path.relative_to(archived.folder / location).parts == (f"run={RUN}", f"{table.dataset}.ndjson.gz")
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert fnmatchcase(path.relative_to(archived.folder).as_posix(), table.pattern)
    assert PurePosixPath(location).is_relative_to(
        glue[table.name]["StorageDescriptor"]["Location"].removeprefix("s3://ArchiveBucket/")
    )


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_every_partition_is_projected_and_covers_the_day_of_the_run(glue: Mapping[str, Any], table: Table) -> None:
    parameters = glue[table.name]["Parameters"]
    partitions = [key["Name"] for key in glue[table.name]["PartitionKeys"]]

    kinds = {name: parameters[f"projection.{name}.type"] for name in partitions}

    assert kinds == {"source": "injected", "scope": "injected", "dt": "date"}
    assert parameters["projection.enabled"] == "true"
    assert set(re.findall(r"\$\{(\w+)\}", parameters["storage.location.template"])) == set(partitions)
    first, last = parameters["projection.dt.range"].split(",")
    assert parameters["projection.dt.format"] == "yyyy-MM-dd"  # the format of date.isoformat, which the keys use
    assert (date.fromisoformat(first) <= DAY, last) == (True, "NOW")


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_columns_match_the_archived_rows(archived: Archived, glue: Mapping[str, Any], table: Table) -> None:
    storage = glue[table.name]["StorageDescriptor"]
    columns = {column["Name"]: column["Type"] for column in storage["Columns"]}
    types = {"boolean": bool, "bigint": int}

    rows = list(archived_rows(archived.folder, table))

    # NDJSON. This SerDe matches keys regardless of their case, and returns lists and objects as JSON strings.
    assert storage["SerdeInfo"]["SerializationLibrary"] == "org.openx.data.jsonserde.JsonSerDe"
    assert storage["InputFormat"] == "org.apache.hadoop.mapred.TextInputFormat"
    assert rows
    names = Counter(name.lower() for row in rows for name, value in row.items() if value is not None)
    assert names.keys() & columns.keys()
    for row in rows:
        for name, value in row.items():
            kind = columns.get(name.lower())
            if kind in types and value is not None:
                assert type(value) is types[kind], name


def archived_rows(folder: Path, table: Table) -> Iterator[dict[str, Any]]:
    for path in folder.glob(table.pattern):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            yield json.loads(line)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("sql", QUERIES)
def test_query_is_valid_in_trino_and_uses_names_of_the_glue_tables(
    glue: Mapping[str, Any], sql: str, dialect: str
) -> None:
    schema: dict[str, object] = {
        name: {
            column["Name"]: column["Type"]
            for column in (*table["StorageDescriptor"]["Columns"], *table["PartitionKeys"])
        }
        for name, table in glue.items()
    }

    parsed = sqlglot.parse_one(sql, read=dialect, error_level=ErrorLevel.RAISE)
    qualified = qualify(parsed, schema=schema, dialect=dialect)  # Raises an error if a column or table does not exist.

    assert not list(qualified.find_all(exp.Anonymous))  # functions that sqlglot does not know in Trino
    equal = {
        (condition.this.name, condition.expression.name)
        for condition in qualified.find_all(exp.EQ)
        if isinstance(condition.this, exp.Column) and isinstance(condition.expression, exp.Literal)
    }
    assert {("source", "acme"), ("scope", "all")} <= equal  # Athena requires these conditions for injected partitions.


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_query_returns_the_same_rows_as_sql_of_duckdb_and_of_trino(
    archived: Archived, meibo: Meibo, number: int
) -> None:
    users = archived.users
    address = next(user["email"] for user in users if user.get("email"))
    organization = next(archived.tenant.expected_organizations())["id"]
    sql = QUERIES[number].replace(ADDRESS, address).replace(ORGANIZATION, organization)
    (translated,) = sqlglot.transpile(sql, read="trino", write="duckdb", error_level=ErrorLevel.RAISE)

    results = []
    for text in (sql, translated):
        result = meibo("query", text, "--json")
        assert result.status == 0, result.errors
        results.append(sorted((tuple(json.loads(line).values()) for line in result.output.splitlines()), key=str))

    assert results[0] == results[1]
    assert results[0] == sorted(expected(archived, address, organization)[number], key=str)


def expected(archived: Archived, address: str, organization: str) -> list[list[tuple[Any, ...]]]:
    """Return the expected rows of each query, from the data of the provider."""
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
        [(email, len(names)) for email, names in connections.items() if len(names) > 1],
        [(user["user_id"], day, day) for user in users if user.get("email") == address],
        [(member["user_id"], member.get("name"), member.get("email")) for member in members],
    ]


def test_second_run_of_a_day_does_not_change_the_results(archived: Archived, meibo: Meibo, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    later = RUN.replace("T18", "T19")
    for path in archived.folder.glob("archive/provider=auth0/**/*.gz"):
        for run_id in (RUN, later):
            target = folder / path.relative_to(archived.folder).as_posix().replace(RUN, run_id)
            target.parent.mkdir(parents=True)
            target.write_bytes(path.read_bytes())

    for sql in QUERIES:
        once = meibo("query", sql, "--csv").output
        assert meibo("query", sql, "--csv", "--archive", str(folder)).output == once
