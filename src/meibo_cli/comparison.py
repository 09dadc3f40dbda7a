"""Compare two files of rows, of any size, in bounded memory: who is new, who is gone, who changed in which fields.

DuckDB joins them on disk by their keys and a digest of each line, so that only lines that differ are looked into.
The order of lines, and of the keys within a line, does not matter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import duckdb

from meibo_cli.rows import RowFile

MEMORY: Final = "500MB"
_BATCH_ROWS: Final = 1000
# Metadata may have a field for each user; so many are counted apart.
_MAX_FIELDS: Final = 2000
OTHER_FIELDS: Final = "(other fields)"
TOO_DEEP: Final = "(nested too deeply)"
# DuckDB sets buffers of this size aside for each thread.
_MAX_ROW_BYTES: Final = 16 * 1024 * 1024

Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class RowChange:
    """A row that differs. ``fields`` are the names of the fields of a changed row."""

    kind: Kind
    key: str
    fields: tuple[str, ...] = ()


@dataclass
class ComparisonCounts:
    """The numbers of rows and fields that differ."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    unchanged: int = 0
    duplicates: int = 0
    fields: Counter[str] = field(default_factory=Counter)

    def count(self, name: str) -> None:
        """Count a changed field."""
        self.fields[name if name in self.fields or len(self.fields) < _MAX_FIELDS else OTHER_FIELDS] += 1


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB that keeps to its memory and spills into the folder."""
    connection = duckdb.connect(str(folder / "rows.duckdb"))
    connection.execute(f"SET memory_limit = '{MEMORY}'")
    connection.execute("SET temp_directory = ?", [str(folder / "spill")])
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")
    return connection


class Comparison:
    """Compares two files; ``counts`` is complete when ``changes`` has been read to its end."""

    def __init__(self, before: RowFile, after: RowFile, folder: Path, *, blank_is_null: bool) -> None:
        self.counts = ComparisonCounts()
        self._sources = {"a": before, "b": after}
        self._blank_is_null = blank_is_null
        self._connection = connect(folder)
        self._repeated = False

    def __enter__(self) -> Comparison:
        """Keep the database for the comparison."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database."""
        self._connection.close()

    def changes(self) -> Iterator[RowChange]:
        """Yield every row that differs: the removed, the added, then the changed."""
        sql = self._connection
        for name in self._sources:
            total = self._load(name)
            (distinct,) = _one(sql, f"SELECT count(DISTINCT key) FROM {name}")  # noqa: S608  # our own names
            self.counts.duplicates += total - distinct
        self._repeated = self.counts.duplicates > 0
        if self._repeated:
            # Rows of one key are paired by their digests, so that equal ones meet.
            for name in self._sources:
                sql.execute(f"CREATE TABLE numbered AS SELECT key, digest, {_NUMBER} AS number FROM {name}")  # noqa: S608  # our own names
                sql.execute(f"DROP TABLE {name}")
                sql.execute(f"ALTER TABLE numbered RENAME TO {name}")
        else:
            for name in self._sources:
                sql.execute(f"ALTER TABLE {name} ADD COLUMN number BIGINT DEFAULT 1")
        sql.execute(
            "CREATE TABLE differing AS SELECT coalesce(a.key, b.key) AS key, coalesce(a.number, b.number) AS number,"
            " CASE WHEN b.key IS NULL THEN 'removed' WHEN a.key IS NULL THEN 'added' ELSE 'changed' END AS kind"
            " FROM a FULL JOIN b ON a.key = b.key AND a.number = b.number"
            " WHERE a.digest IS DISTINCT FROM b.digest"
        )
        (self.counts.unchanged,) = _one(
            sql, "SELECT (SELECT count(*) FROM a) - (SELECT count(*) FROM differing WHERE kind <> 'added')"
        )
        yield from self._whole("removed")
        yield from self._whole("added")
        yield from self._changed()

    def _load(self, name: str) -> int:
        """Make the table of a file's keys and digests, and return how many rows it has."""
        rows = self._sources[name]
        # DuckDB reads a CSV several times as fast as Python, but is stricter about broken ones. Of JSON it refuses text
        # that Python can replace.
        with suppress(duckdb.Error):
            total = self._table(name, rows)
            if rows.form == "json" or rows.expected in (None, total):
                return total
        self._connection.execute(f"DROP TABLE IF EXISTS {name}")
        rows = self._sources[name] = rows.readable()
        return self._table(name, rows)

    def _table(self, name: str, rows: RowFile) -> int:
        self._connection.execute(
            f"CREATE TABLE {name} AS SELECT {_key(rows)} AS key, md5_number({_text(rows)}) AS digest FROM {_read(rows)}"  # noqa: S608  # our own names and quoted paths
        )
        total: int = _one(self._connection, f"SELECT count(*) FROM {name}")[0]  # noqa: S608  # our own names
        return total

    def _whole(self, kind: Literal["added", "removed"]) -> Iterator[RowChange]:
        rows = self._connection.execute("SELECT key FROM differing WHERE kind = ? ORDER BY key", [kind])
        while batch := rows.fetchmany(_BATCH_ROWS):
            for (key,) in batch:
                if kind == "added":
                    self.counts.added += 1
                else:
                    self.counts.removed += 1
                yield RowChange(kind, key)

    def _changed(self) -> Iterator[RowChange]:
        sides = []
        for name, rows in self._sources.items():
            number = _NUMBER if self._repeated else "1"
            sides.append(
                f"{name}_text AS (SELECT key, {number} AS number, text FROM"  # noqa: S608  # our own names and quoted paths
                f" (SELECT {_key(rows)} AS key, {_text(rows)} AS text, md5_number(text) AS digest FROM {_read(rows)}))"
            )
        rows_ = self._connection.execute(
            f"WITH {', '.join(sides)} SELECT key, a_text.text, b_text.text"  # noqa: S608  # our own names and quoted paths
            " FROM (SELECT key, number FROM differing WHERE kind = 'changed')"
            " JOIN a_text USING (key, number) JOIN b_text USING (key, number)"
        )
        while batch := rows_.fetchmany(_BATCH_ROWS):
            for key, before, after in batch:
                try:
                    fields = self._fields(self._sources["a"].values(before), self._sources["b"].values(after))
                except RecursionError:
                    # A user may nest their own metadata deeper than Python reads.
                    fields = (TOO_DEEP,)
                if fields:
                    self.counts.changed += 1
                    for name in fields:
                        self.counts.count(name)
                    yield RowChange("changed", key, fields)
                else:
                    self.counts.unchanged += 1

    def _fields(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
        found = []
        for name in {**before, **after}:
            one, other = self._value(before.get(name)), self._value(after.get(name))
            if one == other and type(one) is type(other):
                continue
            if isinstance(one, dict) and isinstance(other, dict):
                found += [
                    f"{name}.{inner}" for inner in {**one, **other} if not self._same(one.get(inner), other.get(inner))
                ]
            elif not self._same(one, other):
                found.append(name)
        return tuple(found)

    def _same(self, one: Any, other: Any) -> bool:
        one, other = self._value(one), self._value(other)
        # To Python True is 1 and 1 is 1.0; in a directory only the second pair is the same value.
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True) or (
            one == other and isinstance(one, (int, float)) and not isinstance(one, bool) and not isinstance(other, bool)
        )

    def _value(self, value: Any) -> Any:
        # An absent field and null are equal in the files of both providers.
        return None if self._blank_is_null and value == "" else value


