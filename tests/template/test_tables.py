"""Compare the tables of Athena with those of ``meibo query`` and with the keys of the pipeline."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

import pytest

from meibo.archive.keys import ExportAddress
from meibo_cli.commands.query import Table, tables
from tests.support.template import Template

RUN = "20261121T180000Z"


def glue(template: Template, table: Table) -> dict[str, Any]:
    tables = template.of_type("AWS::Glue::Table").values()
    (table_input,) = [item["TableInput"] for item in tables if item["TableInput"]["Name"] == table.name]
    return dict(table_input)


@pytest.mark.parametrize(("stack", "name"), [("meibo", "meibo"), ("meibo-prod-eu", "meibo_prod_eu")])
def test_database_name_needs_no_quotes_in_sql(stack: str, name: str) -> None:
    template = Template.deployed({}, region="eu-central-1", stack=stack)

    (database,) = template.of_type("AWS::Glue::Database").values()

    # https://docs.aws.amazon.com/athena/latest/ug/tables-databases-columns-names.html
    assert database["DatabaseInput"]["Name"] == name


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_columns_match_those_of_the_query_command(template: Template, table: Table) -> None:
    columns = glue(template, table)["StorageDescriptor"]["Columns"]

    # The catalog stores names in lower case; SQL names are not case-sensitive.
    assert [(column["Name"], column["Type"]) for column in columns] == [
        (name.lower(), kind) for name, kind in table.columns.items()
    ]


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)
def test_projection_matches_the_keys_of_the_pipeline(template: Template, table: Table) -> None:
    address = ExportAddress(
        provider=table.provider, source="acme", dataset=table.dataset, format="ndjson", scope="con_1"
    )
    parameters = glue(template, table)["Parameters"]
    prefix = parameters["storage.location.template"].partition("/archive/")[2]
    for name, value in (("source", "acme"), ("scope", "con_1"), ("dt", "2026-11-21")):
        prefix = prefix.replace(f"${{{name}}}", value)

    assert address.folder(RUN).startswith(f"archive/{prefix}")
    assert fnmatchcase(address.object_key(RUN, gzip=True), table.pattern)
    assert not fnmatchcase(address.manifest_key(RUN), table.pattern)
    assert not re.search(r"\$\{", prefix)
