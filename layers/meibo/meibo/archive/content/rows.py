"""Row counts of decompressed CSV and NDJSON.

Most rows are counted without parsing them. In a CSV file, the first record is parsed and the fields of the last record
are counted. In an NDJSON file, the first 1,000 rows and the last row are parsed.
"""

from __future__ import annotations

import csv
import io
import json
import re
from operator import itemgetter

from meibo.errors import CorruptFileError, FileTooLargeError, WrongFormatError

BOM = b"\xef\xbb\xbf"
QUOTED = re.compile(rb'"[^"]*"')
UNQUOTED_CELL = re.compile(rb'([^",\r\n]+)([,\r\n])')
HTML = re.compile(rb"<(?:!|\?|html|head|body)", re.IGNORECASE)

KEY_ROWS = 1000
"""Number of NDJSON rows whose keys are collected. Parsing all rows would take longer than the copy."""

AFTER_QUOTE = frozenset(b'",\r\n')
"""Bytes that may follow a quote inside a quoted field or at its end."""

_first_byte, _second_byte = itemgetter(0), itemgetter(1)


def check_start(format_name: str, start: bytes, *, header: bool = False) -> None:
    """Raise WrongFormatError if the file has another format, for example HTML.

    ``start`` is the first line, or its beginning if it is long. The first cell of a CSV without a header is data, so it
    may begin with ``[``, ``{`` or ``<``.
    """
    content = start.removeprefix(BOM).lstrip()
    first = content[:1]
    if format_name == "csv" and not header and _is_cell(content):
        return
    if first == b"<":
        raise WrongFormatError(f"expected {format_name.upper()}, found HTML or XML")
    if format_name == "ndjson" and first not in {b"{", b""}:
        raise WrongFormatError("expected NDJSON, found a first row that is not a JSON object")
    if format_name == "csv" and first in {b"{", b"["}:
        raise WrongFormatError("expected CSV, found JSON")


def _is_cell(content: bytes) -> bool:
    """Return whether the content begins with an unquoted CSV cell that is not a tag or a JSON document.

    An unquoted cell cannot be the beginning of JSON, because JSON quotes names, and a CSV cell that contains a quote is
    itself quoted (RFC 4180).
    """
    match = UNQUOTED_CELL.match(content)
    if match is None or HTML.match(content):
        return False
    cell, end = match[1], match[2]
    if end == b",":
        return True
    if cell.startswith(b"<") or not cell.strip(b"[{ \t"):
        return False  # a line with a tag, or the first line of an indented JSON document
    try:
        json.loads(cell)
    except (ValueError, RecursionError):
        return True
    return False


class _Rows:
    """Counts the rows in the chunks of a file. A row ends at a newline that is not inside quotes.

    Lines are counted in groups. If a line of a group might not be a row, each line of the group is checked.
    """

    _min_count = 1
    """Number of rows at the beginning of the file that are parsed."""

    _group_lines = 1024
    """Number of lines that are counted together."""

    def __init__(self, max_row_bytes: int) -> None:
        self._max_row_bytes = max_row_bytes
        self._count = 0
        self._last = b""
        self._row: list[bytes] = []  # the pieces of the unfinished row
        self._row_bytes = 0
        self._inside_quotes = False

    def feed(self, chunk: bytes) -> None:
        """Count the rows that end in the next chunk."""
        # This takes a third of the time of a loop that finds each newline.
        lines = io.BytesIO(chunk).readlines()
        self._add_lines(lines[:1])  # it may continue a line of the previous chunk
        incomplete = [lines.pop()] if len(lines) > 1 else []
        for start in range(1, len(lines), self._group_lines):
            group = lines[start : start + self._group_lines]
            if len(chunk) > self._max_row_bytes or not self._are_rows(group):
                self._add_lines(group)
            else:
                self._count += len(group)
                self._last = group[-1]
        self._add_lines(incomplete)

    def _are_rows(self, lines: list[bytes]) -> bool:
        """Return True if each line is known to be a row, and False if each line must be checked."""
        return (
            not self._row
            and self._count >= self._min_count
            and self._begin_rows(lines)
            and not self._ends_inside_quotes(lines[-1])
        )

    def _add_lines(self, lines: list[bytes]) -> None:
        for line in lines:
            self._row.append(line)
            self._row_bytes += len(line)
            if self._row_bytes > self._max_row_bytes:
                raise FileTooLargeError(f"a row is larger than {self._max_row_bytes} bytes")
            self._inside_quotes = self._ends_inside_quotes(line)
            if line.endswith(b"\n") and not self._inside_quotes:
                self._finish_row()
            elif line.strip():
                self._last = b""  # no longer needed, and it may be as large as the unfinished row

    def _finish_row(self) -> None:
        row = b"".join(self._row)
        self._row, self._row_bytes = [], 0
        if self._count == 0:
            row = row.removeprefix(BOM)
        self._add_row(row)

    def _ends_inside_quotes(self, line: bytes) -> bool:  # noqa: ARG002  (overridden for CSV)
        """Return whether the row continues after this line."""
        return False

    def _begin_rows(self, lines: list[bytes]) -> bool:
        """Return True if each line is known to begin a row, and False if this is not certain."""
        raise NotImplementedError

    def _add_row(self, row: bytes) -> None:
        """Validate and count a row, which may be blank."""
        raise NotImplementedError


