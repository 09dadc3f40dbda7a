"""Compare two files of rows of any size in bounded memory.

Each file is decompressed and indexed once, both in parallel. DuckDB joins the indexes and stores intermediate results
on disk if necessary. Only rows that differ are parsed. The order of rows, and of the keys within a row, does not
matter.
"""

from __future__ import annotations

import json
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import duckdb

from meibo_cli.row_index import write_index
from meibo_cli.rows import RowFile

# Arguments of signal.signal. With this handler, Ctrl-C ends a process without a traceback.
END_SILENTLY: Final = (signal.SIGINT, signal.SIG_DFL)
MEMORY_LIMIT: Final = "500MB"
_BATCH_ROWS: Final = 1000
# The metadata of each user may have different fields, so further fields are counted together.
_MAX_FIELDS: Final = 2000
OTHER_FIELDS: Final = "(other fields)"
TOO_DEEP: Final = "(nested too deeply)"
_SIDES: Final = ("a", "b")
_SEED_BITS: Final = 64

Kind = Literal["added", "removed", "changed"]
ChangedFields = Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[str, ...]]


@dataclass(frozen=True)
class RowChange:
    """A row that differs. ``fields`` are the names of the fields of a changed row."""

    kind: Kind
    key: str
    fields: tuple[str, ...] = ()


