"""Checksums of a file: SHA-256, and a CRC that S3 verifies."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Literal

Bytes = bytes | bytearray | memoryview


class Crc64Nvme:
    """CRC64NVME, computed by awscrt. The CRC of a file is combined from those of its parts at no cost."""

    name: Literal["CRC64NVME", "CRC32"] = "CRC64NVME"

    def __init__(self) -> None:
        from awscrt import checksums  # noqa: PLC0415  (a native library that is not available on every platform)

        self._update, self._combine = checksums.crc64nvme, checksums.combine_crc64nvme

    def update(self, data: Bytes, crc: int = 0) -> int:
        """Return ``crc`` extended by more bytes."""
        value: int = self._update(data, crc)
        return value

    def append(self, crc: int, data: Bytes, data_crc: int) -> int:
        """Return ``crc`` extended by a part whose CRC is known."""
        value: int = self._combine(crc, data_crc, len(data))
        return value

    def encode(self, crc: int) -> str:
        """Return a CRC in the format that S3 requires: big-endian and base64."""
        return base64.b64encode(crc.to_bytes(8, "big")).decode()


class Crc32(Crc64Nvme):
    """CRC32 of zlib, if awscrt is not available. Combining would take 15 ms per part in Python."""

    name = "CRC32"

    def __init__(self) -> None:
        """Require no library: zlib is part of Python."""

    def update(self, data: Bytes, crc: int = 0) -> int:
        """Return ``crc`` extended by more bytes."""
        return zlib.crc32(data, crc)

    def append(self, crc: int, data: Bytes, data_crc: int) -> int:  # noqa: ARG002  (zlib cannot combine)
        """Return ``crc`` extended by a part."""
        return zlib.crc32(data, crc)

    def encode(self, crc: int) -> str:
        """Return a CRC in the format that S3 requires."""
        return base64.b64encode(crc.to_bytes(4, "big")).decode()


def best_checksum() -> Crc64Nvme:
    """Return CRC64NVME, or CRC32 on a platform without awscrt."""
    try:
        return Crc64Nvme()
    except ImportError:
        return Crc32()


class FileDigest:
    """SHA-256 and CRC of a file, from its parts in order."""

    def __init__(self, checksum: Crc64Nvme) -> None:
        self._checksum = checksum
        self._sha256 = hashlib.sha256()
        self._crc = 0
        self.bytes = 0

    def add(self, data: memoryview, crc: int) -> None:
        """Add the next part, whose CRC is known."""
        self._sha256.update(data)
        self._crc = self._checksum.append(self._crc, data, crc)
        self.bytes += len(data)

    @property
    def sha256(self) -> str:
        """SHA-256 in hexadecimal digits."""
        return self._sha256.hexdigest()

    @property
    def checksum(self) -> str:
        """CRC of the file in the format that S3 requires."""
        return self._checksum.encode(self._crc)
