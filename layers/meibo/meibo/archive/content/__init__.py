"""Validation and checksums of files.

``inspection`` decompresses a file and validates its format, ``rows`` counts its rows, and ``digest`` computes its
checksums.
"""

from meibo.archive.content.digest import Crc64Nvme, FileDigest, best_checksum
from meibo.archive.content.inspection import Content, Facts, Format, Inspection

__all__ = ["Content", "Crc64Nvme", "Facts", "FileDigest", "Format", "Inspection", "best_checksum"]