@dataclass
class ComparisonCounts:
    """The number of rows by kind of change, and the number of changed rows per field.

    ``duplicates`` is the number of rows whose key occurs earlier in the same file.
    """

    added: int = 0
    removed: int = 0
    changed: int = 0
    unchanged: int = 0
    duplicates: int = 0
    fields: Counter[str] = field(default_factory=Counter)

    def add(self, change: RowChange) -> None:
        """Count a row that differs, and its fields."""
        setattr(self, change.kind, getattr(self, change.kind) + 1)
        for name in change.fields:
            self.fields[name if name in self.fields or len(self.fields) < _MAX_FIELDS else OTHER_FIELDS] += 1


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection with a memory limit. Data that exceeds the limit is stored in the folder."""
    connection = duckdb.connect()
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    connection.execute("SET temp_directory = ?", [str(folder / "spill")])
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")
    return connection


def execute(connection: duckdb.DuckDBPyConnection, query: str | duckdb.Statement) -> duckdb.DuckDBPyConnection:
    """Execute a query in a thread, so that Ctrl-C interrupts it immediately; DuckDB itself would continue for seconds.

    Return the connection, which contains the result.
    """
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(connection.execute, query)
        try:
            return result.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


class Comparison:
    """The comparison of two files. ``counts`` is complete after ``changes`` is exhausted.

    ``changed_fields`` returns the names of the fields that differ between two rows; ``field_changes`` is the default.
    """

    def __init__(
        self,
        before: RowFile,
        after: RowFile,
        folder: Path,
        *,
        blank_is_null: bool,
        changed_fields: ChangedFields | None = None,
    ) -> None:
        self.counts = ComparisonCounts()
        self._files = (before, after)
        self._folder = folder
        self._blank_is_null = blank_is_null
        self._changed_fields = changed_fields or self._all_changed_fields

    def changes(self) -> Iterator[RowChange]:
        """Yield first the removed, then the added, then the changed rows, each in the order of their keys."""
        contents = [self._folder / f"{side}.content" for side in _SIDES]
        indexes = [self._folder / f"{side}.index" for side in _SIDES]
        with ProcessPoolExecutor(len(_SIDES), initializer=signal.signal, initargs=END_SILENTLY) as pool:
            list(pool.map(write_index, self._files, contents, indexes, self._seeds()))
        with (
            connect(self._folder) as connection,
            contents[0].open("rb") as before,
            contents[1].open("rb") as after,
        ):
            self._join(connection, indexes)
            for kind in ("removed", "added"):
                for (key,) in _rows(connection, f"SELECT key FROM pairs WHERE kind = '{kind}' ORDER BY key"):  # noqa: S608  # constants
                    yield self._count(RowChange(kind, key))
            pairs = "SELECT key, a_start, a_size, b_start, b_size FROM pairs WHERE kind = 'changed' ORDER BY key"
            for key, a_start, a_size, b_start, b_size in _rows(connection, pairs):
                before.seek(a_start)
                after.seek(b_start)
                fields = self._fields(before.read(a_size), after.read(b_size))
                if fields:
                    yield self._count(RowChange("changed", key, fields))
                else:
                    self.counts.unchanged += 1

    def _seeds(self) -> tuple[int, int]:
        """Return the seeds of the digests. They differ if the CSV columns differ: then, no rows are identical."""
        seed = secrets.randbits(_SEED_BITS)
        is_same_form = self._files[0].form != "csv" or self._files[0].columns == self._files[1].columns
        return seed, seed if is_same_form else seed ^ 1

    def _join(self, connection: duckdb.DuckDBPyConnection, indexes: list[Path]) -> None:
        """Create the table ``pairs`` of the rows without an identical row in the other file."""
        for side, index in zip(_SIDES, indexes, strict=True):
            connection.execute(
                f"CREATE TABLE {side} AS FROM read_csv(?, auto_detect = false, header = false, nullstr = 'NULL',"
                " columns = {key: 'VARCHAR', digest: 'UUID', start: 'BIGINT', size: 'BIGINT'})",
                [str(index)],
            )
            ((total, keys),) = _rows(connection, f"SELECT count(*), count(DISTINCT key) FROM {side}")  # noqa: S608  # constants
            self.counts.unchanged += total if side == "a" else 0
            self.counts.duplicates += total - keys
        if self.counts.duplicates:
            # Number identical rows of a file, so that each is paired with at most one row of the other file.
            for side in _SIDES:
                connection.execute(
                    f"CREATE OR REPLACE TABLE {side} AS SELECT * REPLACE"  # noqa: S608  # constants
                    f" (md5(concat(digest, row_number() OVER (PARTITION BY digest ORDER BY start)))::UUID AS digest)"
                    f" FROM {side}"
                )
        for side, opposite in (("a", "b"), ("b", "a")):
            execute(
                connection,
                f"CREATE TABLE {side}_rest AS SELECT *, row_number() OVER (PARTITION BY key ORDER BY start) AS number"  # noqa: S608  # constants
                f" FROM {side} ANTI JOIN {opposite} USING (digest)",
            )
        execute(
            connection,
            "CREATE TABLE pairs AS SELECT decode(unhex(coalesce(a.key, b.key))) AS key,"
            " CASE WHEN b.key IS NULL THEN 'removed' WHEN a.key IS NULL THEN 'added' ELSE 'changed' END AS kind,"
            " a.start AS a_start, a.size AS a_size, b.start AS b_start, b.size AS b_size"
            " FROM a_rest a FULL JOIN b_rest b ON a.key = b.key AND a.number = b.number",
        )
        ((rest,),) = _rows(connection, "SELECT count(*) FROM a_rest")
        self.counts.unchanged -= rest

    def _count(self, change: RowChange) -> RowChange:
        self.counts.add(change)
        return change

    def _fields(self, before: bytes, after: bytes) -> tuple[str, ...]:
        try:
            return self._changed_fields(self._files[0].values(before), self._files[1].values(after))
        except RecursionError:
            # Users can nest their own metadata deeper than Python can parse.
            return (TOO_DEEP,)

    def _all_changed_fields(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(name for name, _, _ in field_changes(before, after, blank_is_null=self._blank_is_null))


def field_changes(
    before: Mapping[str, Any], after: Mapping[str, Any], *, blank_is_null: bool
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the old and the new value of each field that differs.

    The fields of an object in both rows are compared individually, as ``user_metadata.country``. An absent field and
    null are equal in the files of both providers. With ``blank_is_null``, an empty string is also equal to null.
    """

    def normalized(value: Any) -> Any:
        return None if blank_is_null and value == "" else value

    for name in {**before, **after}:
        old, new = normalized(before.get(name)), normalized(after.get(name))
        if isinstance(old, dict) and isinstance(new, dict):
            for inner in {**old, **new}:
                inner_old, inner_new = normalized(old.get(inner)), normalized(new.get(inner))
                if not _is_same(inner_old, inner_new):
                    yield f"{name}.{inner}", inner_old, inner_new
        elif not _is_same(old, new):
            yield name, old, new


def _is_same(old: Any, new: Any) -> bool:
    # In Python, True equals 1, and 1 equals 1.0. In a directory, 1 and 1.0 are the same value, but true and 1 are not.
    # For most values, a comparison of repr() is sufficient, which is several times faster than JSON.
    if old == new and type(old) is type(new) and (not isinstance(old, (dict, list)) or repr(old) == repr(new)):
        return True
    return json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True) or (
        old == new and isinstance(old, (int, float)) and not isinstance(old, bool) and not isinstance(new, bool)
    )


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[Any, ...]]:
    result = execute(connection.cursor(), query)
    while batch := result.fetchmany(_BATCH_ROWS):
        yield from batch