_NUMBER: Final = "row_number() OVER (PARTITION BY key ORDER BY digest)"


def _key(rows: RowFile) -> str:
    parts = [
        f"coalesce({_csv_value(rows, name) if rows.form == 'csv' else _json_value(name)}, '')" for name in rows.key
    ]
    return parts[0] if len(parts) == 1 else f"trim(concat_ws(' ', {', '.join(parts)}))"


def _json_value(name: str) -> str:
    path = "$" + "".join('."' + part.replace('"', '\\"') + '"' for part in name.split("."))
    return f"json_extract_string(json, {_quoted(path)})"


def _csv_value(rows: RowFile, name: str) -> str:
    if name not in rows.columns:
        return "NULL"
    # The apostrophe that Auth0 puts before every text.
    return f"regexp_replace(c{rows.columns.index(name)}, '^''', '')"


def _text(rows: RowFile) -> str:
    return "to_json(line)::VARCHAR" if rows.form == "csv" else "json::VARCHAR"


def _read(rows: RowFile) -> str:
    with rows.path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    place = f"{_quoted(str(rows.path))}, compression = '{'gzip' if zipped else 'none'}'"
    if rows.form == "json":
        return f"read_ndjson_objects({place}, maximum_object_size = {_MAX_ROW_BYTES})"
    columns = ", ".join(f"c{number}: 'VARCHAR'" for number in range(len(rows.columns)))
    return (
        f"read_csv({place}, auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"',"
        f" columns = {{{columns}}}) AS line"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query).fetchone()
    assert row is not None  # noqa: S101  # an aggregate has a row
    return row