class CsvRows(_Rows):
    """Counts the records of a CSV file. Records may contain newlines inside quotes. Blank lines are not records.

    A quote inside a quoted field is doubled (RFC 4180), so a newline ends a record if the number of quotes before it
    is even. With ``uniform``, the last record must have as many fields as the first record or the header. This detects
    a file that was truncated between two fields, which would otherwise be valid CSV.
    """

    _group_lines = 64  # a quoted newline is more frequent than a blank line

    def __init__(self, *, header: bool, max_row_bytes: int, uniform: bool = False) -> None:
        super().__init__(max_row_bytes)
        self._header = header
        self._uniform = uniform
        self._first = b""

    def _ends_inside_quotes(self, line: bytes) -> bool:
        return self._inside_quotes != bool(line.count(b'"') & 1)

    def _begin_rows(self, lines: list[bytes]) -> bool:
        # Inside quotes, a quote at the beginning of a line is followed by a second quote or by the end of the field.
        return set(map(_first_byte, lines)) == {ord('"')} and AFTER_QUOTE.isdisjoint(map(_second_byte, lines))

    def _add_row(self, row: bytes) -> None:
        row = row.strip(b"\r\n")
        if row:
            self._count += 1
            self._last = row
            self._first = self._first or row

    def finish(self) -> tuple[int, tuple[str, ...] | int]:
        """Return the number of rows without the header, and the names in the header or the number of columns."""
        if self._inside_quotes:
            raise CorruptFileError("the CSV ends inside a quoted field")
        self._finish_row()
        fields, expected = _field_count(self._last), _field_count(self._first)
        if self._uniform and fields != expected:
            raise CorruptFileError(
                f"the CSV ends early: its last record has {fields} fields, expected {expected} as in the first record"
            )
        columns = _parse_record(self._first)
        return (max(self._count - 1, 0), columns) if self._header else (self._count, len(columns))


def _field_count(record: bytes) -> int:
    """Return the number of fields of a record: its separators outside of quotes, plus 1."""
    return 1 + QUOTED.sub(b"", record).count(b",")


def _parse_record(record: bytes) -> tuple[str, ...]:
    text = record.decode("utf-8", "replace")
    limit = csv.field_size_limit(len(text) + 1)
    try:
        return tuple(next(csv.reader(io.StringIO(text, newline="")), ()))
    except csv.Error as error:
        raise WrongFormatError(f"the first CSV record cannot be read: {error}") from error
    finally:
        csv.field_size_limit(limit)


class NdjsonRows(_Rows):
    """Counts the rows of NDJSON. Blank lines are not rows. Each row must begin with a brace.

    The first rows are parsed to collect their keys. The last row is parsed to detect a truncated file.
    """

    _min_count = KEY_ROWS

    def __init__(self, *, max_row_bytes: int) -> None:
        super().__init__(max_row_bytes)
        self._keys: dict[str, None] = {}

    def _begin_rows(self, lines: list[bytes]) -> bool:
        return set(map(_first_byte, lines)) == {ord("{")}

    def _add_row(self, row: bytes) -> None:
        row = row.strip()
        if not row:
            return
        if not row.startswith(b"{"):
            raise WrongFormatError(f"row {self._count + 1} is not a JSON object")
        if self._count < KEY_ROWS:
            self._keys.update(dict.fromkeys(_parse_object(row, self._count + 1)))
        self._last = row
        self._count += 1

    def finish(self) -> tuple[int, tuple[str, ...]]:
        """Return the number of rows and the keys of the first 1,000 rows."""
        self._finish_row()
        if self._count > KEY_ROWS:
            _parse_object(self._last, self._count)
        return self._count, tuple(self._keys)


def _parse_object(row: bytes, number: int) -> dict[str, object]:
    """Return the JSON object of a row. The message of WrongFormatError does not contain the row."""
    try:
        # Integers stay strings: Python does not convert more than 4,300 digits, which are valid JSON.
        value: dict[str, object] = json.loads(row.decode("utf-8", "replace"), strict=False, parse_int=str)
    except ValueError:
        raise WrongFormatError(f"row {number} is not valid JSON") from None
    except RecursionError:
        return {}  # nested more deeply than Python can parse, so its keys are not collected
    return value
