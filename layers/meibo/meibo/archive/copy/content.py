"""Validation of a file's content while it is copied: the gzip trailer, the format and the number of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meibo.archive.copy.gunzip import MAGIC, OUTPUT_BYTES, Gunzip
from meibo.archive.copy.model import MIB
from meibo.archive.copy.rows import BOM, CsvRows, NdjsonRows, check_start
from meibo.errors import CorruptFileError, FileTooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meibo.archive.copy.model import Content

START_BYTES = 1024
"""Bytes of the first line that are enough to recognize the format."""

MIN_RATIO_BYTES = 64 * MIB
"""The ratio is limited only above this number of expanded bytes: a small file of spaces may expand a thousandfold."""


@dataclass(frozen=True)
class Facts:
    """Properties of a valid file; None if they do not apply to its format or it was not decoded."""

    gzip: bool
    rows: int | None
    columns: tuple[str, ...] | int | None
    expanded_bytes: int | None


class Inspection:
    """Reads a file in order and raises an error as soon as its content is invalid."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._raw_bytes = 0
        self._expanded_bytes = 0
        self._lead: bytes | None = b""  # the file's first bytes, until gzip is detected or excluded
        self._start: bytes | None = b""  # the content's first bytes, until its format is checked
        self._gunzip: Gunzip | None = None
        self._rows: CsvRows | NdjsonRows | None = None
        if content.format == "csv":
            uniform = content.header or content.uniform
            self._rows = CsvRows(header=content.header, uniform=uniform, max_row_bytes=content.max_row_bytes)
        elif content.format == "ndjson":
            self._rows = NdjsonRows(max_row_bytes=content.max_row_bytes)

    def feed(self, data: memoryview) -> None:
        """Read the next bytes of the file."""
        self._raw_bytes += len(data)
        if self._lead is None:
            self._decode(data)
            return
        self._lead += data
        if len(self._lead) >= len(MAGIC):
            self._detect_gzip(self._lead)

    def finish(self) -> Facts:
        """Check the end of the file and return its facts."""
        if self._lead is not None:
            self._detect_gzip(self._lead)
        is_gzip = self._gunzip is not None
        if not self._content.decode:
            return Facts(gzip=is_gzip, rows=None, columns=None, expanded_bytes=None)
        if self._gunzip is not None:
            self._gunzip.finish()
        if self._rows is None:
            return Facts(gzip=is_gzip, rows=None, columns=None, expanded_bytes=self._expanded_bytes)
        if self._start is not None:
            self._check_start(self._start + b"\n")
        rows, columns = self._rows.finish()
        return Facts(gzip=is_gzip, rows=rows, columns=columns, expanded_bytes=self._expanded_bytes)

    def _detect_gzip(self, lead: bytes) -> None:
        self._lead = None
        is_gzip = lead.startswith(MAGIC)
        if self._content.gzip == "required" and not is_gzip:
            self._check_start(lead)
            raise CorruptFileError("the file is not gzip data")
        if is_gzip and self._content.gzip != "never":
            self._gunzip = Gunzip()
        self._decode(memoryview(lead))

    def _decode(self, data: memoryview) -> None:
        if not self._content.decode:
            return
        if self._gunzip is not None:
            chunks: Iterable[bytes] = self._gunzip.feed(data)
        else:
            chunks = (bytes(data[start : start + OUTPUT_BYTES]) for start in range(0, len(data), OUTPUT_BYTES))
        for chunk in chunks:
            self._expanded_bytes += len(chunk)
            self._check_size()
            if self._rows is not None:
                self._check_format(chunk)
                self._rows.feed(chunk)

    def _check_format(self, chunk: bytes) -> None:
        """Check the format as soon as the first line is known."""
        if self._start is not None:
            self._start += chunk[:START_BYTES]
            start = self._start.removeprefix(BOM).lstrip()
            if b"\n" in start or len(start) >= START_BYTES:
                self._check_start(start)
                self._start = None

    def _check_start(self, start: bytes) -> None:
        check_start(self._content.format, start, header=self._content.header)

    def _check_size(self) -> None:
        limits = self._content
        if self._expanded_bytes > limits.max_expanded_bytes:
            raise FileTooLargeError(f"the file expands to more than {limits.max_expanded_bytes} bytes")
        if self._expanded_bytes > MIN_RATIO_BYTES and self._expanded_bytes > self._raw_bytes * limits.max_ratio:
            raise FileTooLargeError(f"the file expands to more than {limits.max_ratio} times its size")
