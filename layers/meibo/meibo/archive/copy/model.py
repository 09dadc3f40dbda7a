"""What goes into a copy and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from datetime import datetime

    from mypy_boto3_s3 import S3Client

MIB = 1024 * 1024

MAX_PARTS = 10_000
"""Parts of one multipart upload. https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""

Format = Literal["csv", "ndjson", "opaque"]
Gzip = Literal["required", "never", "detect"]


@dataclass(frozen=True)
class ObjectLock:
    """Keep the object from being deleted or overwritten until a moment."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    retain_until: datetime


@dataclass(frozen=True)
class Target:
    """One object to be written once.

    The client signs each part for 15 minutes and runs the calls that are not parts. Its TLS trust is its
    own; the parts are sent with ``CopyOptions.target_tls``.
    """

    client: S3Client = field(repr=False)
    bucket: str
    key: str
    content_type: str = "application/octet-stream"
    object_lock: ObjectLock | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """What the file has to be, and how large it may become when it is decoded.

    ``uniform`` says that each record of a CSV without a header has the same number of fields; with a header each has.
    ``decode=False`` counts no rows and does not look behind the gzip header: for files that grow faster
    than one CPU decodes.
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
class CopyOptions:
    """How hard a copy tries.

    ``lanes`` times ``part_bytes`` is the memory that a copy takes beside a constant. S3 wants parts of at
    least 5 MiB; smaller ones are for tests. ``reserve_seconds`` is what a copy leaves of the invocation's
    time: it aborts the upload in it.
    """

    lanes: int = 16
    part_bytes: int = 8 * MIB
    stall_seconds: float = 20.0
    connect_seconds: float = 10.0
    tries: int = 8
    restarts: int = 3
    backoff_seconds: float = 0.1
    max_backoff_seconds: float = 10.0
    reserve_seconds: float = 10.0
    source_tls: ssl.SSLContext | None = field(default=None, repr=False)
    target_tls: ssl.SSLContext | None = field(default=None, repr=False)


@dataclass
class Counts:
    """What a copy did on the network; ``parts`` are the uploads that counted, ``puts`` all tries."""

    fetches: int = 0
    gets: int = 0
    puts: int = 0
    parts: int = 0
    refreshes: int = 0
    breaks: int = 0
    restarts: int = 0
    lanes: int = 1


@dataclass(frozen=True)
class CopyResult:
    """Proof of one archived object.

    ``columns`` are the names in a CSV header, the number of fields of the first record of a CSV without
    one, or the keys seen in the first rows of NDJSON.
    """

    bytes: int
    sha256: str
    checksum: str
    checksum_algorithm: Literal["CRC64NVME", "CRC32"]
    checksum_type: Literal["FULL_OBJECT"]
    etag: str
    version_id: str | None
    gzip: bool
    rows: int | None
    columns: tuple[str, ...] | int | None
    expanded_bytes: int | None
    already_there: bool
    counts: Counts
