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


class ContentReader:
    """Computes the digests of a file whose bytes are read once and in order, and validates its content."""

    def __init__(self, content: Content) -> None:
        self._checksum = best_checksum()
        self._digest = FileDigest(self._checksum)
        self._inspection = Inspection(content)

    @property
    def bytes(self) -> int:
        """The number of bytes so far."""
        return self._digest.bytes

    @property
    def checksum(self) -> tuple[str, str]:
        """The algorithm and the value of the checksum of the bytes so far."""
        return self._checksum.name, self._digest.checksum

    def add(self, data: memoryview) -> None:
        """Read the next bytes. Raises BadFileError if they cannot be those of a valid file."""
        self._digest.add(data, self._checksum.update(data))
        self._inspection.feed(data)

    def finish(
        self, *, already_there: bool, etag: str = "", version_id: str | None = None, counts: Counts | None = None
    ) -> CopyResult:
        """Return the result of the copy of the file. Raises BadFileError if the file is not valid."""
        facts = self._inspection.finish()
        return CopyResult(
            bytes=self._digest.bytes,
            sha256=self._digest.sha256,
            checksum=self._digest.checksum,
            checksum_algorithm=self._checksum.name,
            checksum_type="FULL_OBJECT",
            etag=etag,
            version_id=version_id,
            gzip=facts.gzip,
            rows=facts.rows,
            columns=facts.columns,
            expanded_bytes=facts.expanded_bytes,
            already_there=already_there,
            counts=counts or Counts(),
        )


def describe_existing_object(
    client: S3Client, bucket: str, key: str, *, content: Content, time_left: Callable[[], float] | None = None
) -> CopyResult:
    """Return the result that the copy of this object would have returned, from the object itself.

    Raises CorruptFileError if the object differs from its S3 checksum or gzip trailer, WrongFormatError if it
    does not have the format, and OutOfTimeError if the invocation's time (``time_left``, in seconds) is too short.
    """
    response = client.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    reader = ContentReader(content)
    for chunk in response["Body"].iter_chunks(_CHUNK_BYTES):
        if time_left is not None and time_left() < _MIN_READ_SECONDS:
            raise OutOfTimeError("expected to read the whole object, but the invocation ran out of time")
        reader.add(memoryview(chunk))
    if reader.bytes != response["ContentLength"]:
        raise CorruptFileError(f"{key} ended after {reader.bytes} of {response['ContentLength']} bytes")
    algorithm, checksum = reader.checksum
    stored = response.get("ChecksumCRC64NVME" if algorithm == "CRC64NVME" else "ChecksumCRC32")
    if stored is not None and response.get("ChecksumType") == "FULL_OBJECT" and stored != checksum:
        raise CorruptFileError(f"{key} does not have the {algorithm} that S3 stores for it")
    return reader.finish(already_there=True, etag=response["ETag"], version_id=response.get("VersionId"))
