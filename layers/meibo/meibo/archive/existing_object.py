"""Read an archived object, to compute the digests, rows and facts that its copy would have returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meibo.archive.copy.content import Inspection
from meibo.archive.copy.digest import FileDigest, best_checksum
from meibo.archive.copy.model import MIB, Content, CopyResult, Counts
from meibo.errors import CorruptFileError, OutOfTimeError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CHUNK_BYTES = MIB
_MIN_READ_SECONDS = 10.0


def describe_existing_object(
    client: S3Client, bucket: str, key: str, *, content: Content, time_left: Callable[[], float] | None = None
) -> CopyResult:
    """Return the result that the copy of this object would have returned, from the object itself.

    Raises CorruptFileError if the object differs from its S3 checksum or gzip trailer, WrongFormatError if it
    does not have the format, and OutOfTimeError if the invocation's time (``time_left``, in seconds) is too short.
    """
    response = client.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    checksum = best_checksum()
    digest, inspection = FileDigest(checksum), Inspection(content)
    for chunk in response["Body"].iter_chunks(_CHUNK_BYTES):
        if time_left is not None and time_left() < _MIN_READ_SECONDS:
            raise OutOfTimeError("expected to read the whole object, but the invocation ran out of time")
        digest.add(memoryview(chunk), checksum.update(chunk))
        inspection.feed(memoryview(chunk))
    if digest.bytes != response["ContentLength"]:
        raise CorruptFileError(f"{key} ended after {digest.bytes} of {response['ContentLength']} bytes")
    stored = response.get("ChecksumCRC64NVME" if checksum.name == "CRC64NVME" else "ChecksumCRC32")
    if stored is not None and response.get("ChecksumType") == "FULL_OBJECT" and stored != digest.checksum:
        raise CorruptFileError(f"{key} does not have the {checksum.name} that S3 stores for it")
    facts = inspection.finish()
    return CopyResult(
        bytes=digest.bytes,
        sha256=digest.sha256,
        checksum=digest.checksum,
        checksum_algorithm=checksum.name,
        checksum_type="FULL_OBJECT",
        etag=response["ETag"],
        version_id=response.get("VersionId"),
        gzip=facts.gzip,
        rows=facts.rows,
        columns=facts.columns,
        expanded_bytes=facts.expanded_bytes,
        already_there=True,
        counts=Counts(),
    )
