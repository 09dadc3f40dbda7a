"""Checksums that S3 verifies, and the SHA-256 that everybody can."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

Bytes = bytes | bytearray | memoryview
Algorithm = Literal["CRC64NVME", "CRC32"]


class Checksum(Protocol):
    """A CRC that S3 knows: of one part while it arrives, and of the whole object."""

    name: Algorithm

    def update(self, data: Bytes, previous: int = 0) -> int:
        """Continue a CRC over more bytes."""
        ...

    def encode(self, value: int) -> str:
        """Write a CRC as S3 wants it: big-endian, base64."""
        ...


class Crc64Nvme:
    """S3's own CRC-64, computed by awscrt at memory speed and combined from parts for free."""

    name: Algorithm = "CRC64NVME"

    def __init__(self) -> None:
        from awscrt import checksums  # noqa: PLC0415  (a native library that not every platform has)

        self._crc: Callable[[Bytes, int], int] = checksums.crc64nvme
        self._combine: Callable[[int, int, int], int] = checksums.combine_crc64nvme

    def update(self, data: Bytes, previous: int = 0) -> int:
        """Continue a CRC over more bytes."""
        return self._crc(data, previous)

    def combine(self, first: int, second: int, second_bytes: int) -> int:
        """Compute the CRC of two neighbours from theirs."""
        return self._combine(first, second, second_bytes)

    def encode(self, value: int) -> str:
        """Write a CRC as S3 wants it."""
        return base64.b64encode(value.to_bytes(8, "big")).decode()


class Crc32:
    """zlib's CRC, where awscrt is absent. Combining costs 15 ms a part in Python, so nothing is combined."""

    name: Algorithm = "CRC32"

    def update(self, data: Bytes, previous: int = 0) -> int:
        """Continue a CRC over more bytes."""
        return zlib.crc32(data, previous)

    def encode(self, value: int) -> str:
        """Write a CRC as S3 wants it."""
        return base64.b64encode(value.to_bytes(4, "big")).decode()


def best_checksum() -> Checksum:
    """Return CRC64NVME, or CRC32 on a platform without awscrt."""
    try:
        return Crc64Nvme()
    except ImportError:
        return Crc32()


class FileDigest:
    """SHA-256 and full-object CRC of a file whose parts come in order."""

    def __init__(self, checksum: Checksum) -> None:
        self._checksum = checksum
        self._sha256 = hashlib.sha256()
        self._crc = 0
        self.bytes = 0

    def add(self, data: memoryview, crc: int) -> None:
        """Take the next part and its own CRC."""
        self._sha256.update(data)
        if isinstance(self._checksum, Crc64Nvme):
            self._crc = self._checksum.combine(self._crc, crc, len(data))
        else:
            self._crc = self._checksum.update(data, self._crc)
        self.bytes += len(data)

    @property
    def sha256(self) -> str:
        """The SHA-256 in hex, as ``sha256sum`` prints it."""
        return self._sha256.hexdigest()

    @property
    def checksum(self) -> str:
        """The full-object CRC as S3 reports it."""
        return self._checksum.encode(self._crc)
