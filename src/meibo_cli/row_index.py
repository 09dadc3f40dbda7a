"""An index of a file of rows: the key, a digest and the position of each row.

The key of most rows is extracted without parsing the row, which is several times faster.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import duckdb
from awscrt.checksums import XXHash

from meibo_cli.encoding import open_decompressed, readable_json
from meibo_cli.rows import RowFile, nested_value

_BLOCK_BYTES: Final = 1024 * 1024
# The first field of a record, without the apostrophe that Auth0 adds.
_FIRST_CSV_FIELD: Final = re.compile(rb"""(?:"'?([^"]*+)"|'?([^",\r\n]*+))(?:,|\r?\n\Z)""")
_NEVER: Final = re.compile(rb"(?!)")


def write_index(rows: RowFile, content: Path, index: Path, seed: int) -> None:
    """Decompress a file of rows to ``content``, and write its index.

    The index is a CSV file without a header: key (hexadecimal UTF-8), digest, position and length in bytes. The digest
    is XXH3 with 128 bits and a random seed, which takes half the time of SHA-256.
    """
    csv.field_size_limit(sys.maxsize)
    match, digest = _key_pattern(rows).match, XXHash.compute_xxhash3_128
    with (
        open_decompressed(rows.path) as source,
        content.open("xb") as copy,
        index.open("x", encoding="ascii", buffering=_BLOCK_BYTES) as out,
    ):
        records = _lines(source, copy)
        start = 0
        if rows.form == "csv":
            records = _csv_records(records)
            start = len(next(records, b""))
        # This loop takes most of the time of a comparison, so it calls few Python functions.
        for record in records:
            if not record.isspace():
                if field := match(record):
                    key = field[field.lastindex or 0]
                    if not key.isascii():
                        key = key.decode("utf-8", "backslashreplace").encode()
                else:
                    key = _parsed_key(rows, record)
                row = record[:-2] + b"\n" if record.endswith(b"\r\n") else record
                out.write(f"{key.hex()},{digest(row, seed).hex()},{start},{len(record)}\n")
            start += len(record)


def _lines(source: IO[bytes], copy: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, each with a newline, and copy the file."""
    rest = b""
    while block := source.read(_BLOCK_BYTES):
        copy.write(block)
        # Lines are read several times as fast from a BytesIO as from a decompressed file.
        lines = io.BytesIO(rest + block).readlines()
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
        yield from lines
    if rest:
        yield rest + b"\n"


def _csv_records(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the records of a CSV file. A line with an odd number of quotes begins or ends a field with newlines."""
    for line in lines:
        if line.count(b'"') % 2 == 0:
            yield line
            continue
        parts = [line]
        for part in lines:
            parts.append(part)
            if part.count(b'"') % 2:
                break
        yield b"".join(parts)


def _key_pattern(rows: RowFile) -> re.Pattern[bytes]:
    """Return a pattern whose last group is the key at the beginning of a record. Other records must be parsed."""
    first = rows.key[0]
    if len(rows.key) > 1 or (rows.form == "csv" and first != rows.columns[0]) or (rows.form == "json" and "." in first):
        return _NEVER
    if rows.form == "csv":
        return _FIRST_CSV_FIELD
    name = re.escape(json.dumps(first, ensure_ascii=False).encode())
    return re.compile(rb'\s*\{\s*%b\s*:\s*"([^"\\]*+)"' % name)


def _parsed_key(rows: RowFile, record: bytes) -> bytes:
    try:
        values = rows.values(record)
    except RecursionError:
        return _deep_key(rows, record)
    if rows.form == "csv":
        parts = [values.get(name, "") for name in rows.key]
    else:
        parts = [_text(nested_value(values, name.split("."))) for name in rows.key]
    return _joined(parts)


def _deep_key(rows: RowFile, record: bytes) -> bytes:
    """Return the key of a JSON record that is nested deeper than Python can parse. DuckDB has no such limit."""
    paths = ["$" + "".join(f'."{part}"' for part in name.split(".")) for name in rows.key]
    text = readable_json(record).decode()
    with duckdb.connect() as connection:
        query = "SELECT coalesce(json_extract_string(?, path), '') FROM unnest(?) AS paths(path)"
        parts = [value for (value,) in connection.execute(query, [text, paths]).fetchall()]
    return _joined(parts)


def _joined(parts: list[str]) -> bytes:
    key = parts[0] if len(parts) == 1 else " ".join(parts).strip(" ")
    return key.encode("utf-8", "surrogatepass")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
