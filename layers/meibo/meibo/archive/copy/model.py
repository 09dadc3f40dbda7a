"""Arguments and results of a copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from meibo.archive.content import Facts
from meibo.settings import MIB, NO_OBJECT_LOCK, ObjectLock

if TYPE_CHECKING:
    import ssl

    from mypy_boto3_s3 import S3Client

    from meibo.archive.content import FileDigest


@dataclass(frozen=True)
class Target:
    """The object to write. An existing object is never overwritten.

    The client presigns each part and sends all other requests, with its own trusted certificates. Parts are sent with
    ``CopyOptions.target_tls``.
    """

    client: S3Client = field(repr=False)
    bucket: str
    key: str
    content_type: str = "application/octet-stream"
    object_lock: ObjectLock = NO_OBJECT_LOCK


@dataclass(frozen=True)
class CopyOptions:
    """Concurrency, timeouts and retries of a copy.

    The parts in memory use at most ``workers`` times ``part_bytes``. Only a file of more than 10,000 times this size
    (781 GiB with the default values) needs more memory: the size of one of its 10,000 parts.

    A worker raises an error after ``max_attempts`` consecutive failures. If the file changes, the copy starts again, at
    most ``max_restarts`` times. After ``ranged_attempts`` attempts, the file is read with one request, so that all
    bytes belong to the same version. ``reserve_seconds`` of the invocation are reserved for aborting the upload.

    The default of ``part_bytes`` is the minimum of S3, so that a small file has as many concurrent parts as possible.
    With parts of 8 MiB, 10 MiB are copied at 0.77 times the speed, and 1 GiB is not copied faster.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
    """

    workers: int = 16
    part_bytes: int = 5 * MIB
    stall_seconds: float = 20.0
    connect_seconds: float = 10.0
    max_attempts: int = 8
    max_restarts: int = 3
    ranged_attempts: int = 2
    backoff_seconds: float = 0.1
    max_backoff_seconds: float = 10.0
    reserve_seconds: float = 10.0
    source_tls: ssl.SSLContext | None = field(default=None, repr=False)
    target_tls: ssl.SSLContext | None = field(default=None, repr=False)


@dataclass
class Counts:
    """Numbers of requests and failures. ``puts`` are attempts to upload a part, and ``parts`` are uploaded parts."""

    fetches: int = 0
    gets: int = 0
    puts: int = 0
    parts: int = 0
    refreshes: int = 0
    breaks: int = 0
    restarts: int = 0
    workers: int = 0


@dataclass(frozen=True, kw_only=True)
class CopyResult(Facts):
    """The archived object, with its digests and the verified facts of its content."""

    bytes: int
    sha256: str
    checksum: str
    checksum_algorithm: Literal["CRC64NVME", "CRC32"]
    checksum_type: Literal["FULL_OBJECT"] = "FULL_OBJECT"
    etag: str = ""
    version_id: str | None = None
    already_there: bool = False
    counts: Counts = field(default_factory=Counts)

    @classmethod
    def of(cls, digest: FileDigest, facts: Facts, **properties: Any) -> Self:
        """Return the result for a file with this digest and these facts, and other properties of the object."""
        return cls(
            **vars(facts),
            bytes=digest.bytes,
            sha256=digest.sha256,
            checksum=digest.checksum,
            checksum_algorithm=digest.algorithm.name,
            **properties,
        )
