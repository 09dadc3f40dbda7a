"""Look at the bytes of a copy: gzip to its trailer, the format, the rows."""

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
    from meibo.archive.copy.rows import Rows

START_BYTES = 1024
"""So much of the first line shows which format a file has."""

RATIO_MATTERS_FROM = 64 * MIB
"""A small file of blanks may expand a thousandfold and harm nobody."""


@dataclass(frozen=True)
class Facts:
    """What was seen."""

    gzip: bool
    rows: int | None
    columns: tuple[str, ...] | int | None
    expanded_bytes: int | None


class Inspection:
    """Takes a file's bytes in order and raises as soon as they cannot be what was asked for."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._raw_bytes = 0
        self._expanded_bytes = 0
        self._lead = b""
        self._gunzip: Gunzip | None = None
        self._decided = False
        self._start = b""
        self._started = False
        self._rows: Rows | None = None
        if content.format == "csv":
            self._rows = CsvRows(
                header=content.header, uniform=content.header or content.uniform, max_row_bytes=content.max_row_bytes
            )
        elif content.format == "ndjson":
            self._rows = NdjsonRows(max_row_bytes=content.max_row_bytes)

    def feed(self, data: memoryview) -> None:
        """Take the next bytes of the file."""
        self._raw_bytes += len(data)
        if not self._decided:
            if self._raw_bytes < len(MAGIC):
                self._lead += bytes(data)
                return
            self._decide(self._lead + bytes(data[: len(MAGIC)]))
            if self._lead:
                self._take(memoryview(self._lead))
        self._take(data)

    def _decide(self, start: bytes) -> None:
        """Tell gzip from plain by the magic."""
        zipped = start.startswith(MAGIC)
        if self._content.gzip == "required" and not zipped:
            self._check_start(start)
            raise CorruptFileError("the file is not gzip data")
        if zipped and self._content.gzip != "never":
            self._gunzip = Gunzip()
        self._decided = True

    def _take(self, data: memoryview) -> None:
        if not self._content.decode:
            return
        if self._gunzip is not None:
            chunks: Iterable[bytes] = self._gunzip.feed(data)
        else:
            chunks = (bytes(data[at : at + OUTPUT_BYTES]) for at in range(0, len(data), OUTPUT_BYTES))
        for chunk in chunks:
            self._expanded_bytes += len(chunk)
            self._check_size()
            if self._rows is not None:
                self._count(chunk)

    def _count(self, chunk: bytes) -> None:
        assert self._rows is not None  # noqa: S101  (told to mypy)
        if not self._started:
            self._start += chunk[:START_BYTES]
            start = self._start.removeprefix(BOM).lstrip()
            if b"\n" not in start and len(start) < START_BYTES:
                self._rows.feed(chunk)
                return
            self._check_start(start)
            self._started, self._start = True, b""
        self._rows.feed(chunk)

    def _check_start(self, start: bytes) -> None:
        check_start(self._content.format, start, header=self._content.header)

    def _check_size(self) -> None:
        limits = self._content
        if self._expanded_bytes > limits.max_expanded_bytes:
            raise FileTooLargeError(f"the file expands to more than {limits.max_expanded_bytes} bytes")
        if self._expanded_bytes > RATIO_MATTERS_FROM and self._expanded_bytes > self._raw_bytes * limits.max_ratio:
            raise FileTooLargeError(f"the file expands to more than {limits.max_ratio} times its size")

    def finish(self) -> Facts:
        """Check the end and return what was seen."""
        if not self._decided:
            self._decide(self._lead)
            self._take(memoryview(self._lead))
        zipped = self._gunzip is not None
        if not self._content.decode:
            return Facts(gzip=zipped, rows=None, columns=None, expanded_bytes=None)
        if self._gunzip is not None:
            self._gunzip.finish()
        if self._rows is None:
            return Facts(gzip=zipped, rows=None, columns=None, expanded_bytes=self._expanded_bytes)
        if not self._started:
            self._check_start(self._start + b"\n")
        rows, columns = self._rows.finish()
        return Facts(gzip=zipped, rows=rows, columns=columns, expanded_bytes=self._expanded_bytes)
