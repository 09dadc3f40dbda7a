"""Checksums of a file: SHA-256, and a CRC that S3 verifies."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Literal

Bytes = bytes | bytearray | memoryview


class Crc64Nvme:
    """CRC64NVME, computed by awscrt. The CRC of a file is combined from the CRCs of its parts."""

    name: Literal["CRC64NVME", "CRC32"] = "CRC64NVME"
    bytes = 8

    def __init__(self) -> None:
        from awscrt import checksums  # noqa: PLC0415  (a native library that is not available on every platform)

        self._update, self._combine = checksums.crc64nvme, checksums.combine_crc64nvme

    def update(self, data: Bytes, crc: int = 0) -> int:
        """Return ``crc`` updated with ``data``."""
        value: int = self._update(data, crc)
        return value

    def append(self, crc: int, data: Bytes, data_crc: int) -> int:
        """Return ``crc`` updated with ``data``, whose own CRC is ``data_crc``."""
        value: int = self._combine(crc, data_crc, len(data))
        return value

    def encode(self, crc: int) -> str:
        """Return a CRC in the format that S3 requires: big-endian and base64."""
        return base64.b64encode(crc.to_bytes(self.bytes, "big")).decode()


class Crc32(Crc64Nvme):
    """CRC32 of zlib, for platforms without awscrt. Combining two CRCs in Python would take 15 ms per part."""

    name = "CRC32"
    bytes = 4

    def __init__(self) -> None:
        """Do not import awscrt."""

    def update(self, data: Bytes, crc: int = 0) -> int:
        """Return ``crc`` updated with ``data``."""
        return zlib.crc32(data, crc)

    def append(self, crc: int, data: Bytes, data_crc: int) -> int:  # noqa: ARG002  (zlib cannot combine CRCs)
        """Return ``crc`` updated with ``data``."""
        return zlib.crc32(data, crc)


def best_checksum() -> Crc64Nvme:
    """Return CRC64NVME, or CRC32 on a platform without awscrt."""
    try:
        return Crc64Nvme()
    except ImportError:
        return Crc32()


class FileDigest:
    """SHA-256 and CRC of a file whose parts are added in order."""

    def __init__(self, algorithm: Crc64Nvme) -> None:
        self.algorithm = algorithm
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        self._crc = 0

    def add(self, data: memoryview, crc: int | None = None) -> None:
        """Add the next part; ``crc`` is its CRC, if it is known."""
        crc = self.algorithm.update(data) if crc is None else crc
        self._sha256.update(data)
        self._crc = self.algorithm.append(self._crc, data, crc)
        self.bytes += len(data)

    @property
    def sha256(self) -> str:
        """SHA-256 in hexadecimal digits."""
        return self._sha256.hexdigest()

    @property
    def checksum(self) -> str:
        """CRC of the file in the format that S3 requires."""
        return self.algorithm.encode(self._crc)
