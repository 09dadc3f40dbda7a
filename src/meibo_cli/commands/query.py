"""``meibo query``: run SQL over all runs of an archive, with the partitions of the keys as columns.

The datasets of the providers define the tables. Athena has the same tables: a test compares them with the Glue tables
of the template. A column that an export does not contain is null. Metadata and lists are JSON strings.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Annotated, Any, Final

import duckdb
import typer

from meibo.archive.keys import dataset_pattern, dataset_prefix, partition, provider_prefix
from meibo.archive.storage import ArchiveReader
from meibo.errors import ConfigurationError
from meibo.providers import all_providers
from meibo_cli.comparison import connect, execute
from meibo_cli.filesystem import PROTOCOL, ArchiveFileSystem
from meibo_cli.selection import DEFAULT_ARCHIVE, ArchiveOption, open_archive
from meibo_cli.terminal import (
    Column,
    TextConsole,
    escape_control_characters,
    json_text,
    print_table,
    printable,
    show_activity,
    spreadsheet_writer,
    use_utf8_in_pipes,
)

PARTITIONS: Final = ("provider", "source", "dataset", "format", "scope", "dt", "run")
_TYPES: Final = {"boolean": "BOOLEAN", "bigint": "BIGINT"}
_NUMBER: Final = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL.*|DOUBLE|FLOAT")
_BATCH_ROWS: Final = 1000
_MAX_ROWS_SHOWN: Final = 1000
# DuckDB classifies DESCRIBE, SHOW, SUMMARIZE, VALUES and FROM as SELECT.
_ALLOWED: Final = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
# https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
_CONFINEMENT: Final = (
    f"SET allowed_directories = ['{PROTOCOL}://']",
    "SET enable_external_access = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    # DuckDB would otherwise read a variable of this program that has the name of a table.
    "SET python_enable_replacements = false",
    "SET lock_configuration = true",
    # EXPLAIN ANALYZE executes the statement.
    "BEGIN TRANSACTION READ ONLY",
)


@dataclass(frozen=True)
class Table:
    """A dataset of a provider in all runs."""

    name: str
    provider: str
    dataset: str
    columns: Mapping[str, str]

    @property
    def pattern(self) -> str:
        """The glob pattern of the keys of its files."""
        return dataset_pattern(self.provider, self.dataset, "ndjson")


def tables() -> list[Table]:
    """Return the tables of every registered provider."""
    return [
        Table(f"{provider.name}_{dataset.name}", provider.name, dataset.name, dataset.table)
        for provider in all_providers()
        for dataset in provider.datasets
        if dataset.table is not None
    ]


def query(
    sql: Annotated[
        str, typer.Argument(help="The query, for example: select dt, count(*) from auth0_users group by dt")
    ],
    *,
    as_csv: Annotated[
        bool,
        typer.Option(
            "--csv",
            help="Print CSV. Text that a spreadsheet would interpret as a formula is prefixed with an apostrophe.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Query all runs with SQL. The tables are auth0_users, auth0_organizations, auth0_members, auth0_roles,
    auth0_role_members and cybozu_users.

    Accepts one SELECT, DESCRIBE, EXPLAIN or SHOW statement, which can read only files of the archive.
    """
    if as_csv and as_json:
        raise ConfigurationError("--csv and --json cannot be used together")
    reader = open_archive(archive)
    # With an ASCII locale, Python decodes other bytes of an argument as surrogates.
    sql = os.fsencode(sql).decode(errors="replace")
    with tempfile.TemporaryDirectory(prefix="meibo-query-") as name:
        try:
            try:
                _run(reader, sql, Path(name), as_csv=as_csv, as_json=as_json)
            except duckdb.InvalidInputException:
                # DuckDB rejected a character. Replacing such characters takes as long as the query.
                _run(reader, sql, Path(name), as_csv=as_csv, as_json=as_json, readable=True)
        except duckdb.CatalogException as error:
            names = ", ".join(table.name for table in tables())
            raise ConfigurationError(f"{str(error).splitlines()[0]} The tables are {names}.") from None
        except duckdb.Error as error:
            raise ConfigurationError(str(error)) from None


def _run(reader: ArchiveReader, sql: str, folder: Path, *, as_csv: bool, as_json: bool, readable: bool = False) -> None:
    """Print the complete result, or nothing if the query fails."""
    database = folder / ("readable" if readable else "plain")
    database.mkdir()
    files = ArchiveFileSystem(reader, folder, readable=readable)
    with closing(connect(database)) as connection, (database / "output").open("x+", encoding="utf-8") as output:
        try:
            statement = _statement(connection, sql)
            connection.register_filesystem(files)
            _define(connection, reader, sql)
            for setting in _CONFINEMENT:
                connection.execute(setting)
            with show_activity("running the query"):
                result = execute(connection, statement)
            columns = [column[0] for column in result.description or ()]
            rows = _rows(result)
            first = next(rows, None)
            if first is None:
                typer.echo(f"0 rows; {_partitions(reader, sql)}", err=True)
            rows = chain([first] if first else [], rows)
            if as_csv:
                use_utf8_in_pipes()
                _write_csv(output, columns, rows)
            elif as_json:
                _write_json(output, columns, rows)
            elif statement.type == duckdb.StatementType.EXPLAIN:
                _write_plan(output, rows)
            elif first:
                _print(result, rows)
        except duckdb.Error:
            if files.failure is not None:
                raise files.failure from None
            raise
        output.seek(0)
        shutil.copyfileobj(output, sys.stdout)


