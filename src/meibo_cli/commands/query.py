"""``meibo query``: SQL over all runs of an archive, with the partitions of the keys as columns."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import duckdb
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid

from meibo.archive.reader import ArchiveReader, DiskReader
from meibo.errors import ConfigurationError
from meibo_cli.archive_option import DEFAULT_ARCHIVE, ArchiveOption, open_archive
from meibo_cli.comparison import connect
from meibo_cli.exit_codes import report_errors
from meibo_cli.filesystem import PROTOCOL, ArchiveFileSystem
from meibo_cli.tables import PARTITIONS, Table, tables

_TYPES: Final = {"string": "VARCHAR", "boolean": "BOOLEAN", "bigint": "BIGINT"}
_BATCH_ROWS: Final = 1000
_MAX_ROWS_SHOWN: Final = 1000


def query(
    sql: Annotated[
        str, typer.Argument(help="The query, for example: select dt, count(*) from auth0_users group by dt")
    ],
    *,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV, for spreadsheets.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
    archive: ArchiveOption = DEFAULT_ARCHIVE,
) -> None:
    """Ask the whole archive in SQL. Tables: auth0_users, auth0_organizations, auth0_members, cybozu_users."""
    with report_errors(), tempfile.TemporaryDirectory(prefix="meibo-query-") as name:
        folder = Path(name)
        reader = open_archive(archive)
        connection = connect(folder)
        try:
            _define(connection, reader, archive, folder, sql)
            result = connection.execute(sql)
            columns = [column[0] for column in result.description or ()]
            rows = _rows(result)
            if as_csv:
                writer = csv.writer(sys.stdout, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows(rows)
            elif as_json:
                for row in rows:
                    document = dict(zip(columns, row, strict=True))
                    typer.echo(json.dumps(document, ensure_ascii=False, default=str))
            else:
                _print(columns, rows)
        except duckdb.CatalogException as error:
            names = ", ".join(table.name for table in tables())
            raise ConfigurationError(f"{str(error).splitlines()[0]} The tables are {names}.") from None
        except duckdb.Error as error:
            raise ConfigurationError(str(error)) from None
        finally:
            connection.close()


def _define(
    connection: duckdb.DuckDBPyConnection, reader: ArchiveReader, location: str, folder: Path, sql: str
) -> None:
    if isinstance(reader, DiskReader):
        base = f"{Path(location)}/"
    else:
        base = f"{PROTOCOL}://"
        connection.register_filesystem(ArchiveFileSystem(reader, folder))
    # As Athena calls it.
    connection.execute("CREATE MACRO json_extract_scalar(document, path) AS json_extract_string(document, path)")
    for table in tables():
        if table.name not in sql.lower():
            continue
        if next(_keys(reader, table), None) is None:
            raise ConfigurationError(f"{reader.name} holds no {table.dataset} of {table.provider} as NDJSON")
        columns = ", ".join(f"\"{name}\": '{_TYPES[kind]}'" for name, kind in table.columns.items())
        partitions = ", ".join(f"{name}: VARCHAR" for name in PARTITIONS)
        pattern = f"{base}{table.pattern}".replace("'", "''")
        connection.execute(
            f"CREATE VIEW {table.name} AS SELECT * FROM read_ndjson('{pattern}', columns = {{{columns}}},"  # noqa: S608  # our own names
            f" hive_partitioning = true, hive_types = {{{partitions}}}, maximum_object_size = 16777216)"
        )


def _keys(reader: ArchiveReader, table: Table) -> Iterator[str]:
    for source in reader.folders(f"archive/provider={table.provider}/"):
        for one in reader.list(f"{source}dataset={table.dataset}/format=ndjson/"):
            yield one.key


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while batch := result.fetchmany(_BATCH_ROWS):
        yield from batch


def _print(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        grid.add_column(name, overflow="fold")
    for row in islice(rows, _MAX_ROWS_SHOWN):
        grid.add_row(*("–" if value is None else str(value) for value in row), style=None)
    console = Console(markup=False, highlight=False)
    console.print(grid)
    if next(rows, None) is not None:
        typer.echo(f"only the first {_MAX_ROWS_SHOWN:,} rows are shown; --csv or --json prints all", err=True)
