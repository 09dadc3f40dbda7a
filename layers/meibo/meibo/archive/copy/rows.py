"""Rows counted in decoded bytes, without parsing what is in them."""

from __future__ import annotations

import csv
import io
import json
from typing import Protocol

from meibo.errors import CorruptFileError, FileTooLargeError, WrongFormatError

BOM = b"\xef\xbb\xbf"
BRACE = ord("{")
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


def check_start(format_name: str, start: bytes) -> None:
    """Raise if the first bytes belong to another format, most often a page of HTML where data was due."""
    first = start.removeprefix(BOM).lstrip()[:1]
    if first == b"<":
        raise WrongFormatError(f"HTML or XML arrived where {format_name} was due")
    if format_name == "ndjson" and first not in {b"{", b""}:
        raise WrongFormatError("the first row is not a JSON object")
    if format_name == "csv" and first in {b"{", b"["}:
        raise WrongFormatError("JSON arrived where csv was due")


class CsvRows:
    """Records of a CSV file; a newline inside a quoted field is not the end of one.

    A quote inside a quoted field is doubled (RFC 4180), so a physical line with an even number of quotes
    ends in the same state as it began. Only lines with an odd number need a look.
    """

    def __init__(self, *, header: bool, max_row_bytes: int) -> None:
        self._header = header
        self._max_row_bytes = max_row_bytes
        self._records = 0
        self._inside = False
        self._tail: list[bytes] = []  # the unfinished physical line
        self._tail_bytes = 0
        self._row_bytes = 0  # of the unfinished record, without the unfinished line
        self._first: list[bytes] | None = []  # physical lines of the first record

    def feed(self, chunk: bytes) -> None:
        """Count the records that end in this chunk."""
        lines = chunk.split(b"\n")
        last = lines.pop()
        if not lines:
            self._tail.append(last)
            self._tail_bytes += len(last)
            self._check()
            return
        if self._tail:
            self._tail.append(lines[0])
            lines[0] = b"".join(self._tail)
        self._tail, self._tail_bytes = ([last], len(last)) if last else ([], 0)
        if self._first is not None:
            self._begin(lines)
        odd = [number for number, line in enumerate(lines) if line.count(b'"') & 1]
        if not odd and not self._inside:
            self._records += len(lines) - lines.count(b"") - lines.count(b"\r")
            return
        self._walk(lines, odd)

    def _walk(self, lines: list[bytes], odd: list[int]) -> None:
        """Count lines while the state changes at each odd one."""
        position = 0
        for number in [*odd, len(lines)]:
            even = lines[position:number]
            if self._inside:
                self._row_bytes += sum(map(len, even))
            else:
                self._records += len(even) - even.count(b"") - even.count(b"\r")
            if number < len(lines):
                self._inside = not self._inside
                self._row_bytes = self._row_bytes + len(lines[number]) if self._inside else 0
                self._records += not self._inside
            position = number + 1
        self._check()

    def _check(self) -> None:
        if self._row_bytes + self._tail_bytes > self._max_row_bytes:
            raise FileTooLargeError(f"a CSV record is larger than {self._max_row_bytes} bytes")

    def _begin(self, lines: list[bytes]) -> None:
        """Keep the physical lines of the first record for its column names."""
        assert self._first is not None  # noqa: S101  (told to mypy)
        if sum(map(len, self._first)) > self._max_row_bytes:
            raise FileTooLargeError(f"a CSV record is larger than {self._max_row_bytes} bytes")
        for line in lines:
            if not self._first and not line.strip():
                continue
            self._first.append(line)
            if sum(part.count(b'"') for part in self._first) % 2 == 0:
                self._columns = self._parse(b"\n".join(self._first))
                self._first = None
                return

    _columns: tuple[str, ...] = ()

    @staticmethod
    def _parse(record: bytes) -> tuple[str, ...]:
        text = record.removeprefix(BOM).decode("utf-8", "replace").rstrip("\r\n")
        limit = csv.field_size_limit(len(text) + 1)
        try:
            return tuple(next(csv.reader(io.StringIO(text, newline="")), ()))
        except csv.Error as error:
            raise WrongFormatError(f"the first CSV record cannot be read: {error}") from error
        finally:
            csv.field_size_limit(limit)

    def finish(self) -> tuple[int, tuple[str, ...] | int]:
        """Return rows without the header, and its names or the number of columns."""
        if self._tail:
            self.feed(b"\n")
        if self._inside:
            raise CorruptFileError("the CSV ends inside a quoted field")
        if self._header:
            return max(self._records - 1, 0), self._columns
        return self._records, len(self._columns)


class NdjsonRows:
    """Lines of NDJSON; blank ones do not count, every other one begins with a brace."""

    def __init__(self, *, max_row_bytes: int) -> None:
        self._max_row_bytes = max_row_bytes
        self._rows = 0
        self._keys: dict[str, None] = {}
        self._tail: list[bytes] = []
        self._tail_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Count the rows that end in this chunk."""
        end = chunk.rfind(b"\n")
        if end < 0:
            self._tail.append(chunk)
            self._tail_bytes += len(chunk)
            if self._tail_bytes > self._max_row_bytes:
                raise FileTooLargeError(f"a row is larger than {self._max_row_bytes} bytes")
            return
        if self._tail:
            begin = chunk.find(b"\n")
            self._lines([b"".join([*self._tail, chunk[:begin]])])
        else:
            begin = -1
        rest = chunk[end + 1 :]
        self._tail, self._tail_bytes = ([rest], len(rest)) if rest else ([], 0)
        newlines = chunk.count(b"\n", begin + 1, end)
        if (
            begin < end
            and self._rows >= KEY_ROWS
            and chunk[begin + 1] == BRACE
            and chunk.count(b"\n{", begin + 1, end) == newlines
        ):
            self._rows += newlines + 1
            return
        if begin < end:
            self._lines(chunk[begin + 1 : end].split(b"\n"))

    def _lines(self, lines: list[bytes]) -> None:
        for line in lines:
            text = line.strip()
            if not text:
                continue
            if self._rows == 0:
                text = text.removeprefix(BOM)
            if not text.startswith(b"{"):
                raise WrongFormatError(f"row {self._rows + 1} is not a JSON object")
            if len(text) > self._max_row_bytes:
                raise FileTooLargeError(f"a row is larger than {self._max_row_bytes} bytes")
            if self._rows < KEY_ROWS:
                self._note(text)
            self._rows += 1

    def _note(self, text: bytes) -> None:
        try:
            row = json.loads(text.decode("utf-8", "replace"), strict=False)
        except ValueError:
            raise WrongFormatError(f"row {self._rows + 1} is not valid JSON") from None
        self._keys.update(dict.fromkeys(row))

    def finish(self) -> tuple[int, tuple[str, ...]]:
        """Return the rows and the keys seen in the first thousand of them."""
        if self._tail:
            self._lines([b"".join(self._tail)])
        return self._rows, tuple(self._keys)
