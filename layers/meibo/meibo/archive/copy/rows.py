"""Rows counted in decoded bytes, without parsing what is in them."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Protocol

from meibo.errors import CorruptFileError, FileTooLargeError, WrongFormatError

BOM = b"\xef\xbb\xbf"
BRACE = ord("{")
NEITHER_QUOTE_NOR_NEWLINE = bytes(byte for byte in range(256) if byte not in b'"\n')
NO_SEPARATOR = bytes(byte for byte in range(256) if byte not in b'",\n')
QUOTED = re.compile(rb'"[^"]*"')
UNQUOTED_CELL = re.compile(rb'([^",\r\n]+)([,\r\n])')
HTML = re.compile(rb"<(?:!|\?|html|head|body)", re.IGNORECASE)
KEY_ROWS = 1000
"""Rows of NDJSON whose keys are noted: parsing all of them costs more than the whole copy."""


class Rows(Protocol):
    """Counts what a format calls rows."""

    def feed(self, chunk: bytes) -> None:
        """Take the next decoded bytes."""
        ...

    def finish(self) -> tuple[int, tuple[str, ...] | int]:
        """Return the number of rows and the columns; raise if the data ends inside a row."""
        ...


def check_start(format_name: str, start: bytes, *, header: bool = False) -> None:
    """Raise if the first bytes belong to another format, most often a page of HTML instead of data.

    ``start`` must have the first line, unless that is longer than any column name or login. The first cell of a CSV
    without a header is data, so it may begin with ``[``, ``{`` or ``<``.
    """
    content = start.removeprefix(BOM).lstrip()
    first = content[:1]
    if format_name == "csv" and not header and _is_cell(content):
        return
    if first == b"<":
        raise WrongFormatError(f"HTML or XML arrived where {format_name} was due")
    if format_name == "ndjson" and first not in {b"{", b""}:
        raise WrongFormatError("the first row is not a JSON object")
    if format_name == "csv" and first in {b"{", b"["}:
        raise WrongFormatError("JSON arrived where csv was due")


def _is_cell(content: bytes) -> bool:
    """Return whether the content begins with a cell that has no quotes, and with no tag or JSON document.

    Names in JSON are quoted, and a quote inside a cell would need quotes around the cell (RFC 4180).
    """
    found = UNQUOTED_CELL.match(content)
    if found is None or HTML.match(content):
        return False
    cell, end = found[1], found[2]
    if end == b",":
        return True
    if cell.startswith(b"<") or not cell.strip(b"[{ \t"):
        return False  # a line with a tag, or the first line of an indented JSON document
    try:
        json.loads(cell)
    except (ValueError, RecursionError):
        return True
    return False


def _record(data: bytes | bytearray) -> bytes:
    """Return a record without what may stand around it."""
    return bytes(data).removeprefix(BOM).strip(b"\r\n")


def _fields_of_last(records: bytes) -> int:
    """Return the number of fields of the last record: its separators outside of quotes, and one."""
    unquoted = QUOTED.sub(b'"', records).rstrip(b"\r\n")
    return 1 + unquoted.count(b",", unquoted.rfind(b"\n") + 1)


class CsvRows:
    """Records of a CSV file; a newline inside a quoted field is not the end of one.

    With ``uniform`` the last record must have as many fields as the first one, the header if there is one: a file that
    was cut off between two fields is a valid CSV otherwise.

    A quote inside a quoted field is doubled (RFC 4180), so a newline ends a record if the number of quotes before it
    is even. Two quotes with no newline between them change nothing and are taken out, which leaves one newline a
    record and little else.
    """

    def __init__(self, *, header: bool, max_row_bytes: int, uniform: bool = False) -> None:
        self._header = header
        self._uniform = uniform
        self._max_row_bytes = max_row_bytes
        self._records = 0
        self._inside = False
        self._line_begun = False  # whether the unfinished line has something in it
        self._row_bytes = 0  # of the unfinished record, at least
        self._first: bytearray | None = bytearray()  # the bytes up to the end of the first record
        self._first_seen = 0
        self._first_inside = False
        self._columns: tuple[str, ...] = ()
        self._fields = 0  # of the first record
        # The chunks that hold the last record and the end of the one before, each with whether it begins inside quotes.
        self._recent: list[tuple[bytes, bool]] = []
        self._recent_end = 0  # which of them holds the end of the last record

    def feed(self, chunk: bytes) -> None:
        """Count the records that end in this chunk."""
        if self._first is not None:
            self._begin(chunk)
        before, inside = self._records, self._inside
        marks = chunk.translate(None, NEITHER_QUOTE_NOR_NEWLINE)
        if b"\n\n" in marks or (marks.startswith(b"\n") and not self._line_begun):
            self._by_line(chunk)  # there are lines without quotes, which may be blank
        else:
            self._by_mark(marks.replace(b'""', b""))
        end = chunk.rfind(b"\n") + 1
        self._line_begun = (self._line_begun and not end) or chunk[end:] not in {b"", b"\r"}
        if self._uniform and self._first is None:
            self._keep(chunk, self._records - before, inside=inside)
        self._row_bytes = len(chunk) - end if self._records > before else self._row_bytes + len(chunk)
        if self._row_bytes > self._max_row_bytes:
            raise FileTooLargeError(f"a CSV record is larger than {self._max_row_bytes} bytes")

    def _keep(self, chunk: bytes, ended: int, *, inside: bool) -> None:
        """Keep what is needed to count the fields of the last record; ``ended`` records end in this chunk."""
        if not ended:
            # The record is large: its separators are enough, and a mark that the line is not blank.
            chunk = chunk.translate(None, NO_SEPARATOR) + (b"x" if chunk.strip(b"\r\n") else b"")
        elif ended > 1:
            self._recent.clear()
        else:
            del self._recent[: self._recent_end]
        self._recent.append((chunk, inside))
        if ended:
            self._recent_end = len(self._recent) - 1

    def _check_last(self) -> None:
        chunks = [chunk for chunk, _ in self._recent]
        if self._recent[0][1]:
            chunks.insert(0, b'"')  # opened in an earlier chunk
        fields = _fields_of_last(b"".join(chunks))
        if fields != self._fields:
            raise CorruptFileError(
                f"the CSV ends early: its last record has {fields} fields, expected {self._fields} as in the first one"
            )

    def _by_mark(self, marks: bytes) -> None:
        if not self._inside and b'"' not in marks:
            self._records += len(marks)
            return
        for number, newlines in enumerate(marks.split(b'"')):
            if number:
                self._inside = not self._inside
            if not self._inside:
                self._records += len(newlines)

    def _by_line(self, chunk: bytes) -> None:
        *lines, rest = chunk.split(b"\n")
        if lines and self._line_begun:
            lines[0] += b" "  # whatever it is, it is not blank
        if not self._inside and b'"' not in chunk:
            self._records += len(lines) - lines.count(b"") - lines.count(b"\r")
            return
        for line in lines:
            if line.count(b'"') & 1:
                self._inside = not self._inside
            if not self._inside and line not in {b"", b"\r"}:
                self._records += 1
        if rest.count(b'"') & 1:
            self._inside = not self._inside

    def _begin(self, chunk: bytes) -> None:
        """Keep the first record until it is whole, for its column names."""
        first, at = self._first, self._first_seen
        assert first is not None  # noqa: S101  (told to mypy)
        first += chunk
        if len(first) > self._max_row_bytes + len(chunk):
            raise FileTooLargeError(f"a CSV record is larger than {self._max_row_bytes} bytes")
        while (end := first.find(b"\n", at)) >= 0:
            self._first_inside ^= bool(first.count(b'"', at, end) & 1)
            at = end + 1
            if not self._first_inside and (record := _record(first[:end])):
                self._columns, self._fields, self._first = self._parse(record), _fields_of_last(record), None
                return
        # What was looked at is not looked at again: a record may be as large as a limit allows.
        self._first_inside ^= bool(first.count(b'"', at) & 1)
        self._first_seen = len(first)

    @staticmethod
    def _parse(record: bytes) -> tuple[str, ...]:
        text = record.decode("utf-8", "replace").rstrip("\r\n")
        limit = csv.field_size_limit(len(text) + 1)
        try:
            return tuple(next(csv.reader(io.StringIO(text, newline="")), ()))
        except csv.Error as error:
            raise WrongFormatError(f"the first CSV record cannot be read: {error}") from error
        finally:
            csv.field_size_limit(limit)

    def finish(self) -> tuple[int, tuple[str, ...] | int]:
        """Return rows without the header, and its names or the number of columns."""
        if self._inside:
            raise CorruptFileError("the CSV ends inside a quoted field")
        if self._line_begun:
            self._records += 1
        if self._first is not None:
            self._columns = self._parse(_record(self._first))
        elif self._uniform and self._records > 1:
            self._check_last()
        if self._header:
            return max(self._records - 1, 0), self._columns
        return self._records, len(self._columns)


class NdjsonRows:
    """Lines of NDJSON; blank ones do not count, every other one begins with a brace.

    The first rows are parsed for their keys, and the last one because a file that was cut off ends inside it.
    """

    def __init__(self, *, max_row_bytes: int) -> None:
        self._max_row_bytes = max_row_bytes
        self._rows = 0
        self._keys: dict[str, None] = {}
        self._last = b""
        self._tail: list[bytes] = []
        self._tail_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Count the rows that end in this chunk."""
        find, begin, end = chunk.find, 0, chunk.find(b"\n")
        if self._tail:
            if end < 0:
                if chunk.strip():
                    self._last = b""  # the row that began is the last one now
                self._keep(chunk)
                return
            self._line(b"".join([*self._tail, chunk[:end]]))
            self._tail, self._tail_bytes = [], 0
            begin, end = end + 1, find(b"\n", end + 1)
        start = begin
        # Looking for the next newline again and again is faster than anything that makes an object of each line.
        rows, most = self._rows, self._max_row_bytes
        while end >= 0:
            if rows < KEY_ROWS or chunk[begin] != BRACE or end - begin > most:
                self._rows = rows
                self._line(chunk[begin:end])
                rows = self._rows
            else:
                rows += 1
            begin = end + 1
            end = find(b"\n", begin)
        self._rows = rows
        self._last = _last_line(chunk, start, begin) or self._last
        if begin < len(chunk):
            self._keep(chunk[begin:])

    def _keep(self, rest: bytes) -> None:
        self._tail.append(rest)
        self._tail_bytes += len(rest)
        if self._tail_bytes > self._max_row_bytes:
            raise FileTooLargeError(f"a row is larger than {self._max_row_bytes} bytes")

    def _line(self, line: bytes) -> None:
        text = line.strip()
        if not text:
            return
        if self._rows == 0:
            text = text.removeprefix(BOM)
        if not text.startswith(b"{"):
            raise WrongFormatError(f"row {self._rows + 1} is not a JSON object")
        if len(text) > self._max_row_bytes:
            raise FileTooLargeError(f"a row is larger than {self._max_row_bytes} bytes")
        if self._rows < KEY_ROWS:
            self._keys.update(dict.fromkeys(_object(text, self._rows + 1)))
        self._last = text
        self._rows += 1

    def finish(self) -> tuple[int, tuple[str, ...]]:
        """Return the rows and the keys seen in the first thousand of them."""
        if self._tail:
            self._line(b"".join(self._tail))
        if self._rows > KEY_ROWS:
            _object(self._last, self._rows)
        return self._rows, tuple(self._keys)


def _last_line(chunk: bytes, start: int, end: int) -> bytes:
    """Return the last line between two positions that is not blank, or nothing."""
    while end > start:
        begin = chunk.rfind(b"\n", start, end - 1) + 1 or start
        if line := chunk[begin:end].strip():
            return line
        end = begin
    return b""


def _object(text: bytes, number: int) -> dict[str, object]:
    """Return the JSON object of a row."""
    try:
        # Integers stay text: Python refuses to convert more than 4,300 digits, which are legal JSON.
        row: dict[str, object] = json.loads(text.decode("utf-8", "replace"), strict=False, parse_int=str)
    except ValueError:
        raise WrongFormatError(f"row {number} is not valid JSON") from None
    except RecursionError:
        return {}  # nested deeper than Python reads: a row all the same, only its keys stay unknown
    return row
