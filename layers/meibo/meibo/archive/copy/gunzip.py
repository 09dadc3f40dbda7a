"""Decompression of gzip, including the last trailer, with bounded output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isal import igzip_lib

from meibo.errors import CorruptFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\x1f\x8b"
INPUT_BYTES = 64 * 1024
OUTPUT_BYTES = 128 * 1024
"""With larger outputs the CPU cache is exceeded: 512 KiB took 1.5 times as long."""


class Gunzip:
    """Decompresses a sequence of gzip members.

    igzip verifies the CRC and the length in each trailer, but cannot detect a file that ends early; ``finish`` does.
    As in ``gzip -d``, zeros after a member are padding.
    """

    def __init__(self) -> None:
        self._member = self._new_member()
        self._is_begun = False
        self._members = 0

    @staticmethod
    def _new_member() -> igzip_lib.IgzipDecompressor:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    def feed(self, data: memoryview) -> Iterator[bytes]:
        """Decompress more bytes into chunks of at most OUTPUT_BYTES."""
        for start in range(0, len(data), INPUT_BYTES):
            yield from self._decompress(data[start : start + INPUT_BYTES])

    def _decompress(self, data: memoryview | bytes) -> Iterator[bytes]:
        while True:
            if not self._is_begun:
                if self._members:
                    data = bytes(data).lstrip(b"\0")
                if not len(data):
                    return
                self._is_begun = True
            try:
                chunk = self._member.decompress(data, OUTPUT_BYTES)
            except igzip_lib.IsalError as error:  # type: ignore[misc]  # an exception class without a stub
                raise CorruptFileError(f"the gzip data is broken in member {self._members + 1}: {error}") from None
            if chunk:
                yield chunk
            if self._member.eof:
                data = self._member.unused_data
                self._member, self._is_begun = self._new_member(), False
                self._members += 1
            elif self._member.needs_input:
                return
            else:
                data = b""

    def finish(self) -> None:
        """Raise CorruptFileError if the file ended inside a member."""
        if self._is_begun or not self._members:
            raise CorruptFileError("the gzip data ends early")
