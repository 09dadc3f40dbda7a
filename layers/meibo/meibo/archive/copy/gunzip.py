"""Gzip, decoded to the last trailer with bounded output per call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isal import igzip_lib

from meibo.errors import CorruptFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\x1f\x8b"
INPUT_BYTES = 64 * 1024
OUTPUT_BYTES = 128 * 1024
"""Small enough to stay in the CPU's cache and in the allocator's: larger ones cost a page fault each 4 KiB."""


class Gunzip:
    """Decode a stream of gzip members.

    igzip checks the CRC and the length in each trailer by itself; what it cannot see is a file that ends
    early, so ``finish`` asks for the end of the last member. Zeros after a member are padding, as for
    ``gzip -d``.
    """

    def __init__(self) -> None:
        self._member = self._fresh()
        self._begun = False
        self._members = 0

    @staticmethod
    def _fresh() -> igzip_lib.IgzipDecompressor:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    def feed(self, data: memoryview) -> Iterator[bytes]:
        """Decode more bytes into chunks of at most 128 KiB."""
        for start in range(0, len(data), INPUT_BYTES):
            yield from self._decode(data[start : start + INPUT_BYTES])

    def _decode(self, piece: memoryview | bytes) -> Iterator[bytes]:
        while True:
            if not self._begun:
                if self._members:
                    piece = bytes(piece).lstrip(b"\0")
                if not len(piece):
                    return
                self._begun = True
            try:
                chunk = self._member.decompress(piece, OUTPUT_BYTES)
            except igzip_lib.IsalError as error:  # type: ignore[misc]  # an exception class that has no stub
                raise CorruptFileError(f"the gzip data is broken in member {self._members + 1}: {error}") from None
            if chunk:
                yield chunk
            if self._member.eof:
                piece = self._member.unused_data
                self._member, self._begun = self._fresh(), False
                self._members += 1
            elif self._member.needs_input:
                return
            else:
                piece = b""

    def finish(self) -> None:
        """Raise if the file ended inside a member."""
        if self._begun or not self._members:
            raise CorruptFileError("the gzip data ends early")
