"""Validation of the content of a file: its gzip members, its format and its rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from isal import igzip_lib

from meibo.archive.content.rows import BOM, CsvRows, NdjsonRows, check_start
from meibo.errors import CorruptFileError, FileTooLargeError

MIB = 1024 * 1024
GZIP_MAGIC = b"\x1f\x8b"

INPUT_BYTES = 64 * 1024
OUTPUT_BYTES = 128 * 1024
"""Maximum size of a decompressed chunk. Its rows are counted while the chunk is in the CPU cache."""

START_BYTES = 1024
"""Maximum number of bytes of the first line that are used to recognize the format."""

MIN_RATIO_BYTES = 64 * MIB
"""The ratio is checked above this number of expanded bytes. Small files can expand by a factor of 1,000."""

Format = Literal["csv", "ndjson", "opaque"]
Gzip = Literal["required", "never", "detect"]


@dataclass(frozen=True)
class Content:
    """Expected content of a file, and its size limits after decompression.

    ``uniform`` requires that the last record of a CSV without a header has as many fields as the first; with a header
    this is always required. ``decode=False`` checks only the gzip header and counts no rows.
    """

    format: Format = "opaque"
    gzip: Gzip = "detect"
    header: bool = False
    uniform: bool = False
    decode: bool = True
    max_expanded_bytes: int = 1024 * 1024 * MIB
    max_ratio: int = 400
    max_row_bytes: int = 64 * MIB


@dataclass(frozen=True)
class Facts:
    """The properties of a valid file. A property is None if the format does not have it or the file was not decoded.

    ``columns`` are the names in a CSV header, the number of fields of the first record of a CSV without a header, or
    the keys in the first rows of NDJSON.
    """

    gzip: bool
    rows: int | None
    columns: tuple[str, ...] | int | None
    expanded_bytes: int | None


class Inspection:
    """Validates a file that is fed in order, and raises an error as soon as the content is invalid."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._raw_bytes = 0
        self._expanded_bytes = 0
        self._lead: bytes | None = b""  # the first bytes of the file, until gzip is detected or excluded
        self._start: bytes | None = b""  # the first bytes of the content, until its format is checked
        self._gunzip: Gunzip | None = None
        self._rows: CsvRows | NdjsonRows | None = None
        if content.format == "csv":
            uniform = content.header or content.uniform
            self._rows = CsvRows(header=content.header, uniform=uniform, max_row_bytes=content.max_row_bytes)
        elif content.format == "ndjson":
            self._rows = NdjsonRows(max_row_bytes=content.max_row_bytes)

    def feed(self, data: memoryview) -> None:
        """Validate the next bytes of the file; raise BadFileError if they are invalid."""
        self._raw_bytes += len(data)
        if self._lead is None:
            self._decode(data)
            return
        self._lead += data
        if len(self._lead) >= len(GZIP_MAGIC):
            self._detect_gzip(self._lead)

    def finish(self) -> Facts:
        """Check the end of the file and return its facts; raise BadFileError if the file is invalid."""
        if self._lead is not None:
            self._detect_gzip(self._lead)
        is_gzip = self._gunzip is not None
        if not self._content.decode:
            return Facts(gzip=is_gzip, rows=None, columns=None, expanded_bytes=None)
        if self._gunzip is not None:
            self._gunzip.finish()
        rows, columns = None, None
        if self._rows is not None:
            if self._start is not None:
                self._check_start(self._start + b"\n")
            rows, columns = self._rows.finish()
        return Facts(gzip=is_gzip, rows=rows, columns=columns, expanded_bytes=self._expanded_bytes)

    def _detect_gzip(self, lead: bytes) -> None:
        self._lead = None
        is_gzip = lead.startswith(GZIP_MAGIC)
        if self._content.gzip == "required" and not is_gzip:
            self._check_start(lead)
            raise CorruptFileError("expected gzip data, found other data")
        if is_gzip and self._content.gzip != "never":
            self._gunzip = Gunzip()
        self._decode(memoryview(lead))

    def _decode(self, data: memoryview) -> None:
        if not self._content.decode:
            return
        for chunk in self._gunzip.feed(data) if self._gunzip is not None else _chunks(data):
            self._expanded_bytes += len(chunk)
            self._check_size()
            if self._rows is not None:
                if self._start is not None:
                    self._add_start(chunk)
                self._rows.feed(chunk)

    def _add_start(self, chunk: bytes) -> None:
        """Check the format as soon as the first line is known."""
        self._start = (self._start or b"") + chunk[:START_BYTES]
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


def _chunks(data: memoryview) -> Iterator[bytes]:
    for start in range(0, len(data), OUTPUT_BYTES):
        yield bytes(data[start : start + OUTPUT_BYTES])


class Gunzip:
    """Decompresses a sequence of gzip members.

    igzip verifies the CRC and the length in each trailer, but does not detect a truncated file; ``finish`` does.
    As in ``gzip -d``, zeros after a member are padding.
    """

    def __init__(self) -> None:
        self._member: igzip_lib.IgzipDecompressor | None = None  # the unfinished member
        self._members = 0

    def feed(self, data: memoryview) -> Iterator[bytes]:
        """Decompress the next bytes into chunks of at most OUTPUT_BYTES."""
        for start in range(0, len(data), INPUT_BYTES):
            yield from self._decompress(data[start : start + INPUT_BYTES])

    def _decompress(self, data: memoryview | bytes) -> Iterator[bytes]:
        while True:
            if self._member is None:
                data = bytes(data).lstrip(b"\0") if self._members else data
                if not len(data):
                    return
                self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
                self._members += 1
            try:
                chunk = self._member.decompress(data, OUTPUT_BYTES)
            except igzip_lib.IsalError as error:  # type: ignore[misc]  # an exception class without a stub
                raise CorruptFileError(f"the gzip data is corrupt in member {self._members}: {error}") from None
            if chunk:
                yield chunk
            if self._member.eof:
                data, self._member = self._member.unused_data, None
            elif self._member.needs_input:
                return
            else:
                data = b""

    def finish(self) -> None:
        """Raise CorruptFileError if the file ended inside a member."""
        if self._member is not None or not self._members:
            raise CorruptFileError("the gzip data ends early: expected the rest of a member, found the end of the file")