def _statement(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type not in _ALLOWED:
        types = ", ".join(statement.type.name for statement in statements) or "none"
        raise ConfigurationError(f"expected one SELECT, DESCRIBE, EXPLAIN or SHOW statement, found {types}")
    return statements[0]


def _define(connection: duckdb.DuckDBPyConnection, reader: ArchiveReader, sql: str) -> None:
    # Athena has a function with this name.
    connection.execute("CREATE MACRO json_extract_scalar(document, path) AS json_extract_string(document, path)")
    named = _named_tables(sql)
    for table in named or tables():
        if next(_keys(reader, table), None) is None:
            if named:
                raise ConfigurationError(f"{reader.name} contains no NDJSON export of {table.provider} {table.dataset}")
            continue
        columns = ", ".join(f"\"{name}\": 'VARCHAR'" for name in table.columns)
        # TRY_CAST converts a value of another type to null. If read_ndjson converted the value, the query would fail.
        typed = ", ".join(
            f'TRY_CAST("{name}" AS {_TYPES[kind]}) AS "{name}"'
            for name, kind in table.columns.items()
            if kind in _TYPES
        )
        partitions = ", ".join(f"{name}: VARCHAR" for name in PARTITIONS)
        connection.execute(
            f"CREATE VIEW {table.name} AS SELECT *{f' REPLACE ({typed})' if typed else ''} FROM"  # noqa: S608  # our own names
            f" read_ndjson('{PROTOCOL}://{table.pattern}', columns = {{{columns}}}, hive_partitioning = true,"
            f" hive_types = {{{partitions}}}, maximum_object_size = 16777216)"
        )


def _keys(reader: ArchiveReader, table: Table) -> Iterator[str]:
    for source in reader.folders(provider_prefix(table.provider)):
        for listed in reader.list(dataset_prefix(source, table.dataset, "ndjson")):
            yield listed.key


def _partitions(reader: ArchiveReader, sql: str) -> str:
    """Describe the sources, scopes and days of the tables in a query."""
    scopes = [
        scope
        for table in _named_tables(sql)
        for source in reader.folders(provider_prefix(table.provider))
        for scope in reader.folders(dataset_prefix(source, table.dataset, "ndjson"))
    ]
    names = dict.fromkeys(f"{partition(scope, 'source')}/{partition(scope, 'scope')}" for scope in scopes)
    days = sorted(partition(day, "dt") for scope in scopes for day in reader.folders(scope))
    if not days:
        return "the query reads no table"
    return f"sources and scopes in this archive: {', '.join(names)}; days: {days[0]} to {days[-1]}"


def _named_tables(sql: str) -> list[Table]:
    return [table for table in tables() if table.name in sql.lower()]


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while batch := result.fetchmany(_BATCH_ROWS):
        yield from batch


def _write_csv(output: IO[str], columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    write = spreadsheet_writer(output, is_terminal=sys.stdout.isatty())
    write(columns)
    for row in rows:
        write(row)


def _write_json(output: IO[str], columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    for row in rows:
        # JSON has neither Infinity nor NaN.
        values = (str(value) if isinstance(value, float) and not math.isfinite(value) else value for value in row)
        output.write(json_text(dict(zip(columns, values, strict=True))) + "\n")


def _write_plan(output: IO[str], rows: Iterator[tuple[Any, ...]]) -> None:
    for _, plan in rows:
        output.writelines(f"{escape_control_characters(line)}\n" for line in plan.splitlines())


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return str(value).lower() if isinstance(value, bool) else printable(value)


def _print(result: duckdb.DuckDBPyConnection, rows: Iterator[tuple[Any, ...]]) -> None:
    columns = [
        Column(printable(column[0]), number=bool(_NUMBER.fullmatch(str(column[1]))))
        for column in result.description or ()
    ]
    shown = [[_cell(value) for value in row] for row in islice(rows, _MAX_ROWS_SHOWN)]
    print_table(TextConsole(), columns, shown)
    if next(rows, None) is not None:
        typer.echo(
            f"only the first {_MAX_ROWS_SHOWN:,} rows are shown; use --csv or --json to print all rows", err=True
        )
